//! What is sent out until it has arrived: the ends of executions to the addresses that their callers named, alerts to their
//! receivers.
//!
//! A delivery is tried at growing distances, for hours: a receiver that is being repaired gets everything afterwards. It is
//! the same message each time, under the same id, so that a receiver that has seen it knows. Source of the schedule and
//! of what an answer means: Standard Webhooks 1.0, <https://github.com/standard-webhooks/standard-webhooks>.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{AgentName, ExecutionId, Time};

/// The pauses after each failed try of a callback, in seconds: 5 s, 5 min, 30 min, 2, 5, 10, 14, 20 and 24 hours.
const CALLBACK_PAUSES: [u64; 9] = [5, 300, 1_800, 7_200, 18_000, 36_000, 50_400, 72_000, 86_400];
/// The same of an alert, which is worth little when it is late.
const ALERT_PAUSES: [u64; 6] = [5, 30, 120, 600, 1_800, 3_600];
/// Nobody is made to wait longer by an answer.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);
/// How much of a receiver's refusal is kept, in characters.
const MAX_DETAIL: usize = 300;

/// Identifies a delivery; of an execution's end it is the execution's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct DeliveryId(Uuid);

impl DeliveryId {
    /// Wraps a UUID that the caller made or read.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The UUID inside.
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl From<ExecutionId> for DeliveryId {
    fn from(id: ExecutionId) -> Self {
        Self(id.as_uuid())
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for DeliveryId {
    type Err = uuid::Error;
    fn from_str(s: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(s).map(Self)
    }
}

/// How a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeliveryState {
    /// It has not arrived yet.
    Pending,
    /// Its receiver took it.
    Delivered,
    /// It was given up.
    Failed,
}

impl DeliveryState {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Pending, Self::Delivered, Self::Failed];

    /// The word in API, tables and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
        }
    }
}

impl FromStr for DeliveryState {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|state| state.as_str() == s)
            .ok_or_else(|| {
                let words = Self::ALL.map(Self::as_str).join(", ");
                format!("{s:?} is not the state of a delivery; it is one of {words}")
            })
    }
}

/// What is delivered.
#[derive(Debug, Clone, PartialEq)]
pub enum Matter {
    /// That an execution has ended, to the address that came with its task.
    Result {
        /// Which.
        execution: ExecutionId,
        /// Whose.
        agent: AgentName,
    },
    /// An alert.
    Alert {
        /// To whom, as `alerts.yml` calls them.
        receiver: String,
        /// What they are told, as JSON.
        message: String,
    },
}

impl Matter {
    const fn pauses(&self) -> &'static [u64] {
        match self {
            Self::Result { .. } => &CALLBACK_PAUSES,
            Self::Alert { .. } => &ALERT_PAUSES,
        }
    }
}

/// A delivery as it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Delivery {
    /// Which.
    pub id: DeliveryId,
    /// What is delivered.
    pub matter: Matter,
    /// What has happened, such as `execution.completed`.
    pub event: String,
    /// How it stands.
    pub state: DeliveryState,
    /// How often it was tried since it was made or sent again.
    pub attempts: u32,
    /// Since when it is to be delivered.
    pub created_at: Time,
    /// When it is tried next; `None` when it is not tried any more.
    pub next_at: Option<Time>,
    /// When it arrived or was given up.
    pub settled_at: Option<Time>,
    /// What came of the latest try.
    pub last: Option<Attempt>,
}

/// A try, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attempt {
    /// When it was over.
    pub at: Time,
    /// The status that was answered, if anything was.
    pub status: Option<u16>,
    /// In words; empty when it arrived.
    pub detail: String,
}

impl Attempt {
    /// A try with no more words than are kept.
    pub fn new(at: Time, status: Option<u16>, detail: &str) -> Self {
        let printable = |c: char| if c.is_control() { ' ' } else { c };
        Self {
            at,
            status,
            detail: detail.chars().take(MAX_DETAIL).map(printable).collect(),
        }
    }
}

/// What a receiver said to a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// A status of HTTP, and how long we are to wait.
    Status(u16, Option<Duration>),
    /// Nothing: it could not be reached, or did not answer in time.
    Nothing,
    /// It took it, otherwise than by HTTP.
    Taken,
    /// It will never take it.
    Refused,
}

/// What follows from a try.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It arrived.
    Delivered,
    /// It is tried again after this pause.
    Again(Duration),
    /// It is not tried any more.
    GiveUp,
}

/// Whether there are more tries behind it than it has: its senders died of it.
pub fn is_worn_out(matter: &Matter, attempt: u32) -> bool {
    usize::try_from(attempt).is_ok_and(|attempt| attempt > matter.pauses().len() + 1)
}

