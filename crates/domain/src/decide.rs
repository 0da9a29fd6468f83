//! What happens next: a pure function of definition, execution and state. The engine performs the one action that
//! it names, journals the outcome, and asks again.

mod coordinate;
mod failure;
pub(crate) mod people;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Time;
use crate::budget::{BudgetLimits, Exceeded};
use crate::definition::{Definition, Effect, ExecutionMode, LlmConfig, OnUnknown};
use crate::execution::{Execution, Failure, FailureCode, Outcome, Totals};
use crate::id::{AgentName, Epoch, ExecutionId, Seq};
use crate::message::StopReason;
use crate::prompt::{Prompt, Purpose};
use crate::pruning::{self, Fit};
use crate::quantity::Tokens;
use crate::retry::ModelErrorClass;
use crate::state::{Call, ModelTurn, Progress, State, Turn};
use crate::step::{
    CallRef, CallTarget, ModelFailure, Remedy, StepBody, ToolIntent, ToolOutcome, ToolResult,
};
use crate::team::Member;

pub use failure::after_model_failure;
pub use people::expiry;

/// How many tool calls of one answer are made; the model is told of the others that they were not.
pub const MAX_CALLS_PER_TURN: usize = 64;
/// How often an answer that misses `output_schema` is sent back.
pub const MAX_REPAIRS: u32 = 2;
/// How often an idempotent call of unknown outcome is repeated before a person is asked.
const MAX_REPEATS: u32 = 3;

/// The world as far as the decision depends on it.
#[derive(Debug, Clone)]
pub struct Facts {
    /// The time.
    pub now: Time,
    /// The epoch of the lease under which the action would be performed.
    pub epoch: Epoch,
    /// Whether somebody wants it to end.
    pub cancel: Option<Cancel>,
    /// The tool calls that are under way in this very process.
    pub in_flight: BTreeSet<CallRef>,
    /// What the agent consumed today, this execution aside.
    pub spent_today: Totals,
    /// How much the model reads and writes together, if it is known: the one whose turn it is.
    pub context_window: Option<Tokens>,
    /// The agents that take work; told only while a coordinator has no team ([`wants_team`]).
    pub agents: Vec<Member>,
}

/// Somebody's word that an execution is to end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cancel {
    /// Whose.
    pub by: String,
    /// Why.
    pub reason: String,
}

/// The next thing to do.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Journal these and ask again. They need not be durable before the next action is known, only before it is
    /// performed.
    Record(Vec<StepBody>),
    /// Call the model.
    CallModel(Box<ModelRun>),
    /// Begin these tool calls; others may be under way.
    RunTools(Vec<ToolRun>),
    /// Wait for the tool calls that are under way.
    AwaitTools,
    /// Let go of it until something comes (an answer, a child's end) or a time is reached.
    Park {
        /// The time.
        until: Time,
    },
    /// It is over.
    Done(Outcome),
}

/// A model call to make.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelRun {
    /// What for; [`crate::Prompt`] says what to ask with.
    pub purpose: Purpose,
    /// Which model and how.
    pub config: LlmConfig,
    /// The bounds of what it is shown.
    pub fit: Fit,
    /// The longest answer that the budget leaves room for.
    pub max_tokens: Option<Tokens>,
    /// How long it may take.
    pub timeout: Duration,
}

/// A tool call to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ToolRun {
    /// Which call.
    pub call: CallRef,
    /// The entry of the definition's `tools`.
    pub entry: String,
    /// The tool's name.
    pub tool: String,
    /// The arguments as JSON text.
    pub arguments: String,
    /// The idempotency key to send.
    pub key: String,
    /// What is known of its effect.
    pub effect: Effect,
    /// Whether to ask the entry's `check` tool first whether an earlier call happened.
    pub check_first: bool,
}

