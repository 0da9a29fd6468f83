//! When an agent works by itself: what a schedule says, when it is due, and what to do about a due time.
//!
//! Everything here is computed from what it is handed, so every scheduler of every process comes to the same answer:
//! - [`Trigger`] says which *fire times* there are, from [`Cron`] and [`Zone`], an interval, or one moment.
//! - [`Schedule::due_at`] adds the jitter, which follows from the schedule's name and the fire time.
//! - [`plan()`] looks at what was handled, what time it is and what still runs, and says what becomes of each fire time.

mod cron;
mod plan;
mod trigger;
mod zone;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

pub use cron::Cron;
pub use plan::{Act, GRACE, MAX_LISTED, MAX_WAITING, Plan, Planned, SkipReason, Standing, plan};
pub use trigger::{Flaw, Trigger};
pub use zone::Zone;

use crate::definition::{MisfirePolicy, OverlapPolicy, ScheduleConfig};
use crate::id::{AgentName, EventId, ScheduleName};
use crate::{Time, TimeDelta};

/// A schedule: who does what, when, and what happens when that can't be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Schedule {
    /// Its name. One in an agent's file has the agent's.
    pub name: ScheduleName,
    /// Who works.
    pub agent: AgentName,
    /// When.
    pub trigger: Trigger,
    /// What the agent is given.
    pub task_data: Value,
    /// How long a run may take, in seconds. The agent's own limit holds besides.
    pub timeout_seconds: u64,
    /// Whether it is meant to run.
    pub enabled: bool,
    /// About due times that passed while nothing ran.
    pub misfire_policy: MisfirePolicy,
    /// About due times at which the run before has not ended.
    pub overlap_policy: OverlapPolicy,
    /// Starts are spread by up to this many seconds.
    pub jitter_seconds: u64,
}

impl Schedule {
    /// The schedule that a configuration describes. `anchor` is where its intervals are counted from.
    ///
    /// # Errors
    /// Everything that is wrong with the configuration.
    pub fn from_config(
        name: ScheduleName,
        agent: AgentName,
        config: &ScheduleConfig,
        anchor: Time,
    ) -> Result<Self, Vec<Flaw>> {
        Ok(Self {
            name,
            agent,
            trigger: Trigger::from_config(config, anchor)?,
            task_data: config.task_data.clone(),
            timeout_seconds: config.timeout_seconds,
            enabled: config.enabled,
            misfire_policy: config.misfire_policy,
            overlap_policy: config.overlap_policy,
            jitter_seconds: config.jitter_seconds,
        })
    }

    /// The first fire time after a moment.
    pub fn next_after(&self, after: Time) -> Option<Time> {
        self.trigger.next_after(after)
    }

    /// The fire times after a moment, in order; without end, for most.
    pub fn fire_times(&self, after: Time) -> impl Iterator<Item = Time> + '_ {
        std::iter::successors(self.next_after(after), |last| self.next_after(*last))
    }

    /// When the run of a fire time is to start: spread by the jitter, and always before the fire time that follows, so
    /// that fire times come due in their order.
    pub fn due_at(&self, fire_time: Time) -> Time {
        let Ok(longest @ 1..) = i64::try_from(self.jitter_seconds) else {
            return fire_time;
        };
        let longest = longest.saturating_mul(1000);
        let room = match self.next_after(fire_time) {
            Some(next) => (next - fire_time).num_milliseconds().min(longest),
            None => longest,
        };
        let Some(room @ 1..) = u64::try_from(room).ok() else {
            return fire_time;
        };
        let hash = Sha256::new()
            .chain_update(self.name.as_str())
            .chain_update(fire_time.timestamp_micros().to_be_bytes())
            .finalize();
        let hash = hash
            .iter()
            .take(8)
            .fold(0u64, |all, byte| (all << 8) | u64::from(*byte));
        let offset = i64::try_from(hash % room).unwrap_or_default();
        fire_time
            .checked_add_signed(TimeDelta::milliseconds(offset))
            .unwrap_or(fire_time)
    }

    /// When it is next to be looked at, all fire times up to `cursor` being done with.
    pub fn next_due(&self, cursor: Time) -> Option<Time> {
        self.next_after(cursor).map(|next| self.due_at(next))
    }

    /// The id of the event that a fire time is: it starts one execution, whoever acts on it.
    pub fn event_id(&self, fire_time: Time) -> Option<EventId> {
        let micros = fire_time.timestamp_micros();
        format!("schedule-{}-{micros}", self.name).parse().ok()
    }
}

#[cfg(test)]
mod tests;
