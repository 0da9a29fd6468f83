//! Takes the events of a queue.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::EventId;
use lapin::Acker;

use super::Shared;
use super::message::{self, Letter};
use super::settle::{Settlement, Settlements, Transfer};
use super::source::Source;
use super::topology::Queue;
use crate::{Consumer, Delivery, MAX_ATTEMPTS, Settle, Verdict, retry_delay};

/// Why an event is a dead letter that no consumer ever said a word about.
const NEVER_SETTLED: &str = "its consumers stopped without saying what became of it";

pub(super) struct QueueConsumer(Source);

impl QueueConsumer {
    pub(super) fn new(source: Source) -> Self {
        Self(source)
    }
}

#[async_trait]
impl Consumer for QueueConsumer {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            let (mut arrival, settlements) = self.0.next().await?;
            let letter = Letter::new(&mut arrival);
            let (shared, queue) = (Arc::clone(self.0.shared()), Arc::clone(self.0.queue()));
            let tried = letter.tried();
            match message::read(letter.body()) {
                Ok(event) => {
                    let drops = shared.drops.of(&queue.name, event.id.as_str());
                    let attempt = (tried + drops + 1).min(MAX_ATTEMPTS);
                    let name = queue.name.clone();
                    let held = Held {
                        id: event.id.clone(),
                        attempt,
                        rest: Some(Rest {
                            shared,
                            settlements,
                            queue,
                            letter,
                            acker: arrival.acker,
                        }),
                    };
                    return Some(Delivery::new(event, name, attempt, None, Box::new(held)));
                }
                // No consumer could make anything of it, now or later.
                Err(error) => {
                    let transfer = Transfer {
                        queue,
                        letter,
                        acker: arrival.acker,
                        attempt: tried + 1,
                        reason: format!("it is unreadable: {error}"),
                    };
                    settlements.send(Settlement::Bury(transfer)).ok();
                }
            }
        }
    }
}

/// An event in a consumer's hand.
struct Held {
    id: EventId,
    attempt: u32,
    rest: Option<Rest>,
}

/// What is needed to settle it, once.
struct Rest {
    shared: Arc<Shared>,
    settlements: Settlements,
    queue: Arc<Queue>,
    letter: Letter,
    acker: Acker,
}

impl Held {
    fn let_go(&mut self, verdict: Option<Verdict>) {
        let Some(Rest {
            shared,
            settlements,
            queue,
            letter,
            acker,
        }) = self.rest.take()
        else {
            return;
        };
        let id = self.id.as_str();
        if verdict.is_none() && self.attempt < MAX_ATTEMPTS {
            shared.drops.count(&queue.name, id);
            let settlement = Settlement::Return(acker, Duration::ZERO);
            settlements.send(settlement).ok();
            return;
        }
        shared.drops.forget(&queue.name, id);
        let (delay, reason) = match verdict {
            Some(Verdict::Done) => {
                settlements.send(Settlement::Forget(acker)).ok();
                return;
            }
            Some(Verdict::Retry(reason)) => (retry_delay(self.attempt), reason),
            Some(Verdict::Reject(reason)) => (None, reason),
            None => (None, NEVER_SETTLED.to_owned()),
        };
        let transfer = Transfer {
            queue,
            letter,
            acker,
            attempt: self.attempt,
            reason,
        };
        let settlement = match delay {
            Some(delay) => Settlement::Rest(transfer, delay),
            None => Settlement::Bury(transfer),
        };
        // Nobody listens once the bus is closed: then the broker hands it out again.
        settlements.send(settlement).ok();
    }
}

impl Settle for Held {
    fn settle(mut self: Box<Self>, verdict: Verdict) {
        self.let_go(Some(verdict));
    }
}

impl Drop for Held {
    /// Also runs while a consumer's panic unwinds, so that the event is not lost with it.
    fn drop(&mut self) {
        self.let_go(None);
    }
}