/// Names the next action.
pub fn decide(
    definition: &Definition,
    execution: &Execution,
    state: &State,
    facts: &Facts,
) -> Action {
    if let Turn::Done(outcome) = &state.turn {
        return Action::Done(outcome.clone());
    }
    if let Some(Cancel { by, reason }) = &facts.cancel {
        return end(
            state,
            facts,
            Outcome::Cancelled {
                by: by.clone(),
                reason: reason.clone(),
            },
        );
    }
    if facts.now >= execution.deadline {
        let message = format!(
            "not done by its deadline {}; {}",
            execution.deadline.to_rfc3339(),
            progress_in_words(state)
        );
        return end(state, facts, Outcome::Timeout { message });
    }
    match &state.turn {
        Turn::Model(turn) if state.team.is_some() || wants_team(execution, state) => {
            coordinate::next(definition, execution, state, turn, facts)
        }
        Turn::Model(turn) => {
            models_turn(definition, execution, state, (turn, Purpose::Turn), facts)
        }
        Turn::Tools(calls) => tools_turn(definition, execution, state, calls, facts),
        Turn::Answered {
            output,
            structured,
            stop,
            violations,
        } => answered(state, facts, output, structured.as_ref(), *stop, violations),
        Turn::Done(outcome) => Action::Done(outcome.clone()),
    }
}

/// Whether the next thing is to find out who may take part.
pub fn wants_team(execution: &Execution, state: &State) -> bool {
    execution.mode == ExecutionMode::Collaborative
        && state.team.is_none()
        && state.totals.model_calls == 0
}

/// The limits that hold for an execution: its definition's and its request's, whichever is tighter.
pub fn limits(definition: &Definition, execution: &Execution) -> BudgetLimits {
    definition.budget.per_execution().and(execution.budget)
}

fn models_turn(
    definition: &Definition,
    execution: &Execution,
    state: &State,
    (turn, purpose): (&ModelTurn, Purpose),
    facts: &Facts,
) -> Action {
    if let Some(until) = turn.not_before
        && until > facts.now
    {
        return Action::Park {
            until: until.min(execution.deadline),
        };
    }
    let turns = state.totals.model_calls.saturating_sub(state.summaries);
    if turns >= definition.max_steps {
        let message = format!(
            "not done after max_steps = {} turns of the model; raise max_steps or narrow the task",
            definition.max_steps
        );
        return end(state, facts, fail(FailureCode::MaxStepsExceeded, message));
    }
    let Some(config) = purpose.model(definition).choice(turn.choice) else {
        let message = "the journal names a fallback model that the definition lacks".to_owned();
        return end(state, facts, fail(FailureCode::Corrupt, message));
    };
    let fit = pruning::fit(definition, execution, state, &config, facts.context_window);
    // Without room for it in the budget, older messages are left out instead.
    if purpose.is_turn()
        && let Some(covers) = pruning::to_summarise(definition, state, fit)
    {
        let purpose = Purpose::Summary { covers };
        let prompt = Prompt::new(definition, state, purpose, fit).estimate();
        if let Ok(room) = reserve(definition, execution, state, facts, prompt) {
            return call(execution, facts, (purpose, fit), config, room);
        }
    }
    let prompt = Prompt::new(definition, state, purpose, fit).estimate();
    match reserve(definition, execution, state, facts, prompt) {
        Err(exceeded) => end(
            state,
            facts,
            fail(FailureCode::BudgetExceeded, exceeded.to_string()),
        ),
        Ok(room) => call(execution, facts, (purpose, fit), config, room),
    }
}

fn call(
    execution: &Execution,
    facts: &Facts,
    (purpose, fit): (Purpose, Fit),
    config: LlmConfig,
    room: Option<Tokens>,
) -> Action {
    let max_tokens = match (config.max_tokens, room) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    };
    let left = (execution.deadline - facts.now)
        .to_std()
        .unwrap_or_default();
    let timeout = Duration::from_secs(config.timeout).min(left);
    Action::CallModel(Box::new(ModelRun {
        purpose,
        config,
        fit,
        max_tokens,
        timeout,
    }))
}

fn reserve(
    definition: &Definition,
    execution: &Execution,
    state: &State,
    facts: &Facts,
    prompt: Tokens,
) -> Result<Option<Tokens>, Exceeded> {
    let granted = state.team.as_ref().map(|team| team.granted());
    let own = limits(definition, execution).without(granted.unwrap_or_default());
    let own = own.reserve_model_call(&state.spent(), prompt)?;
    let Some(per_day) = definition.budget.per_day else {
        return Ok(own);
    };
    let mut today = facts.spent_today;
    today.usage += state.totals.usage;
    today.cost_usd += state.totals.cost_usd;
    let days = per_day.reserve_model_call(&today, prompt)?;
    Ok(match (own, days) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    })
}

