//! A coordinator's next thing as an action: [`team::next`] names it, budget and deadline bound it.

use super::calls::reserve_tool_calls;
use super::{Action, Facts, end, fail, models_turn};
use crate::definition::Definition;
use crate::execution::{Execution, FailureCode};
use crate::state::{ModelTurn, State};
use crate::step::StepBody;
use crate::team;

/// What a coordinator does, as long as its answer is not there.
pub(super) fn next(
    definition: &Definition,
    execution: &Execution,
    state: &State,
    turn: &ModelTurn,
    facts: &Facts,
) -> Action {
    match team::next(definition, execution, state, facts) {
        team::Next::Record(bodies) => {
            let begins = |body: &&StepBody| matches!(body, StepBody::ChildStarted { .. });
            let beginning = bodies.iter().filter(begins).count();
            match reserve_tool_calls(definition, execution, state, facts, beginning) {
                Ok(()) => Action::Record(bodies),
                Err(exceeded) => {
                    let outcome = fail(FailureCode::BudgetExceeded, exceeded.to_string());
                    end(state, facts, outcome)
                }
            }
        }
        team::Next::Ask(purpose) => {
            models_turn(definition, execution, state, (turn, purpose), facts)
        }
        team::Next::Wait(until) => Action::Park {
            until: until.unwrap_or(execution.deadline).min(execution.deadline),
        },
        team::Next::Fail(code, message) => end(state, facts, fail(code, message)),
        team::Next::Unanswered(received, message) => {
            let mut end = end(state, facts, fail(FailureCode::NobodyAnswered, message));
            if let Action::Record(bodies) = &mut end {
                bodies.insert(0, StepBody::InputReceived(received));
            }
            end
        }
    }
}
