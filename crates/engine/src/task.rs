//! Taking a task in.

use std::time::Duration;

use domain::budget::BudgetLimits;
use domain::event::topics;
use domain::{
    AgentName, ConversationId, Event, EventId, Execution, ExecutionId, ExecutionMode, Message,
    Priority, TraceId,
};
use serde_json::{Value, json};
use store::{IdempotencyKey, Submission, Submitted};
use uuid::Uuid;

use crate::{Agents, Error, Ports};

/// The longest `task_data`, in bytes of JSON.
pub(crate) const MAX_INPUT_BYTES: usize = 1 << 20;

/// A task for an agent.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// For whom.
    pub agent: String,
    /// What is to be done.
    pub input: Value,
    /// What was said before, when the caller keeps it; otherwise the conversation's history is loaded.
    pub history: Vec<Message>,
    /// The conversation that it belongs to.
    pub conversation: Option<ConversationId>,
    /// Who goes first.
    pub priority: Priority,
    /// How long it may take; the definition's `timeout_seconds` when `None`, and never longer.
    pub timeout: Option<Duration>,
    /// Limits besides the definition's.
    pub budget: BudgetLimits,
    /// The trace of the request.
    pub trace_id: TraceId,
    /// The event that started it.
    pub event_id: Option<EventId>,
    /// How many events led to it.
    pub hops: u8,
    /// Where to send the result.
    pub callback_url: Option<String>,
    /// The caller's own notes.
    pub metadata: Value,
    /// Makes repeating the request harmless.
    pub idempotency: Option<IdempotencyKey>,
}

impl NewTask {
    /// A plain task.
    pub fn new(agent: impl Into<String>, input: Value, trace_id: TraceId) -> Self {
        Self {
            agent: agent.into(),
            input,
            history: Vec::new(),
            conversation: None,
            priority: Priority::default(),
            timeout: None,
            budget: BudgetLimits::default(),
            trace_id,
            event_id: None,
            hops: 0,
            callback_url: None,
            metadata: Value::Null,
            idempotency: None,
        }
    }
}

/// An accepted task.
#[derive(Debug, Clone)]
pub struct Accepted {
    /// The execution.
    pub id: ExecutionId,
    /// Whose.
    pub agent: AgentName,
    /// Its trace.
    pub trace_id: TraceId,
    /// Whether the same request had been accepted before.
    pub was_known: bool,
}

pub(crate) async fn submit(
    ports: &Ports,
    agents: &Agents,
    task: NewTask,
) -> Result<Accepted, Error> {
    let unknown = |name: &str| Error::UnknownAgent {
        name: name.to_owned(),
        nearest: agents.nearest(name),
    };
    let name: AgentName = task.agent.parse().map_err(|_| unknown(&task.agent))?;
    let agent = agents.get(&name).ok_or_else(|| unknown(&task.agent))?;
    if !agent.definition.enabled {
        return Err(Error::Disabled(name));
    }
    let size = task.input.to_string().len();
    if size > MAX_INPUT_BYTES {
        let message = format!("it has {size} bytes of JSON, at most {MAX_INPUT_BYTES} are taken");
        return Err(Error::Invalid {
            field: "task_data",
            message,
        });
    }
    let history = history(ports, &name, &task).await?;
    let now = (ports.clock)();
    let longest = Duration::from_secs(agent.definition.timeout_seconds);
    let execution = Execution {
        id: ExecutionId::from_uuid(Uuid::now_v7()),
        agent: name.clone(),
        version: agent.version.clone(),
        mode: agent.definition.execution_mode,
        input: task.input,
        history,
        conversation: task.conversation,
        priority: task.priority,
        created_at: now,
        deadline: now + task.timeout.unwrap_or(longest).min(longest),
        budget: task.budget,
        trace_id: task.trace_id.clone(),
        parent: None,
        event_id: task.event_id,
        hops: task.hops,
        callback_url: task.callback_url,
        metadata: task.metadata,
    };
    let id = execution.id;
    let events = submitted_event(&execution).into_iter().collect();
    match ports
        .store
        .submit(Submission {
            execution,
            idempotency: task.idempotency,
            events,
        })
        .await?
    {
        Submitted::New => Ok(Accepted {
            id,
            agent: name,
            trace_id: task.trace_id,
            was_known: false,
        }),
        Submitted::Existing(id) => Ok(Accepted {
            id,
            agent: name,
            trace_id: task.trace_id,
            was_known: true,
        }),
        Submitted::KeyMismatch => Err(Error::KeyMismatch),
    }
}

async fn history(ports: &Ports, name: &AgentName, task: &NewTask) -> Result<Vec<Message>, Error> {
    match &task.conversation {
        Some(conversation) if task.history.is_empty() => {
            Ok(ports.store.conversation(name, conversation, 100).await?)
        }
        _ => Ok(task.history.clone()),
    }
}

/// The hint that there is work: whoever hears it looks at the execution.
pub(crate) fn submitted_event(execution: &Execution) -> Option<Event> {
    let topic = match execution.mode {
        ExecutionMode::Autonomous => topics::AUTONOMOUS_SUBMITTED.to_owned(),
        ExecutionMode::Collaborative => "collaborative.task.submitted".to_owned(),
        ExecutionMode::Continuous => format!("continuous.task.{}", execution.agent),
        ExecutionMode::Scheduled => format!("scheduled.task.{}", execution.agent),
    };
    Some(Event {
        id: format!("submitted-{}", execution.id).parse().ok()?,
        topic: topic.parse().ok()?,
        source: format!("agentrunner/{}", execution.agent),
        time: execution.created_at,
        trace_id: execution.trace_id.clone(),
        hops: execution.hops,
        data: json!({ "execution_id": execution.id, "agent_name": execution.agent }),
    })
}