fn answered(
    state: &State,
    facts: &Facts,
    output: &str,
    structured: Option<&serde_json::Value>,
    stop: StopReason,
    violations: &[String],
) -> Action {
    if stop == StopReason::Refusal {
        let message = format!(
            "the model declined to answer: {}",
            if output.is_empty() {
                "no reason given"
            } else {
                output
            }
        );
        return end(state, facts, fail(FailureCode::ModelRefused, message));
    }
    if violations.is_empty() {
        return end(
            state,
            facts,
            Outcome::Completed {
                output: output.to_owned(),
                structured: structured.cloned(),
                stop,
            },
        );
    }
    if state.repairs >= MAX_REPAIRS {
        let message = format!(
            "the answer does not meet output_schema, also after {MAX_REPAIRS} requests: {}",
            violations.join("; ")
        );
        return end(state, facts, fail(FailureCode::OutputInvalid, message));
    }
    Action::Record(vec![StepBody::Timer {
        until: facts.now,
        reason: ModelFailure {
            class: ModelErrorClass::Garbled,
            message: format!(
                "the answer does not meet output_schema: {}",
                violations.join("; ")
            ),
            next_choice: 0,
            attempt: 0,
            remedy: Remedy::None,
        },
    }])
}

fn tools_turn(
    definition: &Definition,
    execution: &Execution,
    state: &State,
    calls: &[Call],
    facts: &Facts,
) -> Action {
    let beginning = calls.iter().filter(|c| begins(c)).count();
    if let Err(exceeded) = reserve_tool_calls(definition, execution, state, facts, beginning) {
        return end(
            state,
            facts,
            fail(FailureCode::BudgetExceeded, exceeded.to_string()),
        );
    }
    let mut records = Vec::new();
    let mut runs = Vec::new();
    for call in calls {
        let next = u32::try_from(records.len()).unwrap_or(u32::MAX);
        match advance(
            definition,
            execution,
            call,
            state.next_seq.plus(next),
            facts,
        ) {
            Next::Record(body) => records.push(*body),
            Next::Run(run) => runs.push(run),
            Next::Fail {
                code,
                message,
                because,
            } => {
                let mut end = end(state, facts, fail(code, message));
                if let (Action::Record(bodies), Some(because)) = (&mut end, because) {
                    bodies.insert(0, *because);
                }
                return end;
            }
            Next::Wait => {}
        }
    }
    if !records.is_empty() {
        return Action::Record(records);
    }
    if !runs.is_empty() {
        return Action::RunTools(runs);
    }
    if !facts.in_flight.is_empty() {
        return Action::AwaitTools;
    }
    let expiry = state.open_requests().map(|(_, _, until)| expiry(until));
    Action::Park {
        until: expiry
            .chain([execution.deadline])
            .min()
            .unwrap_or(execution.deadline),
    }
}

fn reserve_tool_calls(
    definition: &Definition,
    execution: &Execution,
    state: &State,
    facts: &Facts,
    beginning: usize,
) -> Result<(), Exceeded> {
    if beginning == 0 {
        return Ok(());
    }
    let beginning = u32::try_from(beginning).unwrap_or(u32::MAX);
    limits(definition, execution).reserve_tool_calls(&state.spent(), beginning)?;
    if let Some(per_day) = definition.budget.per_day {
        let mut today = facts.spent_today;
        today.tool_calls = today.tool_calls.saturating_add(state.totals.tool_calls);
        per_day.reserve_tool_calls(&today, beginning)?;
    }
    Ok(())
}

/// Whether the call is about to begin, and so counts against the budget.
fn begins(call: &Call) -> bool {
    usize::from(call.call.index) < MAX_CALLS_PER_TURN
        && match (&call.progress, &call.target) {
            (
                Progress::Proposed,
                CallTarget::Tool { approval, .. } | CallTarget::Agent { approval, .. },
            ) => !approval,
            // Allowed by a person; a repetition was counted when it was begun first.
            (Progress::Allowed { key }, _) => key.is_none(),
            _ => false,
        }
}

/// What one call needs next.
enum Next {
    Record(Box<StepBody>),
    Run(ToolRun),
    Fail {
        code: FailureCode,
        message: String,
        /// What led to it.
        because: Option<Box<StepBody>>,
    },
    Wait,
}

