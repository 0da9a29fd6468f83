//! Time travel: a new execution begins where another one was.
//!
//! It shares that one's steps up to a point; the store copies them. A fork begins between two turns: a point within the
//! calls of a turn is moved back to before the model's answer that asked for them, so that nothing is called twice for
//! one answer. A retry goes on within the turn: what was done there is done, and what may have been done is settled as
//! after a crash.

use std::time::Duration;

use domain::budget::BudgetLimits;
use domain::execution::{Origin, Seam};
use domain::state::Turn;
use domain::{
    Definition, Execution, ExecutionId, ExecutionMode, Message, Purpose, State, Status, Step,
    StepBody, TraceId, Upstream, pruning,
};
use serde_json::Value;
use store::{ExecutionRow, IdempotencyKey, Submission, WhenBusy};

use crate::shared::Shared;
use crate::task::{Accepted, MAX_INPUT_BYTES, accepted, submitted_event};
use crate::{Agent, Error};

/// How many steps are read at once.
const PAGE: usize = 500;
/// How often a journal may go from one execution's steps to another's.
const MAX_SEAMS: usize = 64;

/// Where a new execution begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// At the beginning, with the agent as it is now.
    Anew,
    /// Where the other one ended.
    LastStep,
    /// After so many steps.
    After(u32),
}

/// A wish that an execution begins where another one was.
#[derive(Debug, Clone)]
pub struct Branch {
    /// The other one.
    pub id: ExecutionId,
    /// Where.
    pub cut: Cut,
    /// What is asked instead.
    pub input: Option<Value>,
    /// What it is told there besides.
    pub message: Option<String>,
    /// Whether it works with the agent as it is now, and not with the version that the other one began with.
    pub is_current: bool,
    /// How long it may take; as the agent says when `None`, and never longer.
    pub timeout: Option<Duration>,
    /// Limits besides those of the other one.
    pub budget: BudgetLimits,
    /// Notes in the place of the other one's.
    pub metadata: Option<Value>,
    /// The trace of the request.
    pub trace_id: TraceId,
    /// The span of the request.
    pub upstream: Option<Upstream>,
    /// Makes repeating the request harmless.
    pub idempotency: Option<IdempotencyKey>,
}

pub(crate) async fn branch(core: &Shared, wish: Branch) -> Result<(Accepted, Origin), Error> {
    check_size(&wish)?;
    let row = core.ports.store.execution(wish.id).await?;
    let row = row.ok_or(Error::UnknownExecution(wish.id))?;
    check_status(&row, wish.cut)?;
    let name = row.execution.agent.clone();
    let unknown = || core.agents.unknown(name.as_str());
    let agent = core.agents.get(&name).ok_or_else(unknown)?;
    if !agent.takes_work() {
        return Err(Error::disabled(&agent));
    }
    let steps = shared_steps(core, &row, wish.cut).await?;
    let origin = origin(&row, &wish, steps)?;
    let execution = execution(core, &row, &agent, &wish, origin.clone()).await?;
    let (id, conversation) = (execution.id, execution.conversation.clone());
    let submission = Submission {
        events: submitted_event(&execution).into_iter().collect(),
        execution,
        idempotency: wish.idempotency,
        when_busy: WhenBusy::default(),
    };
    let submitted = core.ports.store.submit(submission).await?;
    let (id, was_known) = accepted(submitted, id, &name, conversation)?;
    let taken = Accepted {
        id,
        agent: name,
        trace_id: wish.trace_id,
        was_known,
    };
    Ok((taken, origin))
}

fn check_size(wish: &Branch) -> Result<(), Error> {
    let invalid = |field, message: String| Err(Error::Invalid { field, message });
    let size = wish
        .input
        .as_ref()
        .map_or(0, |input| input.to_string().len());
    if size > MAX_INPUT_BYTES {
        let message = format!("it has {size} bytes of JSON, at most {MAX_INPUT_BYTES} are taken");
        return invalid("task_data", message);
    }
    match &wish.message {
        Some(text) if text.trim().is_empty() => {
            invalid("message", "it is empty; leave it out".to_owned())
        }
        Some(text) if text.len() > MAX_INPUT_BYTES => invalid(
            "message",
            format!(
                "it has {} bytes, at most {MAX_INPUT_BYTES} are taken",
                text.len()
            ),
        ),
        _ => Ok(()),
    }
}

fn check_status(row: &ExecutionRow, cut: Cut) -> Result<(), Error> {
    let id = row.execution.id;
    let refuse = |message: String| {
        Err(Error::CanNotBranch {
            status: row.status,
            message,
        })
    };
    match cut {
        Cut::Anew | Cut::LastStep if !row.status.is_terminal() => refuse(format!(
            "execution {id} is not over: it is {}; cancel it first, or fork it at one of its steps",
            row.status
        )),
        Cut::LastStep if row.status == Status::Completed => refuse(format!(
            "execution {id} is completed: there is nothing to go on with; retry it anew, or fork it at one of its steps"
        )),
        Cut::After(step) if step > row.steps => Err(Error::Invalid {
            field: "from_step",
            message: format!(
                "execution {id} has {} steps; step {step} is not there",
                row.steps
            ),
        }),
        Cut::LastStep | Cut::After(1..) if row.execution.mode == ExecutionMode::Collaborative => {
            refuse(format!(
                "execution {id} is a collaboration, whose plan can't be shared; retry it anew"
            ))
        }
        Cut::Anew | Cut::LastStep | Cut::After(_) => Ok(()),
    }
}

