//! Takes dead letters away, from the `.dlq` of each subscribed queue.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::select_all;
use lapin::Acker;
use lapin::message::Delivery as Arrival;
use tokio::sync::watch;

use super::Shared;
use super::message::{self, Letter};
use super::settle::{Settlement, Settlements};
use super::source::{Kind, Source};
use super::topology::Subscribed;
use crate::{Consumer, Delivery, MAX_ATTEMPTS, Settle, Verdict, retry_delay};

/// How many dead letters of one queue may be in hand or resting.
const PREFETCH: u16 = 16;

pub(super) struct DeadLetterConsumer {
    shared: Arc<Shared>,
    subscribed: watch::Receiver<BTreeMap<String, Subscribed>>,
    sources: Vec<Source>,
    names: BTreeSet<String>,
}

impl DeadLetterConsumer {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        let mut subscribed = shared.topology.subscribed();
        subscribed.mark_changed();
        Self {
            shared,
            subscribed,
            sources: Vec::new(),
            names: BTreeSet::new(),
        }
    }

    /// Takes in the queues that were subscribed to since, and lets go of those that were removed.
    fn look(&mut self) {
        let subscribed = self.subscribed.borrow_and_update();
        self.names.retain(|name| subscribed.contains_key(name));
        self.sources
            .retain(|source| subscribed.contains_key(&source.queue().name));
        for (name, Subscribed { queue, .. }) in &*subscribed {
            if self.names.insert(name.clone()) {
                let (shared, queue) = (Arc::clone(&self.shared), Arc::clone(queue));
                let source = Source::new(shared, queue, Kind::DeadLetters, PREFETCH);
                self.sources.push(source);
            }
        }
    }

    /// The next of any of them; `None` when the bus is closed.
    async fn take(&mut self) -> Option<(Arrival, Settlements, String)> {
        loop {
            if self.subscribed.has_changed().unwrap_or(false) {
                self.look();
            }
            if self.sources.is_empty() {
                self.subscribed.changed().await.ok()?;
                self.subscribed.mark_changed();
                continue;
            }
            let any = select_all(self.sources.iter_mut().map(|source| source.next().boxed()));
            let ((arrival, settlements), index) = tokio::select! {
                (first, index, _) = any => (first?, index),
                changed = self.subscribed.changed() => {
                    changed.ok()?;
                    self.subscribed.mark_changed();
                    continue;
                }
            };
            let queue = self.sources.get(index)?.queue().name.clone();
            // The others come first next time.
            self.sources.rotate_left(index + 1);
            return Some((arrival, settlements, queue));
        }
    }
}

#[async_trait]
impl Consumer for DeadLetterConsumer {
    async fn next(&mut self) -> Option<Delivery> {
        let closed = self.shared.closed.clone();
        loop {
            let (mut arrival, settlements, queue) =
                closed.run_until_cancelled(self.take()).await??;
            let letter = Letter::new(&mut arrival);
            let event = message::read(letter.body()).ok();
            let Some(event) = event.or_else(|| letter.unreadable(&queue)) else {
                continue;
            };
            let held = Held {
                settlements,
                acker: Some(arrival.acker),
                returns: letter.returns(),
                queue: queue.clone(),
                id: event.id.as_str().to_owned(),
            };
            let (attempt, reason) = (letter.tried().max(1), letter.reason());
            return Some(Delivery::new(
                event,
                queue,
                attempt,
                Some(reason),
                Box::new(held),
            ));
        }
    }
}

/// A dead letter in a consumer's hand.
struct Held {
    settlements: Settlements,
    acker: Option<Acker>,
    returns: u32,
    queue: String,
    id: String,
}

impl Settle for Held {
    /// There is nowhere left to give it up to: what can't be kept now is offered again, for as long as it takes.
    fn settle(mut self: Box<Self>, verdict: Verdict) {
        let Some(acker) = self.acker.take() else {
            return;
        };
        let settlement = match verdict {
            Verdict::Done => Settlement::Forget(acker),
            Verdict::Retry(_) => {
                let tries = self.returns.saturating_add(1).min(MAX_ATTEMPTS - 1);
                Settlement::Return(acker, retry_delay(tries).unwrap_or(Duration::ZERO))
            }
            Verdict::Reject(reason) => {
                tracing::warn!(
                    event_id = self.id,
                    queue = self.queue,
                    reason,
                    "a dead letter is refused and forgotten"
                );
                Settlement::Forget(acker)
            }
        };
        self.settlements.send(settlement).ok();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(acker) = self.acker.take() {
            let settlement = Settlement::Return(acker, Duration::ZERO);
            self.settlements.send(settlement).ok();
        }
    }
}
