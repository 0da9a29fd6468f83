//! How busy the pools are.

use super::{HealthInterval, Pool, Worker};
use crate::{ExecutionMode, Time};

/// What an agent's executions mean for the pool that performs them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AgentLoad {
    /// How the agent works.
    pub mode: ExecutionMode,
    /// Executions that nobody has begun.
    pub queued: u64,
    /// Executions that have ended.
    pub finished: u64,
}

/// A pool and its workers.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolStats {
    /// Which.
    pub pool: Pool,
    /// Its workers, the living first; those that were lost are shown for a while.
    pub workers: Vec<WorkerStats>,
    /// How many executions the living can perform at once.
    pub capacity: u64,
    /// How many they perform.
    pub active: u64,
    /// How many wait to be begun.
    pub queued: u64,
    /// `active` as a share of `capacity`.
    pub load: f64,
    /// Executions of its agents that have ended.
    pub finished: u64,
    /// What the living bring to an end in a minute.
    pub finished_per_minute: f64,
}

/// A worker among those of its pool.
#[derive(Debug, Clone, PartialEq)]
pub struct WorkerStats {
    /// As it said of itself.
    pub worker: Worker,
    /// Whether it has been heard of lately.
    pub is_alive: bool,
    /// How much of its capacity is used.
    pub load: f64,
    /// How much of what the pool performs is performed by it.
    pub share: f64,
}

/// The pools that have workers, and those that have none although agents need them.
pub fn pools(
    workers: Vec<Worker>,
    agents: &[AgentLoad],
    now: Time,
    interval: HealthInterval,
) -> Vec<PoolStats> {
    let is_alive = |worker: &Worker| worker.is_alive(now, interval);
    let is_manned = |mode: ExecutionMode| {
        let mut living = workers.iter().filter(|worker| is_alive(worker));
        living.any(|worker| worker.pool.modes().contains(&mode))
    };
    let mut wanted: Vec<Pool> = workers.iter().map(|worker| worker.pool).collect();
    let unmanned = agents.iter().filter(|agent| !is_manned(agent.mode));
    wanted.extend(unmanned.map(|agent| Pool::of(agent.mode)));
    wanted.sort_unstable();
    wanted.dedup();
    let of = |pool| {
        let mut own: Vec<Worker> = workers.iter().filter(|w| w.pool == pool).cloned().collect();
        own.sort_by(|a, b| (!is_alive(a), &a.id).cmp(&(!is_alive(b), &b.id)));
        one(pool, own, agents, &is_alive)
    };
    wanted.into_iter().map(of).collect()
}

fn one(
    pool: Pool,
    workers: Vec<Worker>,
    agents: &[AgentLoad],
    is_alive: &dyn Fn(&Worker) -> bool,
) -> PoolStats {
    let living = || workers.iter().filter(|worker| is_alive(worker));
    let capacity: u64 = living().map(|worker| u64::from(worker.capacity)).sum();
    let active: u64 = living().map(|worker| u64::from(worker.active)).sum();
    let finished_per_minute = living().map(|worker| worker.finished_per_minute).sum();
    let own = || {
        agents
            .iter()
            .filter(|agent| pool.modes().contains(&agent.mode))
    };
    let (queued, finished) = (
        own().map(|agent| agent.queued).sum(),
        own().map(|agent| agent.finished).sum(),
    );
    let stats = |worker: Worker| {
        let is_alive = is_alive(&worker);
        let busy = if is_alive {
            u64::from(worker.active)
        } else {
            0
        };
        WorkerStats {
            is_alive,
            load: share(busy, u64::from(worker.capacity)),
            share: share(busy, active),
            worker,
        }
    };
    PoolStats {
        pool,
        workers: workers.into_iter().map(stats).collect(),
        capacity,
        active,
        queued,
        load: share(active, capacity),
        finished,
        finished_per_minute,
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 {
        0.0
    } else {
        part as f64 / whole as f64
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{at, worker};
    use super::*;

    const INTERVAL: HealthInterval = HealthInterval::new(Duration::from_secs(20));

    fn load(mode: ExecutionMode, queued: u64, finished: u64) -> AgentLoad {
        AgentLoad {
            mode,
            queued,
            finished,
        }
    }

    #[test]
    fn the_living_are_added_up_and_the_lost_are_shown() {
        let mut lost = worker("w0", Pool::Autonomous, &[]);
        (lost.active, lost.last_heartbeat) = (9, at(-30));
        let mut busy = worker("w1", Pool::Autonomous, &[]);
        (busy.active, busy.finished_per_minute) = (6, 1.5);
        let mut calm = worker("w2", Pool::Autonomous, &[]);
        (calm.active, calm.finished_per_minute) = (2, 0.5);
        let agents = [
            load(ExecutionMode::Autonomous, 3, 10),
            load(ExecutionMode::Scheduled, 4, 1),
        ];
        let all = pools(vec![lost, busy, calm], &agents, at(0), INTERVAL);
        let [pool] = all.as_slice() else {
            panic!("{all:?}")
        };
        assert_eq!((pool.capacity, pool.active, pool.queued), (20, 8, 7));
        assert_eq!((pool.load, pool.finished), (0.4, 11));
        assert_eq!(pool.finished_per_minute, 2.0);
        let workers = pool.workers.iter();
        let seen: Vec<_> = workers
            .map(|w| (w.worker.id.as_str(), w.is_alive, w.load, w.share))
            .collect();
        assert_eq!(
            seen,
            [
                ("w1", true, 0.6, 0.75),
                ("w2", true, 0.2, 0.25),
                ("w0", false, 0.0, 0.0)
            ]
        );
    }

    #[test]
    fn a_pool_that_agents_need_is_shown_though_nobody_is_in_it() {
        let agents = [
            load(ExecutionMode::Autonomous, 1, 0),
            load(ExecutionMode::Continuous, 2, 0),
        ];
        let workers = vec![worker("w1", Pool::Autonomous, &[])];
        let all = pools(workers, &agents, at(0), INTERVAL);
        let seen: Vec<_> = all.iter().map(|p| (p.pool, p.queued, p.capacity)).collect();
        assert_eq!(seen, [(Pool::Autonomous, 1, 10), (Pool::Continuous, 2, 0)]);
        let all = pools(
            vec![worker("w1", Pool::Everything, &[])],
            &agents,
            at(0),
            INTERVAL,
        );
        let seen: Vec<_> = all.iter().map(|p| (p.pool, p.queued)).collect();
        assert_eq!(seen, [(Pool::Everything, 3)], "one process does it all");
    }
}