fn advance(
    definition: &Definition,
    execution: &Execution,
    call: &Call,
    seq: Seq,
    facts: &Facts,
) -> Next {
    match &call.progress {
        Progress::Proposed => {
            Next::Record(Box::new(propose(definition, execution, call, seq, facts)))
        }
        Progress::Allowed { key } => Next::Record(Box::new(match &call.target {
            CallTarget::Agent { agent, .. } => delegate(definition, execution, call, agent, seq),
            CallTarget::Tool { .. } | CallTarget::Person | CallTarget::Refused { .. } => {
                intent(execution, call, seq, key.clone())
            }
        })),
        Progress::Intended {
            epoch,
            key,
            by_word,
        } => {
            // What it did after the backup that it came back from is forgotten: the call may be among it.
            let forgotten = execution.restored.filter(|_| !by_word);
            in_doubt_or_new(definition, call, (*epoch, key), forgotten, facts)
        }
        Progress::Unknown { key, times, known } => {
            unknown(definition, execution, call, (key, *times, known), facts)
        }
        Progress::Asked {
            request,
            question,
            until,
        } if expiry(*until) <= facts.now => {
            people::unanswered(definition, call, (*request, question, *until))
        }
        Progress::Asked { .. } | Progress::Delegated { .. } | Progress::Settled(_) => Next::Wait,
    }
}

fn propose(
    definition: &Definition,
    execution: &Execution,
    call: &Call,
    seq: Seq,
    facts: &Facts,
) -> StepBody {
    if usize::from(call.call.index) >= MAX_CALLS_PER_TURN {
        return refuse(
            call,
            format!("not called: at most {MAX_CALLS_PER_TURN} calls are made at once"),
        );
    }
    match &call.target {
        CallTarget::Refused { message } => refuse(call, message.clone()),
        // Before anybody is asked: a person's word would not help.
        CallTarget::Agent { .. } if is_too_deep(definition, execution) => {
            let deepest = execution.deepest(definition.max_delegation_depth);
            refuse(
                call,
                format!("not called: agents delegate at most {deepest} deep here"),
            )
        }
        CallTarget::Tool { approval: true, .. } | CallTarget::Agent { approval: true, .. } => {
            people::approval(definition, execution, call, facts.now)
        }
        CallTarget::Tool { .. } => intent(execution, call, seq, None),
        CallTarget::Person => people::clarification(definition, execution, call, facts.now),
        CallTarget::Agent { agent, .. } => delegate(definition, execution, call, agent, seq),
    }
}

fn refuse(call: &Call, message: String) -> StepBody {
    StepBody::ToolResult(ToolResult {
        call: call.call,
        outcome: ToolOutcome::Refused { message },
        took_ms: 0,
    })
}

fn is_too_deep(definition: &Definition, execution: &Execution) -> bool {
    execution.depth() >= execution.deepest(definition.max_delegation_depth)
}

fn delegate(
    definition: &Definition,
    execution: &Execution,
    call: &Call,
    agent: &AgentName,
    seq: Seq,
) -> StepBody {
    if is_too_deep(definition, execution) {
        return refuse(call, "not called: it would be too deep".to_owned());
    }
    StepBody::ChildStarted {
        call: call.call,
        child: ExecutionId::child_of(execution.id, seq),
        agent: agent.clone(),
        budget: None,
    }
}

fn intent(execution: &Execution, call: &Call, seq: Seq, key: Option<String>) -> StepBody {
    StepBody::ToolIntent(ToolIntent {
        call: call.call,
        tool: call.wish.name.clone(),
        effect: call.effect().unwrap_or_default(),
        key: key.unwrap_or_else(|| format!("{}-{seq}", execution.id)),
    })
}

/// A call with an intent and no result: new in this lease, under way, left behind by a lost worker, or one that may have
/// been made in a time that is forgotten.
fn in_doubt_or_new(
    definition: &Definition,
    call: &Call,
    (epoch, key): (Epoch, &str),
    forgotten: Option<Time>,
    facts: &Facts,
) -> Next {
    if facts.in_flight.contains(&call.call) {
        return Next::Wait;
    }
    let effect = call.effect().unwrap_or_default();
    let inherited = epoch < facts.epoch;
    match (inherited || forgotten.is_some(), effect) {
        (true, Effect::Unsafe) => {
            let message = match forgotten {
                Some(backup) => format!(
                    "this work was restored from a backup made at {}; what it did later is forgotten, and the call may be among it",
                    backup.format("%Y-%m-%d %H:%M:%S UTC")
                ),
                None => "the worker was lost between the call and its answer; it may or may not have happened".to_owned(),
            };
            Next::Record(Box::new(StepBody::ToolResult(ToolResult {
                call: call.call,
                outcome: ToolOutcome::Unknown { message },
                took_ms: 0,
            })))
        }
        (true, Effect::Checkable) => run(definition, call, key, effect, true),
        (_, Effect::ReadOnly | Effect::Idempotent | Effect::Checkable | Effect::Unsafe) => {
            run(definition, call, key, effect, false)
        }
    }
}

