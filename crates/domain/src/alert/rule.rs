//! What a rule finds wrong in the signs of a moment.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{AgentName, Money, ScheduleName, Status, Time};

/// How bad it is.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Good to know.
    Info,
    /// Somebody should look.
    #[default]
    Warning,
    /// Somebody must look now.
    Critical,
}

impl Severity {
    /// The word for it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// A rule as it is meant.
#[derive(Debug, Clone, PartialEq)]
pub struct Rule {
    /// What it is called.
    pub name: String,
    /// What would be wrong.
    pub wrong: Wrong,
    /// Of which agent: of this one, of each by itself (`Some(None)`), or of all together.
    pub agent: Option<Option<AgentName>>,
    /// For how long it must be wrong.
    pub hold: Duration,
    /// How often it is told again.
    pub every: Option<Duration>,
    /// How bad it is.
    pub severity: Severity,
    /// Who is told.
    pub receivers: Vec<String>,
}

/// What can be wrong.
#[derive(Debug, Clone, PartialEq)]
pub enum Wrong {
    /// Too many executions failed.
    Failures {
        /// How many may.
        above: u64,
        /// In which time.
        within: Duration,
    },
    /// Too many wait.
    QueueDepth {
        /// How many may.
        above: u64,
    },
    /// One waits for too long.
    QueueAge {
        /// How long one may.
        older_than: Duration,
    },
    /// Too many events were given up.
    DeadLetters {
        /// How many may.
        above: u64,
    },
    /// Nobody performs an agent's tasks.
    AgentUnavailable,
    /// A fire time was missed.
    ScheduleMissed {
        /// In which time.
        within: Duration,
    },
    /// Too much was spent today.
    Cost {
        /// How much may be.
        above: Money,
    },
}

impl Wrong {
    /// How far back it looks, if it does.
    pub const fn window(&self) -> Option<Duration> {
        match self {
            Self::Failures { within, .. } | Self::ScheduleMissed { within } => Some(*within),
            Self::QueueDepth { .. }
            | Self::QueueAge { .. }
            | Self::DeadLetters { .. }
            | Self::AgentUnavailable
            | Self::Cost { .. } => None,
        }
    }
}

/// How many executions of an agent ended so.
pub type Ended = (AgentName, Status, u64);

/// What rules look at.
#[derive(Debug, Clone, Default)]
pub struct Signs {
    /// How executions ended, by window.
    pub ended: Vec<(Duration, Vec<Ended>)>,
    /// What waits to be begun: how much, and since when the oldest; by agent.
    pub queued: Vec<(AgentName, u64, Time)>,
    /// Events that were given up.
    pub dead_letters: u64,
    /// Agents that nobody performs, and why.
    pub unavailable: Vec<(AgentName, String)>,
    /// Schedules at which nobody looks although their time has come.
    pub overdue: Vec<(ScheduleName, Time)>,
    /// Fire times that were missed, by window.
    pub missed: Vec<(Duration, Vec<(ScheduleName, u64)>)>,
    /// What each agent has cost today.
    pub cost: Vec<(AgentName, Money)>,
}

/// Something that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// With what: the name of an agent or schedule; empty when it is about all.
    pub subject: String,
    /// In words.
    pub summary: String,
}

impl Rule {
    /// What it finds wrong now.
    pub fn find(&self, signs: &Signs, now: Time) -> Vec<Finding> {
        match &self.wrong {
            Wrong::Failures { above, within } => self.failures(signs, *above, *within),
            Wrong::QueueDepth { above } => {
                let numbers = signs.queued.iter().map(|(agent, n, _)| (agent, *n));
                self.counted(numbers, *above, |n| {
                    format!("{n} executions wait to be begun")
                })
            }
            Wrong::QueueAge { older_than } => self.ages(signs, *older_than, now),
            Wrong::DeadLetters { above } if signs.dead_letters > *above => {
                let n = signs.dead_letters;
                vec![Finding {
                    subject: String::new(),
                    summary: format!("{n} events were given up; see agentrunner dead-letters"),
                }]
            }
            Wrong::DeadLetters { .. } => Vec::new(),
            Wrong::AgentUnavailable => {
                let unavailable = signs.unavailable.iter();
                let wanted = unavailable.filter(|(agent, _)| self.is_about(agent));
                let found = wanted.map(|(agent, why)| Finding {
                    subject: agent.to_string(),
                    summary: why.clone(),
                });
                found.collect()
            }
            Wrong::ScheduleMissed { within } => missed(signs, *within, now),
            Wrong::Cost { above } => {
                let numbers = signs.cost.iter().map(|(agent, cost)| (agent, cost.nanos()));
                self.counted(numbers, above.nanos(), |nanos| {
                    format!(
                        "{:.2} dollars were spent today",
                        Money::from_nanos(nanos).usd()
                    )
                })
            }
        }
    }

