//! How an agent stands.

use super::{HealthInterval, Pool, SwitchedOff, Worker};
use crate::{AgentName, ExecutionMode, Time};

/// How an agent stands, in a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentStatus {
    /// It would begin a task at once.
    Ready,
    /// It works on some.
    Running,
    /// It works, and somebody should look.
    Degraded,
    /// Nobody performs its tasks; they are accepted and wait.
    Unavailable,
    /// It takes no tasks.
    Disabled,
}

impl AgentStatus {
    /// The word in API and lists.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Running => "running",
            Self::Degraded => "degraded",
            Self::Unavailable => "unavailable",
            Self::Disabled => "disabled",
        }
    }
}

/// What is known of an agent.
#[derive(Debug, Clone, Copy)]
pub struct Circumstances<'a> {
    /// Which.
    pub name: &'a AgentName,
    /// How it works.
    pub mode: ExecutionMode,
    /// Whether its file lets it take tasks.
    pub is_enabled: bool,
    /// Who disabled it, whatever its file says.
    pub switched_off: Option<&'a SwitchedOff>,
    /// Why the process that is asked can't perform it itself, if it would otherwise.
    pub missing: Option<&'a str>,
    /// Why its file's newest content is not in use, if it is not.
    pub rejected: Option<&'a str>,
    /// How many of its tools are withheld because their servers changed them.
    pub withheld: usize,
    /// How many of its executions are under way or wait for something.
    pub active: u64,
}

/// How an agent stands, and why in words when it is not well.
pub fn standing(
    agent: &Circumstances<'_>,
    workers: &[Worker],
    now: Time,
    interval: HealthInterval,
) -> (AgentStatus, Option<String>) {
    if !agent.is_enabled {
        let reason = "its file says enabled: false".to_owned();
        return (AgentStatus::Disabled, Some(reason));
    }
    if let Some(SwitchedOff { by, at }) = agent.switched_off {
        let (name, at) = (agent.name, at.format("%Y-%m-%d %H:%M:%SZ"));
        let reason =
            format!("{by} disabled it at {at}; enable it with `agentrunner agents enable {name}`");
        return (AgentStatus::Disabled, Some(reason));
    }
    let mut living = workers
        .iter()
        .filter(|worker| worker.is_alive(now, interval));
    if !living.clone().any(|worker| worker.serves(agent.name)) {
        let is_manned = living.any(|worker| worker.pool.modes().contains(&agent.mode));
        return (AgentStatus::Unavailable, Some(unserved(agent, is_manned)));
    }
    if let Some(rejected) = agent.rejected {
        let reason =
            format!("its file has mistakes, so its last good version is used:\n{rejected}");
        return (AgentStatus::Degraded, Some(reason));
    }
    if agent.withheld > 0 {
        let (name, count) = (agent.name, agent.withheld);
        let reason = format!(
            "{count} of its tools changed at their servers and are withheld; look at them with `agentrunner agents show {name}`, \
             and let it use them with `agentrunner agents approve-tools {name}`"
        );
        return (AgentStatus::Degraded, Some(reason));
    }
    if agent.active > 0 {
        return (AgentStatus::Running, None);
    }
    (AgentStatus::Ready, None)
}

/// Why nobody performs it, and what to do.
fn unserved(agent: &Circumstances<'_>, is_manned: bool) -> String {
    let pool = Pool::of(agent.mode);
    match agent.missing {
        Some(missing) => missing.to_owned(),
        None if is_manned => format!(
            "the workers of {pool} do not have this agent, or not its variables; give all processes the same files and settings"
        ),
        None => format!(
            "no worker of {pool} is alive; its tasks are kept until one is: start `agentrunner serve {pool}`"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::tests::{at, worker};
    use super::*;

    const INTERVAL: HealthInterval = HealthInterval::new(Duration::from_secs(20));

    fn well(name: &AgentName) -> Circumstances<'_> {
        Circumstances {
            name,
            mode: ExecutionMode::Autonomous,
            is_enabled: true,
            switched_off: None,
            missing: None,
            rejected: None,
            withheld: 0,
            active: 0,
        }
    }

    #[test]
    fn a_living_worker_that_has_the_agent_makes_it_ready() {
        let name = "a".parse().unwrap();
        let workers = [
            worker("w1", Pool::Autonomous, &["b"]),
            worker("w2", Pool::Autonomous, &["a", "b"]),
        ];
        let stands = |agent, now| standing(&agent, &workers, at(now), INTERVAL);
        assert_eq!(stands(well(&name), 0), (AgentStatus::Ready, None));
        let busy = Circumstances {
            active: 3,
            ..well(&name)
        };
        assert_eq!(stands(busy, 0), (AgentStatus::Running, None));
        let (status, reason) = stands(well(&name), 15);
        assert_eq!(status, AgentStatus::Unavailable);
        assert!(reason.unwrap().contains("serve autonomous-agent-pool"));
    }

    #[test]
    fn another_pool_does_not_help() {
        let name = "a".parse().unwrap();
        let workers = [
            worker("w1", Pool::Collaborative, &["c"]),
            worker("w2", Pool::Autonomous, &[]),
        ];
        let (status, reason) = standing(&well(&name), &workers[..1], at(0), INTERVAL);
        assert_eq!(status, AgentStatus::Unavailable);
        assert!(reason.unwrap().contains("no worker"));
        let (status, reason) = standing(&well(&name), &workers, at(0), INTERVAL);
        assert_eq!(status, AgentStatus::Unavailable);
        assert!(reason.unwrap().contains("do not have this agent"));
    }

    #[test]
    fn the_gravest_is_said() {
        let name = "a".parse().unwrap();
        let worst = Circumstances {
            is_enabled: false,
            missing: Some("KEY is not set"),
            rejected: Some("line 3"),
            withheld: 2,
            active: 1,
            ..well(&name)
        };
        let served = [worker("w", Pool::Everything, &["a"])];
        let stands = |agent, workers: &[Worker]| standing(&agent, workers, at(0), INTERVAL);
        assert_eq!(stands(worst, &served).0, AgentStatus::Disabled);
        let enabled = Circumstances {
            is_enabled: true,
            ..worst
        };
        let off = SwitchedOff {
            by: "ada".to_owned(),
            at: at(0),
        };
        let switched_off = Circumstances {
            switched_off: Some(&off),
            ..enabled
        };
        let (status, reason) = stands(switched_off, &served);
        assert_eq!(status, AgentStatus::Disabled);
        let reason = reason.unwrap();
        assert!(reason.starts_with("ada disabled it") && reason.contains("agents enable a"));
        let unserved = (AgentStatus::Unavailable, Some("KEY is not set".to_owned()));
        assert_eq!(stands(enabled, &[]), unserved);
        let (status, reason) = stands(enabled, &served);
        assert_eq!(status, AgentStatus::Degraded);
        assert!(reason.unwrap().ends_with("line 3"));
        let valid = Circumstances {
            rejected: None,
            ..enabled
        };
        let (status, reason) = stands(valid, &served);
        assert_eq!(status, AgentStatus::Degraded);
        assert!(reason.unwrap().contains("agents approve-tools a"));
    }
}
