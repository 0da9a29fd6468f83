//! Events that were given up, until somebody takes them away.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use domain::Event;
use tokio_util::sync::CancellationToken;

use super::line::Line;
use crate::{Consumer, Delivery, MAX_ATTEMPTS, Settle, Verdict, retry_delay};

/// An event that a queue gave up.
#[derive(Debug)]
pub(super) struct DeadLetter {
    pub(super) event: Arc<Event>,
    pub(super) queue: String,
    /// How often it was tried there.
    pub(super) attempts: u32,
    pub(super) reason: String,
}

/// The dead letters of all queues.
#[derive(Debug)]
pub(super) struct DeadLetters {
    capacity: usize,
    line: Line<Letter>,
    forgotten: AtomicU64,
}

/// A dead letter and how often it was handed out.
#[derive(Debug)]
struct Letter {
    letter: DeadLetter,
    tries: u32,
}

impl DeadLetters {
    pub(super) fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            line: Line::new(),
            forgotten: AtomicU64::new(0),
        }
    }

    /// Keeps a dead letter; when there are too many, forgets the oldest.
    pub(super) fn bury(&self, letter: DeadLetter) {
        tracing::warn!(
            event_id = %letter.event.id,
            topic = %letter.event.topic,
            trace_id = %letter.event.trace_id,
            queue = letter.queue,
            attempts = letter.attempts,
            reason = letter.reason,
            "an event is given up and becomes a dead letter"
        );
        if let Some(oldest) = self
            .line
            .push_within(self.capacity, Letter { letter, tries: 0 })
        {
            self.forget(&oldest.letter);
        }
    }

    /// Throws away what a queue gave up.
    pub(super) fn forget_those_of(&self, queue: &str) {
        self.line.retain(|letter| letter.letter.queue != queue);
    }

    /// Tells of it at the 1st, 2nd, 4th, 8th … time: a flood of dead letters must not be one of log lines too.
    fn forget(&self, letter: &DeadLetter) {
        let forgotten = self.forgotten.fetch_add(1, Ordering::Relaxed) + 1;
        if forgotten.is_power_of_two() {
            tracing::warn!(
                event_id = %letter.event.id,
                topic = %letter.event.topic,
                queue = letter.queue,
                capacity = self.capacity,
                forgotten,
                "nobody takes the dead letters, the oldest is forgotten"
            );
        }
    }
}

/// Takes dead letters away, one at a time.
pub(super) struct DeadLetterConsumer {
    dead_letters: Arc<DeadLetters>,
    closed: CancellationToken,
}

impl DeadLetterConsumer {
    pub(super) fn new(dead_letters: Arc<DeadLetters>, closed: CancellationToken) -> Self {
        Self {
            dead_letters,
            closed,
        }
    }
}

#[async_trait]
impl Consumer for DeadLetterConsumer {
    async fn next(&mut self) -> Option<Delivery> {
        let Letter { letter, tries } = self
            .closed
            .run_until_cancelled(self.dead_letters.line.next())
            .await?;
        let event = Event::clone(&letter.event);
        let (queue, attempts) = (letter.queue.clone(), letter.attempts);
        let reason = Some(letter.reason.clone());
        let held = Held {
            dead_letters: Arc::clone(&self.dead_letters),
            letter: Some(Letter {
                letter,
                tries: tries.saturating_add(1),
            }),
        };
        Some(Delivery::new(
            event,
            queue,
            attempts,
            reason,
            Box::new(held),
        ))
    }
}

/// A dead letter in a consumer's hand.
struct Held {
    dead_letters: Arc<DeadLetters>,
    letter: Option<Letter>,
}

impl Settle for Held {
    /// There is nowhere left to give it up to: what can't be kept now is offered again, for as long as it takes.
    fn settle(mut self: Box<Self>, verdict: Verdict) {
        let Some(letter) = self.letter.take() else {
            return;
        };
        match verdict {
            Verdict::Done => {}
            Verdict::Retry(_) => {
                let tries = letter.tries.min(MAX_ATTEMPTS - 1);
                if let Some(delay) = retry_delay(tries) {
                    self.dead_letters.line.push_after(delay, letter);
                }
            }
            Verdict::Reject(reason) => tracing::warn!(
                event_id = %letter.letter.event.id,
                queue = letter.letter.queue,
                reason,
                "a dead letter is refused and forgotten"
            ),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(letter) = self.letter.take() {
            self.dead_letters.line.put_back(letter);
        }
    }
}
