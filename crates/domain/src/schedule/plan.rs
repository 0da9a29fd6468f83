//! What becomes of each fire time: the decision that every scheduler comes to alone.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Schedule;
use crate::definition::{MisfirePolicy, OverlapPolicy};
use crate::id::ExecutionId;
use crate::{Time, TimeDelta};

/// How late the latest fire time may be and still be on time.
pub const GRACE: TimeDelta = TimeDelta::seconds(60);
/// How many missed fire times are listed one by one; earlier ones are summed up.
pub const MAX_LISTED: usize = 1000;
/// How many runs may wait for the one before.
pub const MAX_WAITING: usize = 100;
/// How many fire times are looked through one by one, before the latest ones alone are.
const MAX_SCANNED: usize = 10_000;
/// How far back the latest ones are then looked for.
const LATEST: TimeDelta = TimeDelta::minutes(15);

/// How a schedule stands.
#[derive(Debug, Clone, Copy)]
pub struct Standing<'a> {
    /// Up to which fire time everything is done with.
    pub cursor: Time,
    /// The time.
    pub now: Time,
    /// Executions of earlier runs that have not ended.
    pub running: &'a [ExecutionId],
    /// Fire times whose runs wait for the one before, in order.
    pub waiting: &'a [Time],
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// Up to which fire time everything is done with then.
    pub cursor: Time,
    /// When to look again.
    pub next_due: Option<Time>,
    /// What becomes of the fire times in between.
    pub planned: Vec<Planned>,
    /// The waiting run that begins now.
    pub begin: Option<Time>,
    /// Executions whose end is to be asked for first.
    pub cancel: Vec<ExecutionId>,
}

/// A fire time and what becomes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Planned {
    /// Which.
    pub fire_time: Time,
    /// What.
    pub act: Act,
}

/// What becomes of a fire time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Its run starts.
    Start,
    /// Its run waits for the one before.
    Wait,
    /// It is left out.
    Skip(SkipReason),
}

/// Why a fire time is left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum SkipReason {
    /// It passed while nothing ran, and the misfire policy is to skip it.
    Misfire {
        /// How late it was noticed.
        late_seconds: i64,
    },
    /// It passed while nothing ran; one run stands for all.
    Coalesced {
        /// The fire time of that run.
        into: Time,
    },
    /// So many passed that only the latest are listed one by one.
    Summed {
        /// How many this row stands for, at least.
        count: u64,
        /// The last of them.
        until: Time,
    },
    /// The run before had not ended.
    Overlap,
    /// Too many runs were waiting.
    QueueFull,
    /// The agent could not be given the run.
    Agent {
        /// Why not.
        why: String,
    },
}

impl SkipReason {
    /// The word for it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Misfire { .. } => "misfire",
            Self::Coalesced { .. } => "coalesced",
            Self::Summed { .. } => "misfires",
            Self::Overlap => "overlap",
            Self::QueueFull => "queue_full",
            Self::Agent { .. } => "agent",
        }
    }

    /// In a sentence.
    pub fn sentence(&self) -> String {
        match self {
            Self::Misfire { late_seconds } => {
                format!("it was noticed {late_seconds} s late, and misfire_policy is skip")
            }
            Self::Coalesced { into } => {
                format!(
                    "it was missed; the run of {} stands for it",
                    into.format("%Y-%m-%dT%H:%M:%SZ")
                )
            }
            Self::Summed { count, until } => {
                format!(
                    "at least {count} fire times up to {} were missed; the last {MAX_LISTED} are listed",
                    until.format("%Y-%m-%dT%H:%M:%SZ")
                )
            }
            Self::Overlap => "the run before had not ended, and overlap_policy is skip".to_owned(),
            Self::QueueFull => format!("{MAX_WAITING} runs were waiting already"),
            Self::Agent { why } => why.clone(),
        }
    }
}

