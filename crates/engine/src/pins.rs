//! Which tools of servers an agent may have: those that are what was approved. What that means is [`domain::pin`]'s, what was
//! approved is the store's.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::event::topics;
use domain::pin::{Fingerprint, Seen, Sight, withheld};
use domain::{AgentName, Event, Execution};
use serde_json::json;
use tokio::time::Instant;
use tools::Offer;

use crate::Refusal;
use crate::shared::Shared;

/// How long it is gone by that a tool was what was approved: it is asked for at every turn of every model.
const TRUST: Duration = Duration::from_secs(10);
/// How many tools that is known of.
const MOST_KNOWN: usize = 10_000;

/// The tools that were what was approved when somebody looked last.
#[derive(Default)]
pub(crate) struct Pins {
    known: Mutex<HashMap<Key, (Fingerprint, Instant)>>,
}

/// Whose tool, of which server, which.
type Key = (AgentName, String, String);

impl Pins {
    fn knows(&self, agent: &AgentName, sight: &Sight) -> bool {
        let known = self.lock();
        let found = known.get(&key(agent, sight));
        found.is_some_and(|(pin, at)| *pin == sight.fingerprint && at.elapsed() < TRUST)
    }

    fn note(&self, agent: &AgentName, sight: &Sight, is_granted: bool) {
        let mut known = self.lock();
        if known.len() >= MOST_KNOWN {
            known.clear();
        }
        let key = key(agent, sight);
        match is_granted {
            true => known.insert(key, (sight.fingerprint.clone(), Instant::now())),
            false => known.remove(&key),
        };
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, (Fingerprint, Instant)>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn key(agent: &AgentName, sight: &Sight) -> Key {
    (agent.clone(), sight.server.clone(), sight.tool.clone())
}

/// What an agent may have of what its tools offer.
pub(crate) struct Granted {
    /// What it may have.
    pub(crate) offers: Arc<Vec<Offer>>,
    /// The names of what it may not.
    pub(crate) withheld: BTreeSet<String>,
}

/// Takes out what is not what was approved, and tells of it when that is news.
pub(crate) async fn grant(
    core: &Shared,
    execution: &Execution,
    offers: Arc<Vec<Offer>>,
) -> store::Result<Granted> {
    let agent = &execution.agent;
    let sights = offers.iter().filter_map(|offer| offer.pin.as_ref());
    let sights = sights.filter(|sight| !core.pins.knows(agent, sight));
    let sights: Vec<Sight> = sights.cloned().collect();
    let mut withheld = BTreeSet::new();
    if !sights.is_empty() {
        let store = &core.ports.store;
        let seen = store.see_tools(agent, &sights, core.now()).await?;
        for (sight, seen) in sights.iter().zip(seen) {
            core.pins.note(agent, sight, seen.is_granted());
            if !seen.is_granted() {
                withheld.insert(sight.tool.clone());
            }
            if matches!(seen, Seen::Changed | Seen::ChangedAgain) {
                tell(core, execution, sight).await?;
            }
        }
    }
    let offers = match withheld.is_empty() {
        true => offers,
        false => {
            let rest = offers
                .iter()
                .filter(|offer| !withheld.contains(&offer.name));
            Arc::new(rest.cloned().collect())
        }
    };
    Ok(Granted { offers, withheld })
}

async fn tell(core: &Shared, execution: &Execution, sight: &Sight) -> store::Result<()> {
    let (agent, tool) = (&execution.agent, &sight.tool);
    tracing::warn!(
        agent_name = %agent, execution_id = %execution.id, trace_id = %execution.trace_id, tool, server = sight.server,
        "a tool's server changed it: it is withheld; `agentrunner agents approve-tools {agent} {tool}` lets the agent use it"
    );
    (core.on_refusal)(Refusal {
        agent: agent.clone(),
        execution: execution.id,
        trace_id: execution.trace_id.clone(),
        tool: tool.clone(),
        why: withheld(agent, tool),
    });
    let (Ok(topic), Ok(id)) = (
        topics::TOOL_CHANGED.parse(),
        (core.new_id)().to_string().parse(),
    ) else {
        return Ok(());
    };
    let event = Event {
        id,
        topic,
        source: format!("agentrunner/{agent}"),
        time: core.now(),
        trace_id: execution.trace_id.clone(),
        hops: execution.hops,
        data: json!({
            "agent_name": agent, "server": sight.server, "tool": tool, "fingerprint": sight.fingerprint,
            "execution_id": execution.id,
        }),
    };
    core.ports.store.publish(&[event]).await
}
