//! What processes count together: how often a caller may come, and how long a provider wants to be left alone.
//!
//! With Redis the counts hold for all processes that share it. Without it, and while it is away, each process counts
//! for itself: a limit then holds per process, and never is anybody let through without being counted.

mod local;

use std::num::NonZeroU32;
use std::time::Duration;

use async_trait::async_trait;

pub use local::LocalCounters;

/// No pause lasts longer, whatever a provider or somebody else's hand in Redis says. Whoever asks too early is told so.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// How often something may be done: `burst` times at once, and `count` times in each `per` in the long run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How often.
    pub count: NonZeroU32,
    /// In which time.
    pub per: Duration,
    /// How often at once.
    pub burst: NonZeroU32,
}

/// Whether it may be done now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It may, and is counted.
    Allowed {
        /// How often it may be done at once after this.
        left: u32,
    },
    /// It may not, and is not counted.
    Refused {
        /// After this time it may.
        retry_after: Duration,
    },
}

/// Counts that processes share as far as they can. Keys are for one purpose each, and hold no secrets: a caller's key
/// is hashed before it becomes one.
#[async_trait]
pub trait Counters: Send + Sync + 'static {
    /// Counts one under a key, if the limit allows it.
    async fn take(&self, key: &str, limit: Limit) -> Taken;

    /// Asks everybody to leave something alone for a time, at most [`LONGEST_PAUSE`]; a longer pause that holds
    /// already stays. Others learn of it within a second or two.
    async fn pause(&self, key: &str, lasting: Duration);

    /// How long something is to be left alone. Asks nobody: it is for paths that must not wait.
    fn paused(&self, key: &str) -> Option<Duration>;
}

impl Limit {
    /// Between two in the long run, in microseconds.
    pub(crate) fn interval_micros(self) -> u64 {
        let per = u64::try_from(self.per.as_micros()).unwrap_or(u64::MAX);
        // What a script in Redis can still count with exactly.
        (per / u64::from(self.count.get())).clamp(1, 1 << 40)
    }

    /// How far ahead of the long run one may be and still take another, in microseconds.
    pub(crate) fn tolerance_micros(self) -> u64 {
        (self.interval_micros() * u64::from(self.burst.get() - 1)).min(1 << 50)
    }
}
