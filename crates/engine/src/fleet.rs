//! Tells the other processes that this one lives, how busy it is, and which agents it performs.
//!
//! The heartbeat is a task of its own: neither a model nor a tool that takes long holds it up.

use std::collections::{BTreeSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::{AgentName, HealthInterval, Pool, Time, Worker};
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;

/// Over how long a time executions are counted for the rate.
const WINDOW: chrono::TimeDelta = chrono::TimeDelta::seconds(60);
/// How long a process that ends takes to say so; after it the others find out by themselves.
const FAREWELL: Duration = Duration::from_secs(2);

/// As what a process is known to the others.
#[derive(Debug, Clone)]
pub struct Registration {
    /// The pool that it belongs to.
    pub pool: Pool,
    /// The name of its machine or container.
    pub host: String,
    /// Its process id there.
    pub process: u32,
    /// The version of the program.
    pub version: String,
    /// Within which time it shows that a worker is gone.
    pub interval: HealthInterval,
}

impl Default for Registration {
    fn default() -> Self {
        Self {
            pool: Pool::Everything,
            host: "localhost".to_owned(),
            process: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            interval: HealthInterval::default(),
        }
    }
}

/// What a process counts of its own work.
pub(crate) struct Presence {
    started_at: Time,
    finished: AtomicU64,
    rate: Mutex<Rate>,
}

impl Presence {
    pub(crate) fn new(now: Time) -> Self {
        Self {
            started_at: now,
            finished: AtomicU64::new(0),
            rate: Mutex::new(Rate::new(now)),
        }
    }

    /// Counts an execution that came to its end here.
    pub(crate) fn count_finished(&self) {
        self.finished.fetch_add(1, Ordering::Relaxed);
    }
}

/// How many there are in a minute, from totals at some moments.
struct Rate {
    totals: VecDeque<(Time, u64)>,
}

impl Rate {
    fn new(now: Time) -> Self {
        Self {
            totals: VecDeque::from([(now, 0)]),
        }
    }

    fn note(&mut self, now: Time, total: u64) {
        self.totals.push_back((now, total));
        // The youngest that is older than the window is where it begins.
        while self
            .totals
            .get(1)
            .is_some_and(|(at, _)| now - *at >= WINDOW)
        {
            self.totals.pop_front();
        }
    }

    fn per_minute(&self, now: Time, total: u64) -> f64 {
        let Some((since, before)) = self.totals.front() else {
            return 0.0;
        };
        let seconds = (now - *since).num_milliseconds().max(1000) as f64 / 1000.0;
        total.saturating_sub(*before) as f64 * 60.0 / seconds
    }
}

/// What this process says of itself now.
pub(crate) fn own(core: &Shared) -> Worker {
    let (settings, presence) = (&core.settings, &core.presence);
    let registration = &settings.registration;
    let (now, finished) = (core.now(), presence.finished.load(Ordering::Relaxed));
    let rate = presence.rate.lock().unwrap_or_else(PoisonError::into_inner);
    let small = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Worker {
        id: settings.worker.clone(),
        pool: registration.pool,
        host: registration.host.clone(),
        process: registration.process,
        version: registration.version.clone(),
        capacity: small(settings.capacity),
        active: small(core.leases.count()),
        finished,
        finished_per_minute: rate.per_minute(now, finished),
        agents: performed(core),
        started_at: presence.started_at,
        last_heartbeat: now,
    }
}

/// The agents that this process can perform: of its modes, that take work, and with nothing missing.
fn performed(core: &Shared) -> BTreeSet<AgentName> {
    let can = |agent: &crate::Agent| {
        let definition = &agent.definition;
        agent.takes_work()
            && core.settings.modes.contains(&definition.execution_mode)
            && core.definitions.missing(agent).is_none()
    };
    let agents = core.agents.all().into_iter().filter(can);
    agents.map(|agent| agent.definition.name.clone()).collect()
}

/// Says it again and again, and at once when the agents change; takes leave at `stop`.
pub(crate) async fn beat(core: Arc<Shared>, stop: CancellationToken) {
    let interval = core.settings.registration.interval;
    let mut changed = core.agents.changed();
    let mut is_heard = true;
    loop {
        changed.borrow_and_update();
        let Some(said) = stop.run_until_cancelled(say(&core, interval)).await else {
            break;
        };
        match said {
            Ok(()) => is_heard = true,
            Err(error) => {
                // Once is enough to say it; the store's own trouble is told elsewhere.
                if is_heard {
                    tracing::warn!("the others do not hear that this process lives: {error}");
                }
                is_heard = false;
            }
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => break,
            _ = changed.changed() => {}
            () = tokio::time::sleep(interval.beat()) => {}
        }
    }
    let farewell = core.ports.store.leave(&core.settings.worker);
    match tokio::time::timeout(FAREWELL, farewell).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            tracing::warn!("the others will miss this process by themselves: {error}")
        }
        Err(_) => tracing::warn!("the others will miss this process by themselves"),
    }
}

async fn say(core: &Shared, interval: HealthInterval) -> store::Result<()> {
    let own = own(core);
    {
        let mut rate = core
            .presence
            .rate
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        rate.note(own.last_heartbeat, own.finished);
    }
    let forget_before = interval.forgotten_before(own.last_heartbeat);
    core.ports.store.heartbeat(own, forget_before).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Time {
        Time::from_timestamp(1_800_000_000 + seconds, 0).unwrap()
    }

    #[test]
    fn the_rate_is_that_of_the_last_minute() {
        let mut rate = Rate::new(at(0));
        // A process that has just begun has not done sixty in a second's stead.
        assert_eq!(rate.per_minute(at(0), 1), 60.0);
        for second in (5..=120).step_by(5) {
            rate.note(at(second), 10 * second as u64);
        }
        assert_eq!(rate.per_minute(at(120), 1200), 600.0);
        for second in (125..=300).step_by(5) {
            rate.note(at(second), 1200);
        }
        assert_eq!(rate.per_minute(at(300), 1200), 0.0);
        assert!(rate.totals.len() <= 13, "no more than the window holds");
    }
}