    fn is_about(&self, agent: &AgentName) -> bool {
        match &self.agent {
            Some(Some(one)) => one == agent,
            Some(None) | None => true,
        }
    }

    /// Numbers of agents that are too large, by agent or in all.
    fn counted<'a>(
        &self,
        numbers: impl Iterator<Item = (&'a AgentName, u64)>,
        above: u64,
        words: impl Fn(u64) -> String,
    ) -> Vec<Finding> {
        let mut by_subject: Vec<(String, u64)> = Vec::new();
        for (agent, n) in numbers.filter(|(agent, _)| self.is_about(agent)) {
            let subject = match self.agent {
                Some(_) => agent.to_string(),
                None => String::new(),
            };
            match by_subject.iter_mut().find(|(known, _)| *known == subject) {
                Some((_, sum)) => *sum = sum.saturating_add(n),
                None => by_subject.push((subject, n)),
            }
        }
        let too_many = by_subject.into_iter().filter(|(_, n)| *n > above);
        let found = too_many.map(|(subject, n)| Finding {
            subject,
            summary: words(n),
        });
        found.collect()
    }

    fn failures(&self, signs: &Signs, above: u64, within: Duration) -> Vec<Finding> {
        let ended = signs.ended.iter().find(|(window, _)| *window == within);
        let failed = ended.into_iter().flat_map(|(_, ended)| ended);
        let failed =
            failed.filter(|(_, status, _)| matches!(status, Status::Failed | Status::Timeout));
        let numbers = failed.map(|(agent, _, n)| (agent, *n));
        self.counted(numbers, above, |n| {
            format!("{n} executions failed within {}", words(within))
        })
    }

    fn ages(&self, signs: &Signs, older_than: Duration, now: Time) -> Vec<Finding> {
        let mut oldest: Vec<(String, Time)> = Vec::new();
        for (agent, _, since) in signs.queued.iter().filter(|(a, ..)| self.is_about(a)) {
            let subject = match self.agent {
                Some(_) => agent.to_string(),
                None => String::new(),
            };
            match oldest.iter_mut().find(|(known, _)| *known == subject) {
                Some((_, first)) => *first = (*first).min(*since),
                None => oldest.push((subject, *since)),
            }
        }
        let waited = |since: Time| (now - since).to_std().unwrap_or_default();
        let too_old = oldest
            .into_iter()
            .filter(|(_, since)| waited(*since) > older_than);
        let found = too_old.map(|(subject, since)| Finding {
            subject,
            summary: format!(
                "an execution has waited to be begun for {}",
                words(waited(since))
            ),
        });
        found.collect()
    }
}

fn missed(signs: &Signs, within: Duration, now: Time) -> Vec<Finding> {
    let late = signs.overdue.iter().map(|(schedule, due)| {
        let late = (now - *due).to_std().unwrap_or_default();
        Finding {
            subject: schedule.to_string(),
            summary: format!(
                "its fire time is {} ago, and no scheduler looks",
                words(late)
            ),
        }
    });
    let mut found: Vec<Finding> = late.collect();
    let missed = signs.missed.iter().find(|(window, _)| *window == within);
    for (schedule, n) in missed.into_iter().flat_map(|(_, missed)| missed) {
        let subject = schedule.to_string();
        if found.iter().all(|known| known.subject != subject) {
            let summary = format!("{n} fire times were missed within {}", words(within));
            found.push(Finding { subject, summary });
        }
    }
    found
}