/// The steps before the cut, its end not among them.
async fn shared_steps(core: &Shared, row: &ExecutionRow, cut: Cut) -> Result<Vec<Step>, Error> {
    let most = match cut {
        Cut::Anew => 0,
        Cut::LastStep => row.steps,
        Cut::After(steps) => steps,
    } as usize;
    let mut steps: Vec<Step> = Vec::new();
    while steps.len() < most {
        let after = steps.last().map(|step| step.seq);
        let limit = PAGE.min(most - steps.len());
        let more = core
            .ports
            .store
            .steps(row.execution.id, after, limit)
            .await?;
        if more.is_empty() {
            break;
        }
        steps.extend(more);
    }
    if matches!(steps.last(), Some(last) if matches!(last.body, StepBody::Finished { .. })) {
        steps.pop();
    }
    Ok(steps)
}

/// What is shared: the journal up to the cut, or to the beginning of the turn that it is in.
fn origin(row: &ExecutionRow, wish: &Branch, steps: Vec<Step>) -> Result<Origin, Error> {
    let refuse = |message: String| Error::CanNotBranch {
        status: row.status,
        message,
    };
    let execution = &row.execution;
    let loads_history = execution.history.is_empty() && execution.conversation.is_some();
    let mut state = State::new(execution);
    let mut before_turn = 0;
    for step in &steps {
        if let StepBody::ModelCall(call) = &step.body {
            before_turn = step.seq.get() - 1;
            if loads_history && matches!(call.purpose, Purpose::Summary { .. }) {
                return Err(refuse(format!(
                    "step {} summarised the conversation as it was then, which is gone; retry it anew",
                    step.seq
                )));
            }
        }
        state
            .apply(step)
            .map_err(|illegal| refuse(format!("its journal does not add up: {illegal}")))?;
    }
    let last = steps.last().map_or(0, |step| step.seq.get());
    let is_within_turn = matches!(state.turn, Turn::Tools(_));
    let shared = match wish.cut {
        Cut::After(_) if is_within_turn => before_turn,
        Cut::Anew | Cut::LastStep | Cut::After(_) => last,
    };
    let mut seams: Vec<Seam> = execution
        .origin
        .iter()
        .flat_map(Origin::all_seams)
        .collect();
    seams.retain(|seam| seam.after <= shared && (seam.after > 0 || seam.message.is_some()));
    if seams.len() >= MAX_SEAMS {
        return Err(refuse(format!(
            "it goes back through {MAX_SEAMS} other executions already; submit the task anew"
        )));
    }
    // Before the first step there is nothing to add to: the message is the task.
    let is_task = wish.cut == Cut::After(0) && wish.input.is_none();
    Ok(Origin {
        id: execution.id,
        steps: shared,
        message: wish.message.clone().filter(|_| !is_task),
        seams,
    })
}

async fn execution(
    core: &Shared,
    row: &ExecutionRow,
    agent: &Agent,
    wish: &Branch,
    origin: Origin,
) -> Result<Execution, Error> {
    let old = &row.execution;
    let is_current = wish.is_current || wish.cut == Cut::Anew;
    let (version, definition) = if is_current {
        (agent.version.clone(), agent.definition.clone())
    } else {
        let kept = core.definitions.get(&old.agent, &old.version).await?;
        let definition = kept.map_err(|failure| Error::CanNotBranch {
            status: row.status,
            message: format!("{}; retry it anew", failure.message),
        })?;
        (old.version.clone(), definition)
    };
    // A fork is another story: it stands outside the conversation, and knows what had been said there.
    let is_fork = matches!(wish.cut, Cut::After(_));
    let history = match &old.conversation {
        Some(_) if is_fork && old.history.is_empty() => said_before(core, old, &definition).await?,
        _ => old.history.clone(),
    };
    let input = match (&wish.input, &wish.message) {
        (Some(input), _) => input.clone(),
        (None, Some(message)) if origin.message.is_none() => Value::String(message.clone()),
        (None, _) => old.input.clone(),
    };
    let now = core.now();
    let longest = Duration::from_secs(definition.longest_seconds());
    Ok(Execution {
        id: ExecutionId::from_uuid((core.new_id)()),
        agent: old.agent.clone(),
        version,
        mode: definition.execution_mode,
        input,
        history,
        conversation: old.conversation.clone().filter(|_| !is_fork),
        priority: old.priority,
        created_at: now,
        deadline: now + wish.timeout.unwrap_or(longest).min(longest),
        budget: old.budget.and(wish.budget),
        trace_id: wish.trace_id.clone(),
        upstream: wish.upstream,
        parent: None,
        origin: Some(origin),
        event_id: None,
        hops: old.hops,
        restored: old.restored,
        callback_url: old.callback_url.clone().filter(|_| !is_fork),
        metadata: wish
            .metadata
            .clone()
            .unwrap_or_else(|| old.metadata.clone()),
    })
}

/// What the conversation holds from before an execution's own message.
async fn said_before(
    core: &Shared,
    old: &Execution,
    definition: &Definition,
) -> Result<Vec<Message>, Error> {
    let Some(conversation) = &old.conversation else {
        return Ok(Vec::new());
    };
    let most = pruning::to_load(definition);
    let store = &core.ports.store;
    let mut said = store.conversation(&old.agent, conversation, most).await?;
    let own = old.prompt();
    let is_own = |message: &Message| matches!(message, Message::User { text } if *text == own);
    if let Some(at) = said.iter().rposition(is_own) {
        said.truncate(at);
    }
    Ok(said)
}
