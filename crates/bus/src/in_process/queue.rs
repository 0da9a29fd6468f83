//! A named queue: hands each event to one of its consumers and takes the verdict.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use domain::Event;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::dead_letters::{DeadLetter, DeadLetters};
use super::line::Line;
use crate::{Consumer, Delivery, Error, MAX_ATTEMPTS, Settle, Verdict, retry_delay};

/// Why an event is a dead letter that no consumer ever said a word about.
const NEVER_SETTLED: &str = "its consumers stopped without saying what became of it";

/// Events for one group of consumers.
#[derive(Debug)]
pub(super) struct Queue {
    name: String,
    capacity: usize,
    /// Events that came and are not settled.
    held: AtomicUsize,
    line: Line<Entry>,
    dead_letters: Arc<DeadLetters>,
}

/// An event on its way.
#[derive(Debug)]
struct Entry {
    event: Arc<Event>,
    /// Which try comes next, from 1.
    attempt: u32,
}

impl Queue {
    pub(super) fn new(name: String, capacity: usize, dead_letters: Arc<DeadLetters>) -> Self {
        Self {
            name,
            capacity,
            held: AtomicUsize::new(0),
            line: Line::new(),
            dead_letters,
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Keeps a place for one event.
    ///
    /// # Errors
    /// `Unavailable` when the queue is full.
    pub(super) fn reserve(self: Arc<Self>) -> Result<Place, Error> {
        let room = |held| (held < self.capacity).then_some(held + 1);
        if let Err(held) = self
            .held
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, room)
        {
            let message = format!(
                "the queue {:?} is full: {held} events wait for its consumers; publish again later",
                self.name
            );
            return Err(Error::Unavailable {
                message,
                source: None,
            });
        }
        Ok(Place { queue: Some(self) })
    }

    /// Takes an event that could not be processed now; it rests, or is given up.
    fn retry(&self, entry: Entry, reason: String) {
        match retry_delay(entry.attempt) {
            Some(delay) => self.line.push_after(delay, entry.again()),
            None => self.bury(entry, reason),
        }
    }

    /// Takes an event back whose consumer stopped; the next one gets it at once.
    fn take_back(&self, entry: Entry) {
        if entry.attempt < MAX_ATTEMPTS {
            self.line.put_back(entry.again());
        } else {
            self.bury(entry, NEVER_SETTLED.to_owned());
        }
    }

    fn bury(&self, entry: Entry, reason: String) {
        self.dead_letters.bury(DeadLetter {
            event: entry.event,
            queue: self.name.clone(),
            attempts: entry.attempt,
            reason,
        });
        self.forget();
    }

    /// Gives the place of an event free.
    fn forget(&self) {
        self.held.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Entry {
    fn again(self) -> Self {
        Self {
            attempt: self.attempt + 1,
            ..self
        }
    }
}

/// A place kept for one event; given back when it is not filled.
pub(super) struct Place {
    queue: Option<Arc<Queue>>,
}

impl Place {
    /// Puts the event in.
    pub(super) fn fill(mut self, event: Arc<Event>) {
        if let Some(queue) = self.queue.take() {
            queue.line.push(Entry { event, attempt: 1 });
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(queue) = &self.queue {
            queue.forget();
        }
    }
}

/// One of the consumers of a queue.
pub(super) struct QueueConsumer {
    queue: Arc<Queue>,
    /// As many as it may hold deliveries.
    hands: Arc<Semaphore>,
    closed: CancellationToken,
}

impl QueueConsumer {
    pub(super) fn new(queue: Arc<Queue>, prefetch: usize, closed: CancellationToken) -> Self {
        let prefetch = prefetch.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            queue,
            hands: Arc::new(Semaphore::new(prefetch)),
            closed,
        }
    }

    async fn take(&self) -> Option<Delivery> {
        let hand = Arc::clone(&self.hands).acquire_owned().await.ok()?;
        let entry = self.queue.line.next().await;
        let event = Event::clone(&entry.event);
        let attempt = entry.attempt;
        let held = Held {
            queue: Arc::clone(&self.queue),
            entry: Some(entry),
            _hand: hand,
        };
        Some(Delivery::new(
            event,
            self.queue.name.clone(),
            attempt,
            None,
            Box::new(held),
        ))
    }
}

#[async_trait]
impl Consumer for QueueConsumer {
    async fn next(&mut self) -> Option<Delivery> {
        self.closed.run_until_cancelled(self.take()).await?
    }
}

/// An event in a consumer's hand.
struct Held {
    queue: Arc<Queue>,
    entry: Option<Entry>,
    _hand: OwnedSemaphorePermit,
}

impl Settle for Held {
    fn settle(mut self: Box<Self>, verdict: Verdict) {
        if let Some(entry) = self.entry.take() {
            match verdict {
                Verdict::Done => self.queue.forget(),
                Verdict::Retry(reason) => self.queue.retry(entry, reason),
                Verdict::Reject(reason) => self.queue.bury(entry, reason),
            }
        }
    }
}

impl Drop for Held {
    /// Also runs while a consumer's panic unwinds, so that the event is not lost with it.
    fn drop(&mut self) {
        if let Some(entry) = self.entry.take() {
            self.queue.take_back(entry);
        }
    }
}
