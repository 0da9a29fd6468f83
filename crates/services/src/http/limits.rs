//! How often a caller may ask: counted for each key, or else for each address, by all processes together.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue};
use store::counters::{Counters, Limit, Taken};

use super::access::Principal;
use super::peer::household;
use super::{ApiError, Code};

const MINUTE: Duration = Duration::from_secs(60);
/// How many requests with a key that is not valid an address may send in a minute, and how many of them at once.
const FAILURES: (u32, u32) = (10, 5);

/// How often callers may ask. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Limits(Option<Arc<Inner>>);

struct Inner {
    counters: Arc<dyn Counters>,
    /// `None`: as often as they like.
    each: Option<Limit>,
    failures: Limit,
}

/// How a caller stands after a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quota {
    per_minute: u32,
    left: u32,
    /// Until as many as ever may be sent at once.
    reset: Duration,
    /// It was one too many: after this it may be sent again.
    retry_after: Option<Duration>,
}

impl Limits {
    /// As often as they like.
    pub fn none() -> Self {
        Self::default()
    }

    /// As often as they like with a key that is valid, and so often in a minute without one: trying keys out is never
    /// worth while.
    pub fn of_failures(counters: Arc<dyn Counters>, per_minute: NonZeroU32) -> Self {
        let failures = Limit {
            count: per_minute,
            per: MINUTE,
            burst: per_minute,
        };
        Self(Some(Arc::new(Inner {
            counters,
            each: None,
            failures,
        })))
    }

    /// So many in a minute in the long run, so many of them at once.
    pub fn new(counters: Arc<dyn Counters>, per_minute: NonZeroU32, burst: NonZeroU32) -> Self {
        let limit = |count, burst| Limit {
            count,
            per: MINUTE,
            burst,
        };
        let least =
            |ours: u32, theirs: NonZeroU32| NonZeroU32::new(ours).map_or(theirs, |n| n.min(theirs));
        Self(Some(Arc::new(Inner {
            counters,
            each: Some(limit(per_minute, burst)),
            failures: limit(least(FAILURES.0, per_minute), least(FAILURES.1, burst)),
        })))
    }

    /// Counts a request; answers how its caller stands. Nobody is counted who can't be told from others.
    pub(crate) async fn take(&self, principal: &Principal, from: Option<IpAddr>) -> Option<Quota> {
        let inner = self.0.as_ref()?;
        let each = inner.each?;
        let account = match principal.account() {
            Some(key) => format!("rate:key:{key}"),
            None => format!("rate:address:{}", household(from?)),
        };
        let taken = inner.counters.take(&account, each).await;
        Some(Quota::of(each, taken))
    }

    /// Counts a request whose key is not valid.
    ///
    /// # Errors
    /// RATE_LIMIT_EXCEEDED: this address has sent too many of them. Whoever else is there with a key is not kept out.
    pub(crate) async fn failed(&self, from: Option<IpAddr>) -> Result<(), ApiError> {
        let (Some(inner), Some(from)) = (&self.0, from) else {
            return Ok(());
        };
        let account = format!("rate:failed:{}", household(from));
        match inner.counters.take(&account, inner.failures).await {
            Taken::Allowed { .. } => Ok(()),
            Taken::Refused { retry_after } => {
                let message = "too many requests with a key that is not valid came from this address; \
                               correct the key, and wait for the seconds in Retry-After";
                Err(ApiError::new(Code::RateLimitExceeded, message).retry_after(up(retry_after)))
            }
        }
    }
}

impl Quota {
    fn of(limit: Limit, taken: Taken) -> Self {
        let interval = limit.per / limit.count.get();
        let burst = limit.burst.get();
        let (left, retry_after) = match taken {
            Taken::Allowed { left } => (left.min(burst), None),
            Taken::Refused { retry_after } => (0, Some(up(retry_after))),
        };
        Self {
            per_minute: limit.count.get(),
            left,
            reset: up(interval * (burst - left)),
            retry_after,
        }
    }

    /// Refuses one too many.
    ///
    /// # Errors
    /// RATE_LIMIT_EXCEEDED.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        let Some(retry_after) = self.retry_after else {
            return Ok(());
        };
        let message = format!(
            "this is more than {} requests a minute; wait for the seconds in Retry-After",
            self.per_minute
        );
        Err(ApiError::new(Code::RateLimitExceeded, message).retry_after(retry_after))
    }

    /// Tells the caller.
    pub(crate) fn sign(&self, headers: &mut HeaderMap) {
        let fields = [
            ("x-ratelimit-limit", u64::from(self.per_minute)),
            ("x-ratelimit-remaining", u64::from(self.left)),
            ("x-ratelimit-reset", self.reset.as_secs()),
        ];
        for (name, value) in fields {
            headers.insert(HeaderName::from_static(name), HeaderValue::from(value));
        }
    }
}

/// Whole seconds, rounded up: who comes after them is let in.
fn up(time: Duration) -> Duration {
    let rest = u64::from(time.subsec_nanos() > 0);
    Duration::from_secs(time.as_secs() + rest)
}

#[cfg(test)]
mod tests {
    use store::counters::LocalCounters;

    use super::*;
    use crate::http::access::Identity;

    fn somebody() -> Principal {
        Principal {
            identity: Identity::Bootstrap,
            name: "bootstrap".to_owned(),
            grants: domain::access::Grants::all(),
        }
    }

    #[tokio::test]
    async fn a_burst_is_let_through_and_then_one_at_a_time() {
        let number = |n| NonZeroU32::new(n).unwrap();
        let limits = Limits::new(Arc::new(LocalCounters::default()), number(1), number(3));
        for left in [2, 1, 0] {
            let quota = limits.take(&somebody(), None).await.unwrap();
            assert!(quota.check().is_ok());
            let reset = u64::from(3 - left) * 60;
            assert_eq!((quota.left, quota.reset.as_secs()), (left, reset));
        }
        let refused = limits.take(&somebody(), None).await.unwrap();
        let delay = refused.check().unwrap_err().retry_after.unwrap();
        assert!((1..=60).contains(&delay.as_secs()), "{delay:?}");
    }

    #[tokio::test]
    async fn failures_are_counted_where_nothing_else_is() {
        let sixty = NonZeroU32::new(60).unwrap();
        let limits = Limits::of_failures(Arc::new(LocalCounters::default()), sixty);
        let here = "10.0.0.1".parse().ok();
        for _ in 0..60 {
            assert!(limits.failed(here).await.is_ok());
        }
        assert!(limits.failed(here).await.is_err());
        assert_eq!(limits.take(&somebody(), here).await, None);
    }

    #[tokio::test]
    async fn addresses_are_counted_apart_and_failures_more_harshly() {
        let number = |n| NonZeroU32::new(n).unwrap();
        let limits = Limits::new(Arc::new(LocalCounters::default()), number(6), number(100));
        let (here, there) = ("10.0.0.1".parse().ok(), "10.0.0.2".parse().ok());
        for _ in 0..5 {
            assert!(limits.failed(here).await.is_ok());
        }
        assert!(limits.failed(here).await.is_err());
        assert!(limits.failed(there).await.is_ok());
        let quota = limits.take(&somebody(), here).await.unwrap();
        assert!(quota.check().is_ok(), "a valid key from there goes on");
    }
}
