//! Why the engine refuses a request.

use domain::schedule::Flaw;
use domain::{AgentName, ConversationId, ExecutionId, Status};

use crate::Agent;

/// Why the engine refuses a request.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such agent.
    #[error("{}", no_agent(name, nearest.as_ref(), broken.as_deref()))]
    UnknownAgent {
        /// The name.
        name: String,
        /// The nearest known one.
        nearest: Option<AgentName>,
        /// Why a file that should give it can't be used.
        broken: Option<String>,
    },
    /// It takes no work.
    #[error("agent {0} is disabled; enable it in its file (enabled: true)")]
    Disabled(AgentName),
    /// A person disabled it.
    #[error(
        "agent {agent} was disabled by {by}; enable it with POST /agents/{agent}/enable or `agentrunner agents enable {agent}`"
    )]
    SwitchedOff {
        /// Which.
        agent: AgentName,
        /// Who.
        by: String,
    },
    /// The request is not valid.
    #[error("{field}: {message}")]
    Invalid {
        /// Which field.
        field: &'static str,
        /// What is wrong with it and what to do.
        message: String,
    },
    /// There is no such execution.
    #[error("there is no execution {0}; GET /tasks lists the executions")]
    UnknownExecution(ExecutionId),
    /// Nothing can begin where that execution was.
    #[error("{message}")]
    CanNotBranch {
        /// How the execution stands.
        status: Status,
        /// Why not, and what can be done.
        message: String,
    },
    /// What the tools take can't be found out now.
    #[error("{0}")]
    ToolsUnavailable(String),
    /// The conversation is at an earlier message, and the agent says to refuse then.
    #[error(
        "conversation {conversation} of agent {agent} is at an earlier message (execution {running}), and the agent says on_concurrent_message: reject; wait for its end, or cancel it"
    )]
    Busy {
        /// Whose.
        agent: AgentName,
        /// Which.
        conversation: ConversationId,
        /// What it is at.
        running: ExecutionId,
    },
    /// As many messages wait in the conversation as may.
    #[error(
        "{waiting} messages wait for their turn in conversation {conversation} of agent {agent}, and more are not taken; try again when some are done, or cancel them"
    )]
    QueueFull {
        /// Whose.
        agent: AgentName,
        /// Which.
        conversation: ConversationId,
        /// How many.
        waiting: u32,
    },
    /// The event is one of a chain that looks endless.
    #[error("{0}: the agents that publish and subscribe form a loop")]
    Loop(String),
    /// The idempotency key came with another body before.
    #[error("this Idempotency-Key came with another body before; use a new key for a new request")]
    KeyMismatch,
    /// There is no such schedule.
    #[error("there is no schedule {name:?}{}", nearest.as_ref().map_or_else(String::new, |n| format!("; did you mean {n}?")))]
    UnknownSchedule {
        /// The name.
        name: String,
        /// The nearest known one.
        nearest: Option<String>,
    },
    /// The schedule is not one that can be kept.
    #[error("{}", flaws(.0))]
    InvalidSchedule(Vec<Flaw>),
    /// The schedule can't be made or changed as it stands; the message says what to do.
    #[error("{0}")]
    ScheduleConflict(String),
    /// The store can't do it.
    #[error(transparent)]
    Store(#[from] store::Error),
}

impl Error {
    /// Says why an agent that takes no work does not.
    pub(crate) fn disabled(agent: &Agent) -> Self {
        let name = agent.definition.name.clone();
        match &agent.switched_off {
            Some(off) if agent.definition.enabled => Self::SwitchedOff {
                agent: name,
                by: off.by.clone(),
            },
            _ => Self::Disabled(name),
        }
    }
}

fn flaws(flaws: &[Flaw]) -> String {
    let told = flaws.iter().map(|flaw| match flaw.hint.as_str() {
        "" => format!("{}: {}", flaw.field, flaw.message),
        hint => format!("{}: {}; {hint}", flaw.field, flaw.message),
    });
    told.collect::<Vec<_>>().join(" · ")
}

fn no_agent(name: &str, nearest: Option<&AgentName>, broken: Option<&str>) -> String {
    match (broken, nearest) {
        (Some(why), _) => format!("agent {name} can't be used, because its file is broken: {why}"),
        (None, Some(nearest)) => format!("there is no agent {name}; did you mean {nearest}?"),
        (None, None) => format!("there is no agent {name}"),
    }
}