fn unknown(
    definition: &Definition,
    execution: &Execution,
    call: &Call,
    (key, times, known): (&str, u32, &str),
    facts: &Facts,
) -> Next {
    if facts.in_flight.contains(&call.call) {
        return Next::Wait;
    }
    let effect = call.effect().unwrap_or_default();
    match effect {
        Effect::ReadOnly | Effect::Idempotent if times < MAX_REPEATS => {
            return run(definition, call, key, effect, false);
        }
        Effect::Checkable if times < MAX_REPEATS => {
            return run(definition, call, key, effect, true);
        }
        Effect::ReadOnly | Effect::Idempotent | Effect::Checkable | Effect::Unsafe => {}
    }
    if entry_of(definition, call).is_some_and(|entry| entry.on_unknown == OnUnknown::Fail) {
        return Next::Fail {
            code: FailureCode::OutcomeUnknown,
            message: format!(
                "the outcome of tool {:?} (key {key}) is unknown: {known}; the agent says on_unknown: fail",
                call.wish.name
            ),
            because: None,
        };
    }
    Next::Record(Box::new(people::unknown_outcome(
        definition, execution, call, key, known,
    )))
}

fn run(definition: &Definition, call: &Call, key: &str, effect: Effect, check_first: bool) -> Next {
    let entry = entry_of(definition, call)
        .map_or_else(|| call.wish.name.clone(), |entry| entry.name.clone());
    Next::Run(ToolRun {
        call: call.call,
        entry,
        tool: call.wish.name.clone(),
        arguments: call.wish.arguments.clone(),
        key: key.to_owned(),
        effect,
        check_first,
    })
}

fn entry_of<'a>(definition: &'a Definition, call: &Call) -> Option<&'a crate::definition::Tool> {
    match &call.target {
        CallTarget::Tool { entry, .. } => definition.tool(entry),
        CallTarget::Agent { .. } | CallTarget::Person | CallTarget::Refused { .. } => None,
    }
}

/// Ends the execution; calls that may have had an effect are recorded as unknown, so that nobody takes silence for
/// "did not happen".
fn end(state: &State, facts: &Facts, outcome: Outcome) -> Action {
    let in_doubt = state.calls().iter().filter(|call| {
        call.effect() != Some(Effect::ReadOnly)
            && matches!(call.progress, Progress::Intended { .. })
    });
    let mut records: Vec<StepBody> = in_doubt
        .map(|call| {
            let message = if facts.in_flight.contains(&call.call) {
                "the execution ended while the call was under way"
            } else {
                "the execution ended before the call's outcome was known"
            };
            StepBody::ToolResult(ToolResult {
                call: call.call,
                outcome: ToolOutcome::Unknown {
                    message: message.to_owned(),
                },
                took_ms: 0,
            })
        })
        .collect();
    records.push(StepBody::Finished { outcome });
    Action::Record(records)
}

const fn fail(code: FailureCode, message: String) -> Outcome {
    Outcome::Failed(Failure { code, message })
}

fn progress_in_words(state: &State) -> String {
    if let Some(team) = &state.team
        && (team.open_request().is_some() || team.running().next().is_some())
    {
        return format!("it waited for {}", team.waits_for());
    }
    match &state.turn {
        Turn::Model(turn) => match &turn.last_failure {
            Some((_, message)) => format!("the model's last try failed: {message}"),
            None => format!(
                "it was the model's turn, after {} answers",
                state.totals.model_calls
            ),
        },
        Turn::Tools(calls) => {
            let open: Vec<&str> = calls
                .iter()
                .filter(|c| !c.is_settled())
                .map(|c| c.wish.name.as_str())
                .collect();
            format!("it waited for {}", open.join(", "))
        }
        Turn::Answered { .. } | Turn::Done(_) => "the answer was there".to_owned(),
    }
}