/// A time as a person says it.
fn words(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..=119 => format!("{seconds} s"),
        120..=7_199 => format!("{} min", seconds / 60),
        7_200..=172_799 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(wrong: Wrong, agent: Option<Option<&str>>) -> Rule {
        Rule {
            name: "r".to_owned(),
            wrong,
            agent: agent.map(|one| one.map(|name| name.parse().unwrap())),
            hold: Duration::ZERO,
            every: None,
            severity: Severity::Warning,
            receivers: Vec::new(),
        }
    }

    fn at(seconds: i64) -> Time {
        Time::from_timestamp(seconds, 0).unwrap()
    }

    fn subjects(found: &[Finding]) -> Vec<&str> {
        found.iter().map(|one| one.subject.as_str()).collect()
    }

    #[test]
    fn failures_count_for_one_for_each_or_for_all() {
        let within = Duration::from_secs(600);
        let name = |text: &str| text.parse().unwrap();
        let signs = Signs {
            ended: vec![
                (
                    Duration::from_secs(60),
                    vec![(name("a"), Status::Failed, 99)],
                ),
                (
                    within,
                    vec![
                        (name("a"), Status::Completed, 50),
                        (name("a"), Status::Failed, 2),
                        (name("a"), Status::Timeout, 1),
                        (name("b"), Status::Failed, 1),
                        (name("b"), Status::Cancelled, 9),
                    ],
                ),
            ],
            ..Signs::default()
        };
        let find =
            |above, agent| rule(Wrong::Failures { above, within }, agent).find(&signs, at(0));
        assert_eq!(subjects(&find(3, None)), [""]);
        assert!(find(4, None).is_empty(), "4 failed, and 4 may");
        assert_eq!(subjects(&find(2, Some(None))), ["a"]);
        assert_eq!(subjects(&find(0, Some(None))), ["a", "b"]);
        assert_eq!(subjects(&find(0, Some(Some("b")))), ["b"]);
        assert!(find(1, Some(Some("b"))).is_empty());
        assert_eq!(
            find(3, None)[0].summary,
            "4 executions failed within 10 min"
        );
    }

    #[test]
    fn what_waits_is_counted_and_aged() {
        let name = |text: &str| text.parse().unwrap();
        let signs = Signs {
            queued: vec![(name("a"), 3, at(100)), (name("b"), 4, at(50))],
            ..Signs::default()
        };
        let depth = |above, agent| rule(Wrong::QueueDepth { above }, agent).find(&signs, at(0));
        assert_eq!(subjects(&depth(6, None)), [""]);
        assert!(depth(7, None).is_empty());
        assert_eq!(subjects(&depth(3, Some(None))), ["b"]);
        let older_than = Duration::from_secs(60);
        let age = |now, agent| rule(Wrong::QueueAge { older_than }, agent).find(&signs, at(now));
        assert!(age(110, None).is_empty());
        assert_eq!(subjects(&age(111, None)), [""]);
        assert_eq!(subjects(&age(111, Some(None))), ["b"]);
    }

    #[test]
    fn a_schedule_is_missed_once_whatever_tells_of_it() {
        let within = Duration::from_secs(600);
        let name = |text: &str| text.parse().unwrap();
        let signs = Signs {
            overdue: vec![(name("nightly"), at(0))],
            missed: vec![(within, vec![(name("nightly"), 3), (name("hourly"), 1)])],
            ..Signs::default()
        };
        let found = rule(Wrong::ScheduleMissed { within }, None).find(&signs, at(300));
        assert_eq!(subjects(&found), ["nightly", "hourly"]);
        assert!(
            found[0].summary.contains("5 min ago"),
            "{}",
            found[0].summary
        );
    }

    #[test]
    fn money_is_compared_as_money() {
        let signs = Signs {
            cost: vec![
                ("a".parse().unwrap(), Money::from_usd(6.0)),
                ("b".parse().unwrap(), Money::from_usd(4.5)),
            ],
            ..Signs::default()
        };
        let above = Money::from_usd(10.0);
        let found = rule(Wrong::Cost { above }, None).find(&signs, at(0));
        assert_eq!(found[0].summary, "10.50 dollars were spent today");
        assert!(
            rule(Wrong::Cost { above }, Some(None))
                .find(&signs, at(0))
                .is_empty()
        );
    }
}
