//! Publish and consume events behind one trait. A message is a hint, never a fact: losing, doubling or reordering
//! it is harmless, because claims, leases and wake-ups live in the store.

pub mod in_process;
pub mod rabbitmq;

use std::fmt;
use std::time::Duration;

use async_trait::async_trait;
use domain::{Event, TopicPattern};

pub use in_process::InProcess;
pub use rabbitmq::RabbitMq;

/// How often a delivery is tried before it is a dead letter. One that is dropped unsettled counts.
pub const MAX_ATTEMPTS: u32 = 5;

/// The longest whisper, in bytes.
pub const MAX_WHISPER: usize = 1 << 20;
/// How many whispers wait for a slow listener, or to be sent; more are dropped.
const WAITING_WHISPERS: usize = 128;

/// How long a delivery rests after its `attempt` (from 1) ended in [`Verdict::Retry`]: 1, 2, 4, 8 s. `None` after
/// the last one: it is a dead letter.
pub const fn retry_delay(attempt: u32) -> Option<Duration> {
    match attempt {
        0 => Some(Duration::from_secs(1)),
        1..MAX_ATTEMPTS => Some(Duration::from_secs(1 << (attempt - 1))),
        _ => None,
    }
}

/// What can go wrong with a bus.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It can't be reached or does not confirm; try again with the same event.
    #[error("the message queue is unavailable: {message}")]
    Unavailable {
        /// What happened and what to do.
        message: String,
        /// The client's error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// It can be reached and says no: somebody has to change something before it is of use to try again.
    #[error("the message queue refuses: {message}")]
    Refused {
        /// What it refuses, why, and what to do.
        message: String,
        /// The client's error.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// It is closed.
    #[error("the message queue is closed")]
    Closed,
}

/// Publish and consume events.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Hands an event to every queue with a matching pattern. On `Ok` each of them has it.
    async fn publish(&self, event: &Event) -> Result<(), Error>;

    /// Joins a queue, making it when it is new. Consumers of one queue share its events.
    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Consumer>, Error>;

    /// Deletes a queue with all that it holds, its dead letters too. Whoever consumes it has to have let go of it. One
    /// that is not there is no error.
    async fn remove(&self, queue: &str) -> Result<(), Error>;

    /// Events that no consumer of a queue could process: all queues together.
    async fn dead_letters(&self) -> Result<Box<dyn Consumer>, Error>;

    /// Says something to whoever listens on a channel at this moment: at most once, kept nowhere, confirmed by nobody.
    /// Never waits. What can't be sent now, or is longer than [`MAX_WHISPER`], is dropped.
    fn whisper(&self, channel: &str, words: Vec<u8>);

    /// Listens on channels until the listener is dropped, through lost connections. From `Ok` on it hears.
    async fn listen(&self, channels: &[String]) -> Result<Box<dyn Listener>, Error>;

    /// Fails when the bus can't take events.
    async fn check(&self) -> Result<(), Error>;

    /// Stops deliveries; consumers end.
    async fn close(&self);
}

/// Which events a queue gets, and how they are handed out.
#[derive(Debug, Clone)]
pub struct Subscription {
    /// The queue's name.
    pub queue: String,
    /// Topics that it wants; replaces what the queue wanted before.
    pub patterns: Vec<TopicPattern>,
    /// How many unsettled deliveries this consumer may hold.
    pub prefetch: usize,
}

/// Takes the deliveries of a queue.
#[async_trait]
pub trait Consumer: Send {
    /// The next delivery; `None` when the bus is closed.
    async fn next(&mut self) -> Option<Delivery>;
}

/// Hears what is whispered. Who hears too slowly misses some of it.
#[async_trait]
pub trait Listener: Send {
    /// What is heard next; `None` when the bus is closed. Dropping the future loses nothing.
    async fn next(&mut self) -> Option<Vec<u8>>;
}

/// An event in somebody's hands. Settled by value: what is dropped unsettled is delivered again.
pub struct Delivery {
    /// The event.
    pub event: Event,
    /// The queue.
    pub queue: String,
    /// Which try it is, from 1.
    pub attempt: u32,
    /// Why it was given up, for a dead letter.
    pub reason: Option<String>,
    settle: Option<Box<dyn Settle>>,
}

/// The adapter's side of a delivery.
pub trait Settle: Send {
    /// Takes the verdict. Called once; not called when the delivery is dropped unsettled, then the adapter's own
    /// `Drop` delivers again.
    fn settle(self: Box<Self>, verdict: Verdict);
}

/// What became of a delivery.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is processed.
    Done,
    /// It could not be processed now: it comes again after 1, 2, 4, 8 s, and is a dead letter after the fifth try.
    Retry(String),
    /// It can never be processed: it is a dead letter.
    Reject(String),
}

impl Delivery {
    /// For adapters.
    pub fn new(
        event: Event,
        queue: String,
        attempt: u32,
        reason: Option<String>,
        settle: Box<dyn Settle>,
    ) -> Self {
        Self {
            event,
            queue,
            attempt,
            reason,
            settle: Some(settle),
        }
    }

    /// Says that it is processed.
    pub fn done(self) {
        self.verdict(Verdict::Done);
    }

    /// Says that it could not be processed now.
    pub fn retry(self, reason: impl Into<String>) {
        self.verdict(Verdict::Retry(reason.into()));
    }

    /// Says that it can never be processed.
    pub fn reject(self, reason: impl Into<String>) {
        self.verdict(Verdict::Reject(reason.into()));
    }

    fn verdict(mut self, verdict: Verdict) {
        if let Some(settle) = self.settle.take() {
            settle.settle(verdict);
        }
    }
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("event", &self.event.id)
            .field("queue", &self.queue)
            .field("attempt", &self.attempt)
            .finish_non_exhaustive()
    }
}
