//! What happens next: a pure function of definition, execution and state. The engine performs the one action that
//! it names, journals the outcome, and asks again.

mod calls;
mod coordinate;
mod failure;
pub(crate) mod people;

use std::collections::BTreeSet;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::Time;
use crate::budget::{BudgetLimits, Exceeded};
use crate::definition::{Definition, Effect, ExecutionMode, LlmConfig};
use crate::execution::{Execution, Failure, FailureCode, Outcome, Totals};
use crate::id::Epoch;
use crate::message::StopReason;
use crate::pin::Fingerprint;
use crate::prompt::{Prompt, Purpose};
use crate::pruning::{self, Fit};
use crate::quantity::Tokens;
use crate::retry::ModelErrorClass;
use crate::state::{ModelTurn, Progress, State, Turn};
use crate::step::{CallRef, ModelFailure, Remedy, StepBody, ToolOutcome, ToolResult};
use crate::team::Member;

use calls::tools_turn;
pub use failure::after_model_failure;
pub use people::expiry;

/// How many tool calls of one answer are made; the model is told of the others that they were not.
pub const MAX_CALLS_PER_TURN: usize = 64;
/// How often an answer that misses `output_schema` is sent back.
pub const MAX_REPAIRS: u32 = 2;

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
    /// What its server said of it when the model was told.
    pub pin: Option<Fingerprint>,
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
