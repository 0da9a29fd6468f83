//! What agents were refused goes into the audit log.

use std::sync::Arc;

use engine::{Engine, OnRefusal, Refusal};
use serde_json::{Map, Value};
use services::audit::{Act, Audit};
use tokio::sync::mpsc::{Receiver, channel};
use tokio_util::sync::CancellationToken;

/// How many wait to be written at most; a model may want very many.
const QUEUE: usize = 1000;

/// Whom to tell, and who hears of it.
pub(super) fn told() -> (OnRefusal, Receiver<Refusal>) {
    let (sender, receiver) = channel(QUEUE);
    let tell = move |refusal| {
        // Nobody listens when nothing is written down.
        if let Err(tokio::sync::mpsc::error::TrySendError::Full(_)) = sender.try_send(refusal) {
            tracing::warn!("a refusal is not in the audit log: too many wait");
        }
    };
    (Arc::new(tell), receiver)
}

/// Writes them down, until `stop`.
pub(super) async fn write_down(
    audit: Audit,
    engine: Engine,
    mut refusals: Receiver<Refusal>,
    stop: CancellationToken,
) {
    loop {
        let next = match stop.run_until_cancelled(refusals.recv()).await {
            Some(next) => next,
            // Nothing more is refused by now; what was is written down.
            None => refusals.try_recv().ok(),
        };
        let Some(refusal) = next else { return };
        let details = [
            ("execution", refusal.execution.to_string()),
            ("why", refusal.why),
        ];
        let details = details.map(|(name, value)| (name.to_owned(), Value::String(value)));
        let act = Act {
            at: engine.now(),
            kind: "agent",
            who: refusal.agent.to_string(),
            action: "call tool".to_owned(),
            target: refusal.tool,
            outcome: "denied",
            trace_id: refusal.trace_id.to_string(),
            details: Map::from_iter(details),
        };
        audit.note(act).await;
    }
}
