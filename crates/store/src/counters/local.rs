//! Counts of this process alone.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::Instant;

use super::{Counters, LONGEST_PAUSE, Limit, Taken};

/// How many callers are told apart. When there are more, those that are new share one count: somebody who invents
/// callers takes from himself and fills no memory.
const MAX_KEYS: usize = 65_536;
/// The key that they share. No other is empty.
const OVERFLOW: &str = "";

/// Counts of this process alone. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct LocalCounters {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Until when each one has used up its share of the long run. What lies in the past says nothing any more.
    used_until: HashMap<String, Instant>,
    paused_until: HashMap<String, Instant>,
    swept_at: Option<Instant>,
}

impl LocalCounters {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What [`Counters::pause`] does.
    pub(crate) fn pause_now(&self, key: &str, lasting: Duration) {
        let (now, mut state) = (Instant::now(), self.lock());
        state.sweep(now);
        let until = now + lasting.min(LONGEST_PAUSE);
        if state.paused_until.len() < MAX_KEYS {
            let known = state.paused_until.entry(key.to_owned()).or_insert(until);
            *known = until.max(*known);
        }
    }
}

#[async_trait]
impl Counters for LocalCounters {
    async fn take(&self, key: &str, limit: Limit) -> Taken {
        let (now, mut state) = (Instant::now(), self.lock());
        state.sweep(now);
        let is_full = state.used_until.len() >= MAX_KEYS && !state.used_until.contains_key(key);
        let key = if is_full { OVERFLOW } else { key };
        let used_until = state
            .used_until
            .get(key)
            .map_or(now, |until| now.max(*until));
        let interval = Duration::from_micros(limit.interval_micros());
        let tolerance = Duration::from_micros(limit.tolerance_micros());
        let ahead = used_until - now;
        let Some(room) = tolerance.checked_sub(ahead) else {
            let retry_after = ahead - tolerance;
            return Taken::Refused { retry_after };
        };
        let until = used_until + interval;
        state.used_until.insert(key.to_owned(), until);
        let left = room.as_micros() / interval.as_micros();
        Taken::Allowed {
            left: u32::try_from(left).unwrap_or(u32::MAX),
        }
    }

    async fn pause(&self, key: &str, lasting: Duration) {
        self.pause_now(key, lasting);
    }

    fn paused(&self, key: &str) -> Option<Duration> {
        let left = self
            .lock()
            .paused_until
            .get(key)?
            .checked_duration_since(Instant::now())?;
        (!left.is_zero()).then_some(left)
    }
}

impl State {
    /// Forgets what is over, once a second at most.
    fn sweep(&mut self, now: Instant) {
        let is_due = self
            .swept_at
            .is_none_or(|at| now >= at + Duration::from_secs(1));
        if is_due {
            self.swept_at = Some(now);
            self.used_until.retain(|_, until| *until > now);
            self.paused_until.retain(|_, until| *until > now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn whoever_invents_callers_fills_no_memory_and_gets_no_more() {
        let counters = LocalCounters::default();
        let limit = Limit {
            count: NonZeroU32::MIN,
            per: Duration::from_secs(60),
            burst: NonZeroU32::MIN,
        };
        let mut allowed = 0;
        for n in 0..MAX_KEYS + 1000 {
            let taken = counters.take(&n.to_string(), limit).await;
            allowed += usize::from(matches!(taken, Taken::Allowed { .. }));
        }
        assert_eq!(allowed, MAX_KEYS + 1);
        assert_eq!(counters.lock().used_until.len(), MAX_KEYS + 1);
        tokio::time::advance(Duration::from_secs(61)).await;
        counters.take("x", limit).await;
        assert_eq!(counters.lock().used_until.len(), 1);
    }
}