/// What follows from try number `attempt` (from 1). `jitter` (0 to 1) adds up to a tenth to the pause, so that what failed
/// together does not come back together.
pub fn verdict(matter: &Matter, attempt: u32, reply: Reply, jitter: f64) -> Verdict {
    let asked = match reply {
        Reply::Taken | Reply::Status(200..=299, _) => return Verdict::Delivered,
        // Gone: whoever listened there wants nothing more.
        Reply::Refused | Reply::Status(410, _) => return Verdict::GiveUp,
        Reply::Status(_, asked) => asked,
        Reply::Nothing => None,
    };
    let index = usize::try_from(attempt.saturating_sub(1)).unwrap_or(usize::MAX);
    let Some(pause) = matter.pauses().get(index) else {
        return Verdict::GiveUp;
    };
    let pause = Duration::from_secs(*pause).mul_f64(1.0 + 0.1 * jitter.clamp(0.0, 1.0));
    let asked = asked.unwrap_or_default().min(LONGEST_WAIT);
    Verdict::Again(pause.max(asked))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn result() -> Matter {
        Matter::Result {
            execution: ExecutionId::from_uuid(Uuid::from_u128(1)),
            agent: "helper".parse().unwrap(),
        }
    }

    fn alert() -> Matter {
        Matter::Alert {
            receiver: "ops".to_owned(),
            message: "{}".to_owned(),
        }
    }

    #[test]
    fn only_success_is_success() {
        let verdict = |status| verdict(&result(), 1, Reply::Status(status, None), 0.0);
        for status in [200, 201, 202, 204, 299] {
            assert_eq!(verdict(status), Verdict::Delivered, "{status}");
        }
        for status in [
            100, 300, 301, 302, 304, 307, 308, 400, 401, 404, 408, 422, 429, 500, 503,
        ] {
            let again = Verdict::Again(Duration::from_secs(5));
            assert_eq!(verdict(status), again, "{status}");
        }
        assert_eq!(verdict(410), Verdict::GiveUp);
    }

    #[test]
    fn pauses_grow_for_days_and_end() {
        let mut total = Duration::ZERO;
        let mut last = Duration::ZERO;
        for attempt in 1..=9 {
            let Verdict::Again(pause) = verdict(&result(), attempt, Reply::Nothing, 0.0) else {
                panic!("given up after {attempt}");
            };
            assert!(pause > last);
            (total, last) = (total + pause, pause);
        }
        assert!(total > Duration::from_secs(3 * 24 * 3600));
        let end = verdict(&result(), 10, Reply::Nothing, 0.0);
        assert_eq!(end, Verdict::GiveUp);
        assert_eq!(verdict(&alert(), 7, Reply::Nothing, 0.0), Verdict::GiveUp);
    }

    #[test]
    fn one_that_takes_its_senders_down_is_not_tried_for_ever() {
        for (matter, tries) in [(result(), 10), (alert(), 7)] {
            assert!(!is_worn_out(&matter, tries));
            assert!(is_worn_out(&matter, tries + 1));
            assert_eq!(
                verdict(&matter, tries, Reply::Nothing, 0.0),
                Verdict::GiveUp
            );
        }
    }

    #[test]
    fn a_receiver_may_ask_for_more_time_and_not_for_more_than_a_day() {
        let after = |seconds| {
            let asked = Some(Duration::from_secs(seconds));
            verdict(&result(), 1, Reply::Status(503, asked), 0.0)
        };
        assert_eq!(after(1), Verdict::Again(Duration::from_secs(5)));
        assert_eq!(after(60), Verdict::Again(Duration::from_secs(60)));
        assert_eq!(after(1 << 40), Verdict::Again(LONGEST_WAIT));
    }

    #[test]
    fn what_a_receiver_says_is_cut_and_printable() {
        let at = Time::from_timestamp(0, 0).unwrap();
        let attempt = Attempt::new(at, Some(500), &"\u{1b}[31mé\r\n".repeat(200));
        assert_eq!(attempt.detail.chars().count(), MAX_DETAIL);
        assert!(!attempt.detail.chars().any(char::is_control));
    }

    proptest! {
        #[test]
        fn no_try_waits_longer_than_a_day_and_a_tenth(
            attempt in any::<u32>(), status in any::<u16>(), asked in any::<Option<u64>>(), jitter in any::<f64>(),
        ) {
            let reply = Reply::Status(status, asked.map(Duration::from_secs));
            let jitter = if jitter.is_nan() { 0.5 } else { jitter };
            for matter in [result(), alert()] {
                if let Verdict::Again(pause) = verdict(&matter, attempt, reply, jitter) {
                    prop_assert!(pause >= Duration::from_secs(5));
                    prop_assert!(pause <= LONGEST_WAIT.mul_f64(1.1));
                }
            }
        }
    }
}
