//! When a failed model call is tried again: only when it can help, later each time, never past the deadline.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The `retry_config` of an agent.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct RetryConfig {
    /// How often a failed call is repeated, 0 to 20.
    pub max_retries: u32,
    /// The pause before the first repetition, in seconds.
    pub retry_delay_seconds: f64,
    /// Whether each pause is longer than the one before.
    pub exponential_backoff: bool,
    /// By which factor.
    pub backoff_multiplier: f64,
    /// The longest pause, in seconds.
    pub max_retry_delay: f64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_retries: 2,
            retry_delay_seconds: 1.0,
            exponential_backoff: true,
            backoff_multiplier: 2.0,
            max_retry_delay: 60.0,
        }
    }
}

/// What went wrong with a model call, as far as it matters for what is done next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ModelErrorClass {
    /// The provider wants fewer requests.
    RateLimited,
    /// The provider can't be reached, is overloaded, or broke off.
    Unavailable,
    /// The answer was cut off or is not what the provider's format allows.
    Garbled,
    /// The answer did not come in time.
    TimedOut,
    /// The request itself is refused: parameters or model name.
    InvalidRequest,
    /// The key is missing, wrong or not allowed to.
    Auth,
    /// The provider declines the content.
    Refused,
    /// The conversation is longer than the model can read.
    ContextTooLong,
}

impl ModelErrorClass {
    /// The word in journals and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RateLimited => "rate_limited",
            Self::Unavailable => "unavailable",
            Self::Garbled => "garbled",
            Self::TimedOut => "timed_out",
            Self::InvalidRequest => "invalid_request",
            Self::Auth => "auth",
            Self::Refused => "refused",
            Self::ContextTooLong => "context_too_long",
        }
    }

    /// Whether the same request may succeed when repeated.
    pub const fn is_retryable(self) -> bool {
        matches!(
            self,
            Self::RateLimited | Self::Unavailable | Self::Garbled | Self::TimedOut
        )
    }
}

impl RetryConfig {
    /// The pause before repetition number `attempt` (from 1), with `jitter` (0 to 1) taking away up to a half so
    /// that many do not come back at once, and never less than what the provider asked for.
    pub fn delay(&self, attempt: u32, jitter: f64, retry_after: Option<Duration>) -> Duration {
        let exponent = i32::try_from(attempt.saturating_sub(1))
            .unwrap_or(i32::MAX)
            .min(64);
        let factor = if self.exponential_backoff {
            self.backoff_multiplier.max(1.0).powi(exponent)
        } else {
            1.0
        };
        let longest = self.max_retry_delay.clamp(0.0, 86_400.0);
        let full = (self.retry_delay_seconds.max(0.0) * factor).min(longest);
        let pause = full * (1.0 - 0.5 * jitter.clamp(0.0, 1.0));
        let own = Duration::try_from_secs_f64(pause).unwrap_or_default();
        own.max(retry_after.unwrap_or_default())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn pauses_grow_and_honour_the_provider() {
        let config = RetryConfig::default();
        assert_eq!(config.delay(1, 0.0, None), Duration::from_secs(1));
        assert_eq!(config.delay(3, 0.0, None), Duration::from_secs(4));
        assert_eq!(config.delay(30, 0.0, None), Duration::from_secs(60));
        assert_eq!(
            config.delay(1, 0.0, Some(Duration::from_secs(7))),
            Duration::from_secs(7)
        );
    }

    proptest! {
        #[test]
        fn never_panics_and_is_bounded(
            attempt in any::<u32>(), jitter in any::<f64>(),
            base in any::<f64>(), multiplier in any::<f64>(), longest in any::<f64>(),
        ) {
            let config = RetryConfig {
                retry_delay_seconds: base, backoff_multiplier: multiplier, max_retry_delay: longest,
                ..RetryConfig::default()
            };
            if !base.is_nan() && !multiplier.is_nan() && !longest.is_nan() && !jitter.is_nan() {
                prop_assert!(config.delay(attempt, jitter, None) <= Duration::from_secs(86_400));
            }
        }
    }
}
