//! Errands: what is to be done outside, kept until it is done, and done by one process at a time.
//!
//! An errand is a document that its owner alone understands. Whoever claims it has it until the lease ends, and writes
//! down how far it has come; a write is fenced by the version that the claim gave, as a journal's is by its epoch. One
//! that is done stays for a while, so that the same errand, brought again, is known.
//!
//! While somebody has one, it is due when the lease ends. If it is due before, it was woken meanwhile: then it is so again
//! as soon as it is given back, whenever its owner wanted to go on.

use std::time::Duration;

use async_trait::async_trait;
use domain::Time;

use crate::Result;

/// An errand to take in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewErrand {
    /// Its name: the same one is taken in once.
    pub id: String,
    /// Whose claims find it.
    pub queue: String,
    /// What is to be done, as JSON.
    pub body: String,
    /// From when on.
    pub due_at: Time,
}

/// An errand as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errand {
    /// Its name.
    pub id: String,
    /// What is to be done, and how far it has come, as JSON.
    pub body: String,
    /// Counts its claims: what its owner writes with.
    pub version: u64,
    /// Whether it is done.
    pub is_done: bool,
}

/// Who wants errands.
#[derive(Debug, Clone)]
pub struct ErrandClaim {
    /// Of which queue.
    pub queue: String,
    /// The time.
    pub now: Time,
    /// How long they are the claimer's own.
    pub lease: Duration,
    /// How many at most.
    pub limit: usize,
}

/// What an owner writes down.
#[derive(Debug, Clone)]
pub struct ErrandChange {
    /// Which errand.
    pub id: String,
    /// The version that the claim gave.
    pub version: u64,
    /// How far it has come, as JSON.
    pub body: String,
    /// What becomes of it.
    pub next: ErrandNext,
}

/// What becomes of an errand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrandNext {
    /// It stays its owner's until then.
    Keep(Time),
    /// It is given back, and due then.
    Later(Time),
    /// It is done, at this time.
    Done(Time),
}

/// The part of a store that keeps errands.
#[async_trait]
pub trait Errands: Send + Sync + 'static {
    /// Takes one in, unless there is or was one of that name; tells whether it was taken in.
    async fn add_errand(&self, errand: NewErrand) -> Result<bool>;

    /// Takes those that are due and nobody's, the longest due first. Each gets its next version.
    async fn claim_errands(&self, claim: ErrandClaim) -> Result<Vec<Errand>>;

    /// Writes down how far one has come, if the version is the current one and it is not done; tells whether it is.
    async fn save_errand(&self, change: ErrandChange) -> Result<bool>;

    /// Makes one due at once: now if nobody has it, else as soon as it is given back. Tells whether it is not done.
    async fn wake_errand(&self, id: &str, now: Time) -> Result<bool>;

    /// One errand.
    async fn errand(&self, id: &str) -> Result<Option<Errand>>;

    /// Forgets those that were done before a time, a thousand at most; tells how many.
    async fn forget_errands(&self, before: Time) -> Result<u64>;
}
