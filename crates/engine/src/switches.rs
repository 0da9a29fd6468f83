//! What people say of agents, over their files: that one is to take no work, or to begin anew.
//!
//! It is said to the store. Every process reads it there every two seconds, and the one that was told at once.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use domain::AgentName;
use domain::fleet::{Switch, SwitchedOff};
use tokio::sync::{Mutex, Notify};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::leases::Lease;
use crate::shared::Shared;
use crate::{Agent, Error};

/// How often it is read.
const REFRESH: Duration = Duration::from_secs(2);
/// How long a restart leaves what is under way to come to its next commit; then it is dropped, as at the end of a shutdown.
const GRACE: Duration = Duration::from_secs(10);

/// Asks for a reading at once, and has one made at a time: what was read earlier must not be noted later.
#[derive(Debug, Default)]
pub(crate) struct Look {
    wanted: Notify,
    reading: Mutex<()>,
}

/// Reads what was said, and notes who is disabled.
pub(crate) async fn load(core: &Shared) -> store::Result<Vec<Switch>> {
    let _reading = core.look_at_switches.reading.lock().await;
    let switches = core.ports.store.switches().await?;
    let off = switches
        .iter()
        .filter_map(|switch| Some((switch.agent.clone(), switch.off.clone()?)));
    core.agents.switch_off(off.collect());
    Ok(switches)
}

/// Disables an agent, or takes that back.
pub(crate) async fn switch(
    core: &Shared,
    name: &AgentName,
    is_on: bool,
    by: &str,
) -> Result<Agent, Error> {
    let agent = find(core, name)?;
    if is_on && !agent.definition.enabled {
        return Err(Error::Disabled(name.clone()));
    }
    let off = (!is_on).then(|| SwitchedOff {
        by: by.to_owned(),
        at: core.now(),
    });
    core.ports.store.switch_agent(name, off).await?;
    load(core).await?;
    find(core, name)
}

/// Counts a restart; [`follow`] acts on it, here and elsewhere.
pub(crate) async fn restart(core: &Shared, name: &AgentName) -> Result<Agent, Error> {
    let agent = find(core, name)?;
    core.ports.store.restart_agent(name).await?;
    core.look_at_switches.wanted.notify_one();
    Ok(agent)
}

fn find(core: &Shared, name: &AgentName) -> Result<Agent, Error> {
    let unknown = || core.agents.unknown(name.as_str());
    core.agents.get(name).ok_or_else(unknown)
}

/// Reads what is said, and restarts what is to be restarted, until `stop`.
pub(crate) async fn follow(core: Arc<Shared>, stop: CancellationToken) {
    let mut restarts = Restarts::default();
    let mut is_heard = true;
    loop {
        match load(&core).await {
            Ok(switches) => {
                is_heard = true;
                for agent in restarts.news(&switches) {
                    restarts.begin(&core, agent);
                }
            }
            Err(error) => {
                if is_heard {
                    tracing::warn!(
                        "which agents are disabled can't be read; it stays as it was: {error}"
                    );
                }
                is_heard = false;
            }
        }
        restarts.end_patience();
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = core.look_at_switches.wanted.notified() => {}
            () = tokio::time::sleep(REFRESH) => {}
        }
    }
}

/// The restarts that a process has seen.
#[derive(Default)]
struct Restarts {
    /// How many there were of each agent; `None` before the first reading, for what was before this process is no news to
    /// it.
    seen: Option<BTreeMap<AgentName, u64>>,
    /// What was asked to be handed back, and until when it has time for it.
    asked: Vec<(Instant, Arc<Lease>)>,
}

impl Restarts {
    /// The agents that were restarted since this was asked last.
    fn news<'a>(&mut self, switches: &'a [Switch]) -> Vec<&'a AgentName> {
        let now = switches
            .iter()
            .map(|switch| (switch.agent.clone(), switch.restarts));
        let before = self.seen.replace(now.collect());
        let Some(before) = before else {
            return Vec::new();
        };
        let is_new = |switch: &&Switch| {
            switch.restarts > before.get(&switch.agent).copied().unwrap_or_default()
        };
        let new = switches.iter().filter(is_new);
        new.map(|switch| &switch.agent).collect()
    }

    fn begin(&mut self, core: &Shared, agent: &AgentName) {
        // What it is given may be what is to be mended: a new secret, another variable.
        core.definitions.clear();
        let leases = core.leases.stop_of(agent);
        tracing::info!(agent_name = %agent, executions = leases.len(), "the agent is restarted: what it performs here is handed back");
        let until = Instant::now() + GRACE;
        self.asked
            .extend(leases.into_iter().map(|lease| (until, lease)));
    }

    fn end_patience(&mut self) {
        let now = Instant::now();
        let (over, rest) = std::mem::take(&mut self.asked)
            .into_iter()
            .partition(|(until, _)| *until <= now);
        self.asked = rest;
        let over: Vec<(Instant, Arc<Lease>)> = over;
        over.iter().for_each(|(_, lease)| lease.stop_now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_before_the_process_is_no_news() {
        let switch = |agent: &str, restarts| Switch {
            agent: agent.parse().unwrap(),
            off: None,
            restarts,
        };
        let mut seen = Restarts::default();
        let mut news = |switches: &[Switch]| {
            let news = seen.news(switches).into_iter();
            news.map(ToString::to_string).collect::<Vec<_>>()
        };
        assert!(news(&[switch("a", 3)]).is_empty());
        assert_eq!(news(&[switch("a", 4), switch("b", 1)]), ["a", "b"]);
        assert!(news(&[switch("a", 4), switch("b", 1)]).is_empty());
    }
}
