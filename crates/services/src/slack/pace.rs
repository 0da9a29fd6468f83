//! How fast Slack may be asked: each method has a tier, and posting has a limit for each channel.
//!
//! <https://docs.slack.dev/apis/web-api/rate-limits>

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// How many channels are remembered before those that have been quiet are forgotten.
const MANY: usize = 4096;

/// A method of the Web API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Method {
    AuthTest,
    Post,
    PostEphemeral,
    Update,
    Delete,
    Replies,
    History,
    OpenConnection,
}

impl Method {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::AuthTest => "auth.test",
            Self::Post => "chat.postMessage",
            Self::PostEphemeral => "chat.postEphemeral",
            Self::Update => "chat.update",
            Self::Delete => "chat.delete",
            Self::Replies => "conversations.replies",
            Self::History => "conversations.history",
            Self::OpenConnection => "apps.connections.open",
        }
    }

    /// How long a call uses the workspace's allowance up, and how many may come at once.
    const fn workspace(self) -> (Duration, u32) {
        match self {
            // "Hundreds of requests per minute" for the workspace; a channel has its own limit.
            Self::Post => (Duration::from_millis(200), 20),
            // Tier 3: 50 and more a minute.
            Self::Update | Self::Delete | Self::Replies | Self::History => {
                (Duration::from_millis(1200), 20)
            }
            // Tier 4: 100 and more.
            Self::PostEphemeral => (Duration::from_millis(600), 20),
            Self::AuthTest => (Duration::from_millis(200), 20),
            // Tier 1: one and more.
            Self::OpenConnection => (Duration::from_secs(5), 4),
        }
    }

    /// The same of one channel.
    const fn channel(self) -> Option<(Duration, u32)> {
        match self {
            // One a second, and short bursts.
            Self::Post => Some((Duration::from_secs(1), 4)),
            Self::Update => Some((Duration::from_secs(1), 3)),
            _ => None,
        }
    }
}

/// When the next call may be made.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// When each allowance would be whole again.
    whole: HashMap<(Method, Option<String>), Instant>,
    /// Until when Slack has told us to wait.
    told: HashMap<Method, Instant>,
}

impl Pace {
    /// Takes a place for a call: it may be made at the time that is answered, not before.
    pub(super) fn take(&mut self, method: Method, channel: Option<&str>, now: Instant) -> Instant {
        let mut at = self.told.get(&method).map_or(now, |until| now.max(*until));
        at = self.spend((method, None), method.workspace(), at);
        if let (Some(limit), Some(channel)) = (method.channel(), channel) {
            at = self.spend((method, Some(channel.to_owned())), limit, at);
        }
        if self.whole.len() > MANY {
            self.whole.retain(|_, whole| *whole > now);
        }
        at
    }

    /// Slack says to wait before the method is called again.
    pub(super) fn told(&mut self, method: Method, delay: Duration, now: Instant) {
        let until = now + delay;
        let known = self.told.entry(method).or_insert(until);
        *known = until.max(*known);
    }

    /// An allowance of `burst` calls that grows by one each `each`.
    fn spend(
        &mut self,
        key: (Method, Option<String>),
        (each, burst): (Duration, u32),
        at: Instant,
    ) -> Instant {
        let whole = self.whole.entry(key).or_insert(at);
        let next = at.max(*whole) + each;
        *whole = next;
        let earliest = next.checked_sub(each * burst).unwrap_or(at);
        at.max(earliest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_channel_has_a_burst_and_then_one_a_second() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let mut post =
            |channel: &str| (pace.take(Method::Post, Some(channel), now) - now).as_secs();
        let waits: Vec<u64> = (0..7).map(|_| post("C1")).collect();
        assert_eq!(waits, [0, 0, 0, 0, 1, 2, 3]);
        assert_eq!(post("C2"), 0, "another channel does not wait");
    }

    #[tokio::test(start_paused = true)]
    async fn the_workspace_has_a_limit_over_all_channels() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        let waits: Vec<Duration> = (0..23)
            .map(|n| pace.take(Method::Update, Some(&format!("C{n}")), now) - now)
            .collect();
        assert!(waits[..20].iter().all(Duration::is_zero), "{waits:?}");
        assert_eq!(waits[20], Duration::from_millis(1200));
        assert_eq!(waits[22], Duration::from_millis(3600));
    }

    #[tokio::test(start_paused = true)]
    async fn what_slack_says_is_stronger_and_is_of_one_method() {
        let (mut pace, now) = (Pace::default(), Instant::now());
        pace.told(Method::Update, Duration::from_secs(30), now);
        pace.told(Method::Update, Duration::from_secs(2), now);
        assert_eq!(
            pace.take(Method::Update, None, now) - now,
            Duration::from_secs(30)
        );
        assert_eq!(pace.take(Method::Post, None, now), now);
        let later = now + Duration::from_secs(60);
        assert_eq!(pace.take(Method::Update, None, later), later);
    }
}
