//! Taking a task in.

use std::time::Duration;

use domain::budget::BudgetLimits;
use domain::definition::OnConcurrent;
use domain::event::topics;
use domain::{
    AgentName, ConversationId, Definition, Event, EventId, Execution, ExecutionId, ExecutionMode,
    Message, Priority, Time, TraceId, Upstream,
};
use serde_json::{Value, json};
use store::{IdempotencyKey, Submission, Submitted, WhenBusy};

use crate::Error;
use crate::shared::Shared;

/// The longest `task_data`, in bytes of JSON.
pub(crate) const MAX_INPUT_BYTES: usize = 1 << 20;

/// The longest history that a caller brings along, in bytes of JSON.
const MAX_HISTORY_BYTES: usize = 5 << 20;

/// A task for an agent.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// For whom.
    pub agent: String,
    /// What is to be done.
    pub input: Value,
    /// What was said before, when the caller keeps it; otherwise the conversation's history is loaded when its turn comes.
    pub history: Vec<Message>,
    /// The conversation that it belongs to; when `None`, the agent's `conversation_key` may name it.
    pub conversation: Option<ConversationId>,
    /// Who goes first.
    pub priority: Priority,
    /// How long it may take; the definition's `timeout_seconds` when `None`, and never longer.
    pub timeout: Option<Duration>,
    /// Limits besides the definition's.
    pub budget: BudgetLimits,
    /// The trace of the request.
    pub trace_id: TraceId,
    /// The span of the request.
    pub upstream: Option<Upstream>,
    /// The event that started it.
    pub event_id: Option<EventId>,
    /// How many events led to it.
    pub hops: u8,
    /// The backup that what caused it came back from: [`Execution::restored`].
    pub restored: Option<Time>,
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
            upstream: None,
            event_id: None,
            hops: 0,
            restored: None,
            callback_url: None,
            metadata: Value::Null,
            idempotency: None,
        }
    }

    /// Whether what it brings is not too much.
    fn check_sizes(&self) -> Result<(), Error> {
        let size = self.input.to_string().len();
        if size > MAX_INPUT_BYTES {
            let message =
                format!("it has {size} bytes of JSON, at most {MAX_INPUT_BYTES} are taken");
            return Err(Error::Invalid {
                field: "task_data",
                message,
            });
        }
        let history = match self.history.as_slice() {
            [] => 0,
            history => serde_json::to_string(history).map_or(usize::MAX, |json| json.len()),
        };
        if history > MAX_HISTORY_BYTES {
            let message = format!(
                "it has {history} bytes of JSON, at most {MAX_HISTORY_BYTES} are taken; use a conversation, or begin anew"
            );
            return Err(Error::Invalid {
                field: "history",
                message,
            });
        }
        Ok(())
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

pub(crate) async fn submit(core: &Shared, task: NewTask) -> Result<Accepted, Error> {
    let (ports, agents) = (&core.ports, &core.agents);
    let unknown = || agents.unknown(&task.agent);
    let name: AgentName = task.agent.parse().map_err(|_| unknown())?;
    let agent = agents.get(&name).ok_or_else(unknown)?;
    if !agent.takes_work() {
        return Err(Error::disabled(&agent));
    }
    task.check_sizes()?;
    let conversation = conversation(&agent.definition, &task)?;
    let concurrent = agent.definition.continuous_config.as_ref();
    let concurrent = concurrent.map_or(OnConcurrent::Queue, |c| c.on_concurrent_message);
    let now = core.now();
    let longest = Duration::from_secs(agent.definition.longest_seconds());
    let execution = Execution {
        id: ExecutionId::from_uuid((core.new_id)()),
        agent: name.clone(),
        version: agent.version.clone(),
        mode: agent.definition.execution_mode,
        input: task.input,
        // Only what the caller brought: what the conversation holds is known when its turn comes.
        history: task.history,
        conversation: conversation.clone(),
        priority: task.priority,
        created_at: now,
        deadline: now + task.timeout.unwrap_or(longest).min(longest),
        budget: task.budget,
        trace_id: task.trace_id.clone(),
        upstream: task.upstream,
        parent: None,
        origin: None,
        event_id: task.event_id,
        hops: task.hops,
        restored: task.restored,
        callback_url: task.callback_url,
        metadata: task.metadata,
    };
    let id = execution.id;
    let events = submitted_event(&execution).into_iter().collect();
    let submission = Submission {
        execution,
        idempotency: task.idempotency,
        events,
        when_busy: match concurrent {
            OnConcurrent::Reject => WhenBusy::Refuse,
            OnConcurrent::Queue | OnConcurrent::Interrupt => WhenBusy::default(),
        },
    };
    let submitted = ports.store.submit(submission).await?;
    let (id, was_known) = accepted(submitted, id, &name, conversation)?;
    // Also when it was known: whoever was not answered asks again, and the first time may have come only so far.
    if concurrent == OnConcurrent::Interrupt {
        interrupt(core, id).await?;
    }
    Ok(Accepted {
        id,
        agent: name,
        trace_id: task.trace_id,
        was_known,
    })
}

/// The execution that was accepted as `id`, and whether it had been before.
pub(crate) fn accepted(
    submitted: Submitted,
    id: ExecutionId,
    agent: &AgentName,
    conversation: Option<ConversationId>,
) -> Result<(ExecutionId, bool), Error> {
    match (submitted, conversation) {
        (Submitted::New, _) => Ok((id, false)),
        (Submitted::Existing(id), _) => Ok((id, true)),
        (Submitted::KeyMismatch, _) => Err(Error::KeyMismatch),
        (Submitted::NoOrigin, _) => Err(Error::Invalid {
            field: "from_step",
            message: "the steps that are to be shared are gone; submit the task anew".to_owned(),
        }),
        (Submitted::Busy(running), Some(conversation)) => Err(Error::Busy {
            agent: agent.clone(),
            conversation,
            running,
        }),
        (Submitted::Full { waiting }, Some(conversation)) => Err(Error::QueueFull {
            agent: agent.clone(),
            conversation,
            waiting,
        }),
        (Submitted::Busy(_) | Submitted::Full { .. }, None) => Err(Error::Invalid {
            field: "conversation_id",
            message: "it is missing, and the conversation is said to be busy".to_owned(),
        }),
    }
}

/// The conversation that a task belongs to: the one that the caller names, or that its input does.
fn conversation(definition: &Definition, task: &NewTask) -> Result<Option<ConversationId>, Error> {
    if task.conversation.is_some() {
        return Ok(task.conversation.clone());
    }
    let Some(config) = &definition.continuous_config else {
        return Ok(None);
    };
    let found = config.conversation_of(&task.input);
    found.map_err(|message| Error::Invalid {
        field: "conversation_id",
        message,
    })
}

/// Ends what came before in the same conversation: those that wait first, so that none of them begins.
async fn interrupt(core: &Shared, id: ExecutionId) -> Result<(), Error> {
    let reason = format!("a new message came (execution {id})");
    for earlier in core.ports.store.ahead(id).await? {
        let by = "its conversation";
        core.ports
            .store
            .cancel(earlier, by, &reason, core.now())
            .await?;
        core.leases.tell_news(earlier);
    }
    Ok(())
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
