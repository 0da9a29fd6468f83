//! What tool calls need next: a person, a run, another agent, or nothing more.

use super::people::{self, expiry};
use super::{Action, Facts, MAX_CALLS_PER_TURN, ToolRun, end, fail, limits};
use crate::Time;
use crate::budget::Exceeded;
use crate::definition::{Definition, Effect, OnUnknown};
use crate::execution::{Execution, FailureCode};
use crate::id::{AgentName, Epoch, ExecutionId, Seq};
use crate::state::{Call, Progress, State};
use crate::step::{CallTarget, StepBody, ToolIntent, ToolOutcome, ToolResult};

/// How often an idempotent call of unknown outcome is repeated before a person is asked.
const MAX_REPEATS: u32 = 3;

pub(super) fn tools_turn(
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

pub(super) fn reserve_tool_calls(
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
pub(super) enum Next {
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
        pin: match &call.target {
            CallTarget::Tool { pin, .. } => pin.clone(),
            CallTarget::Agent { .. } | CallTarget::Person | CallTarget::Refused { .. } => None,
        },
    })
}

fn entry_of<'a>(definition: &'a Definition, call: &Call) -> Option<&'a crate::definition::Tool> {
    match &call.target {
        CallTarget::Tool { entry, .. } => definition.tool(entry),
        CallTarget::Agent { .. } | CallTarget::Person | CallTarget::Refused { .. } => None,
    }
}
