//! Who performs executions: workers, the pools that they belong to, who of them is alive, and how an agent stands
//! because of it.
//!
//! A worker says by itself that it lives, so nobody knows that it is dead: only that it has been silent for too long.
//! [`HealthInterval`] holds that rule, [`standing`] and [`pools`] what follows from it.

mod pools;
mod standing;
mod switch;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use crate::{AgentName, ExecutionMode, Time, WorkerId};

pub use pools::{AgentLoad, PoolStats, WorkerStats, pools};
pub use standing::{AgentStatus, Circumstances, standing};
pub use switch::{Switch, SwitchedOff};

/// A kind of worker: which modes of execution it performs. Its name is that of the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Pool {
    /// All modes: a process that serves everything.
    Everything,
    /// Autonomous and scheduled executions.
    Autonomous,
    /// Collaborative executions.
    Collaborative,
    /// Continuous executions.
    Continuous,
}

impl Pool {
    /// The pools that share the modes between them, so that each mode has one.
    pub const PARTS: [Self; 3] = [Self::Autonomous, Self::Collaborative, Self::Continuous];

    /// The name on the command line, in compose and in tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Everything => "up",
            Self::Autonomous => "autonomous-agent-pool",
            Self::Collaborative => "collaborative-agent-pool",
            Self::Continuous => "continuous-agent-runner",
        }
    }

    /// What its workers perform.
    pub const fn modes(self) -> &'static [ExecutionMode] {
        match self {
            Self::Everything => &[
                ExecutionMode::Autonomous,
                ExecutionMode::Collaborative,
                ExecutionMode::Continuous,
                ExecutionMode::Scheduled,
            ],
            Self::Autonomous => &[ExecutionMode::Autonomous, ExecutionMode::Scheduled],
            Self::Collaborative => &[ExecutionMode::Collaborative],
            Self::Continuous => &[ExecutionMode::Continuous],
        }
    }

    /// The part that performs a mode.
    pub const fn of(mode: ExecutionMode) -> Self {
        match mode {
            ExecutionMode::Autonomous | ExecutionMode::Scheduled => Self::Autonomous,
            ExecutionMode::Collaborative => Self::Collaborative,
            ExecutionMode::Continuous => Self::Continuous,
        }
    }
}

impl fmt::Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Pool {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let all = [Self::Everything].into_iter().chain(Self::PARTS);
        all.into_iter()
            .find(|pool| pool.as_str() == s)
            .ok_or_else(|| format!("{s:?} is no pool of this version"))
    }
}

/// A worker as it last said of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Worker {
    /// Who.
    pub id: WorkerId,
    /// What kind of worker.
    pub pool: Pool,
    /// The name of its machine or container.
    pub host: String,
    /// Its process id there.
    pub process: u32,
    /// The version of its program.
    pub version: String,
    /// How many executions it can perform at once.
    pub capacity: u32,
    /// How many it performs.
    pub active: u32,
    /// How many it has brought to their end since it started.
    pub finished: u64,
    /// How many of these in the last minute or so, per minute.
    pub finished_per_minute: f64,
    /// The agents whose executions it performs.
    pub agents: BTreeSet<AgentName>,
    /// When it started.
    pub started_at: Time,
    /// When it said all this.
    pub last_heartbeat: Time,
}

impl Worker {
    /// Whether it is to be taken for alive.
    pub fn is_alive(&self, now: Time, interval: HealthInterval) -> bool {
        now - self.last_heartbeat < delta(interval.silence())
    }

    /// Whether it performs executions of an agent.
    pub fn serves(&self, agent: &AgentName) -> bool {
        self.agents.contains(agent)
    }
}

/// Within which time it shows that a worker is gone (`AGENT_HEALTH_CHECK_INTERVAL`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthInterval(Duration);

impl HealthInterval {
    /// The longest time between two heartbeats: figures in a list of pools are not to be older than a person's patience.
    const LONGEST_BEAT: Duration = Duration::from_secs(5);

    /// An interval.
    pub const fn new(interval: Duration) -> Self {
        Self(interval)
    }

    /// How often a worker says that it lives: four times in an interval, and at least every five seconds.
    pub fn beat(self) -> Duration {
        (self.0 / 4).min(Self::LONGEST_BEAT)
    }

    /// How long a living worker may be silent: three quarters, so that whoever asks at the end of an interval knows.
    pub fn silence(self) -> Duration {
        self.0 / 4 * 3
    }

    /// How long one that was lost is remembered.
    pub fn memory(self) -> Duration {
        self.0.saturating_mul(10)
    }

    /// Before which moment a worker must have been heard of last to be forgotten at `now`.
    pub fn forgotten_before(self, now: Time) -> Time {
        now - delta(self.memory())
    }
}

impl Default for HealthInterval {
    fn default() -> Self {
        Self(Duration::from_secs(60))
    }
}

fn delta(duration: Duration) -> chrono::TimeDelta {
    chrono::TimeDelta::from_std(duration).unwrap_or(chrono::TimeDelta::days(36_500))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn at(seconds: i64) -> Time {
        Time::from_timestamp(1_800_000_000 + seconds, 0).unwrap_or_default()
    }

    /// A worker with room for ten that was heard of at 0.
    pub(crate) fn worker(id: &str, pool: Pool, agents: &[&str]) -> Worker {
        Worker {
            id: id.parse().unwrap(),
            pool,
            host: "box".to_owned(),
            process: 1,
            version: "1.0.0".to_owned(),
            capacity: 10,
            active: 0,
            finished: 0,
            finished_per_minute: 0.0,
            agents: agents.iter().map(|name| name.parse().unwrap()).collect(),
            started_at: at(-100),
            last_heartbeat: at(0),
        }
    }

    #[test]
    fn every_mode_belongs_to_one_part_and_to_the_whole() {
        for mode in Pool::Everything.modes() {
            let parts = Pool::PARTS
                .iter()
                .filter(|pool| pool.modes().contains(mode));
            assert_eq!(parts.collect::<Vec<_>>(), [&Pool::of(*mode)]);
        }
    }

    #[test]
    fn a_pool_is_read_as_it_is_written() {
        for pool in [Pool::Everything].into_iter().chain(Pool::PARTS) {
            assert_eq!(pool.to_string().parse(), Ok(pool));
        }
        assert!("quantum-pool".parse::<Pool>().is_err());
    }

    #[test]
    fn three_missed_heartbeats_are_silence_and_that_shows_within_the_interval() {
        let interval = HealthInterval::new(Duration::from_secs(20));
        let worker = worker("w", Pool::Everything, &[]);
        assert_eq!(interval.beat(), Duration::from_secs(5));
        assert!(worker.is_alive(at(14), interval));
        assert!(!worker.is_alive(at(15), interval));
        // A clock that is behind the worker's makes nobody dead.
        assert!(worker.is_alive(at(-300), interval));
        assert_eq!(interval.forgotten_before(at(200)), at(0));
    }

    #[test]
    fn a_long_interval_does_not_make_figures_old() {
        let day = HealthInterval::new(Duration::from_secs(86_400));
        assert_eq!(day.beat(), Duration::from_secs(5));
        assert_eq!(HealthInterval::new(Duration::MAX).memory(), Duration::MAX);
    }
}