/// Decides about every fire time that has come due.
///
/// The latest one is on time unless it is noticed more than [`GRACE`] late; all others were missed, and the misfire
/// policy says what becomes of them. Runs that make up for missed ones go one after another, whatever the overlap
/// policy says about runs that are on time.
pub fn plan(schedule: &Schedule, standing: Standing<'_>) -> Plan {
    let due = Due::collect(schedule, standing.cursor, standing.now);
    let mut plan = Plan {
        cursor: due.cursor(standing.cursor),
        next_due: None,
        planned: Vec::with_capacity(due.times.len()),
        begin: None,
        cancel: Vec::new(),
    };
    plan.next_due = schedule.next_due(plan.cursor);
    let mut line = Line::new(schedule.overlap_policy, standing);
    plan.begin = line.begin();
    if let Some((first, count, until)) = due.summed {
        plan.planned.push(Planned {
            fire_time: first,
            act: Act::Skip(SkipReason::Summed { count, until }),
        });
    }
    let last = due.times.len().saturating_sub(1);
    for (index, fire_time) in due.times.iter().copied().enumerate() {
        let late = standing.now - schedule.due_at(fire_time);
        let is_on_time = index == last && late <= GRACE;
        let act = match schedule.misfire_policy {
            _ if is_on_time => line.on_time(standing.running, &mut plan.cancel),
            MisfirePolicy::Skip => Act::Skip(SkipReason::Misfire {
                late_seconds: late.num_seconds(),
            }),
            MisfirePolicy::Once if index == last => line.make_up(),
            MisfirePolicy::Once => Act::Skip(SkipReason::Coalesced {
                into: due.times.back().copied().unwrap_or(fire_time),
            }),
            MisfirePolicy::All => line.make_up(),
        };
        plan.planned.push(Planned { fire_time, act });
    }
    plan
}

/// The fire times that have come due.
struct Due {
    times: VecDeque<Time>,
    /// The first of those before, their number and the last.
    summed: Option<(Time, u64, Time)>,
}

impl Due {
    fn collect(schedule: &Schedule, cursor: Time, now: Time) -> Self {
        let mut due = Self {
            times: VecDeque::new(),
            summed: None,
        };
        let mut last = cursor;
        for _ in 0..MAX_SCANNED {
            match due.next(schedule, last, now) {
                Some(next) => last = next,
                None => return due,
            }
        }
        // There are too many to look through: those of the last minutes, and the rest in one row.
        let recent = now.checked_sub_signed(LATEST).unwrap_or(now).max(last);
        if recent > last {
            due.sum_up_all();
            last = recent;
        }
        while let Some(next) = due.next(schedule, last, now) {
            last = next;
        }
        due
    }

    /// Takes the next one in, if it is due.
    fn next(&mut self, schedule: &Schedule, last: Time, now: Time) -> Option<Time> {
        let next = schedule.next_after(last)?;
        // The due time is never before the fire time, and costs more to compute.
        if next > now || schedule.due_at(next) > now {
            return None;
        }
        self.times.push_back(next);
        if self.times.len() > MAX_LISTED
            && let Some(first) = self.times.pop_front()
        {
            self.sum_up(first);
        }
        Some(next)
    }

    fn sum_up(&mut self, time: Time) {
        let (first, count, _) = self.summed.unwrap_or((time, 0, time));
        self.summed = Some((first, count + 1, time));
    }

    fn sum_up_all(&mut self) {
        while let Some(first) = self.times.pop_front() {
            self.sum_up(first);
        }
    }

    fn cursor(&self, before: Time) -> Time {
        self.times.back().copied().unwrap_or(before)
    }
}

/// Who is before the next run.
struct Line {
    policy: OverlapPolicy,
    is_busy: bool,
    waiting: usize,
    first_waiting: Option<Time>,
}

impl Line {
    fn new(policy: OverlapPolicy, standing: Standing<'_>) -> Self {
        Self {
            policy,
            is_busy: !standing.running.is_empty(),
            waiting: standing.waiting.len(),
            first_waiting: standing.waiting.first().copied(),
        }
    }

    /// The first that waits begins when nothing runs.
    fn begin(&mut self) -> Option<Time> {
        let first = self.first_waiting.filter(|_| !self.is_busy)?;
        self.is_busy = true;
        self.waiting -= 1;
        Some(first)
    }

    fn on_time(&mut self, running: &[ExecutionId], cancel: &mut Vec<ExecutionId>) -> Act {
        match self.policy {
            _ if !self.is_busy && self.waiting == 0 => self.start(),
            OverlapPolicy::Skip => Act::Skip(SkipReason::Overlap),
            OverlapPolicy::Queue if self.waiting >= MAX_WAITING => Act::Skip(SkipReason::QueueFull),
            OverlapPolicy::Queue => self.wait(),
            OverlapPolicy::Cancel => {
                cancel.extend_from_slice(running);
                self.start()
            }
        }
    }

    fn make_up(&mut self) -> Act {
        if self.is_busy || self.waiting > 0 {
            self.wait()
        } else {
            self.start()
        }
    }

    const fn start(&mut self) -> Act {
        self.is_busy = true;
        Act::Start
    }

    const fn wait(&mut self) -> Act {
        self.waiting += 1;
        Act::Wait
    }
}
