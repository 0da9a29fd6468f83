//! What is done about a model call that failed.

use std::time::Duration;

use super::ModelRun;
use crate::Time;
use crate::definition::Definition;
use crate::execution::{Execution, Failure, FailureCode, Outcome};
use crate::prompt::{Prompt, Purpose};
use crate::pruning;
use crate::retry::ModelErrorClass;
use crate::state::{State, Turn};
use crate::step::{ModelFailure, Remedy, StepBody};

/// What a failed model call leads to: another try later, another model, or the end. `jitter` is 0 to 1.
pub fn after_model_failure(
    definition: &Definition,
    execution: &Execution,
    state: &State,
    run: &ModelRun,
    failure: (ModelErrorClass, String, Option<Duration>),
    now: Time,
    jitter: f64,
) -> StepBody {
    let (class, message, retry_after) = failure;
    let (choice, attempt) = match &state.turn {
        Turn::Model(turn) => (turn.choice, turn.attempt + 1),
        Turn::Tools(_) | Turn::Answered { .. } | Turn::Done(_) => (0, 1),
    };
    let retry = &definition.retry_config;
    if now < execution.deadline
        && let Some(remedy) = remedy(definition, state, run, class)
    {
        let reason = ModelFailure {
            class,
            message,
            next_choice: choice,
            attempt: attempt - 1,
            remedy,
        };
        return StepBody::Timer { until: now, reason };
    }
    if now >= execution.deadline {
        // Not a failure of the model: deciding again ends the execution by its deadline.
        let reason = ModelFailure {
            class,
            message,
            next_choice: choice,
            attempt,
            remedy: Remedy::None,
        };
        return StepBody::Timer { until: now, reason };
    }
    if class.is_retryable() && attempt <= retry.max_retries {
        let until = now + retry.delay(attempt, jitter, retry_after);
        if until < execution.deadline {
            return StepBody::Timer {
                until,
                reason: ModelFailure {
                    class,
                    message,
                    next_choice: choice,
                    attempt,
                    remedy: Remedy::None,
                },
            };
        }
    }
    if run.purpose.model(definition).choice(choice + 1).is_some() {
        return StepBody::Timer {
            until: now,
            reason: ModelFailure {
                class,
                message,
                next_choice: choice + 1,
                attempt: 0,
                remedy: Remedy::None,
            },
        };
    }
    let code = match class {
        ModelErrorClass::Refused => FailureCode::ModelRefused,
        _ if class.is_retryable() => FailureCode::ModelUnavailable,
        _ => FailureCode::ModelRejected,
    };
    let tries = match (attempt, code) {
        _ if class == ModelErrorClass::ContextTooLong => too_long(state),
        (0 | 1, _) => String::new(),
        (_, FailureCode::ModelUnavailable) => format!(
            " (after {attempt} tries; submit it again later, or raise retry_config.max_retries)"
        ),
        _ => format!(" (after {attempt} tries)"),
    };
    StepBody::Finished {
        outcome: Outcome::Failed(Failure {
            code,
            message: format!("{message}{tries}"),
        }),
    }
}

/// What can be done about a failure other than trying the same again.
fn remedy(
    definition: &Definition,
    state: &State,
    run: &ModelRun,
    class: ModelErrorClass,
) -> Option<Remedy> {
    match run.purpose {
        // It is a help, not a need.
        Purpose::Summary { .. } => Some(Remedy::NoSummary),
        Purpose::Turn if class == ModelErrorClass::ContextTooLong => {
            pruning::tighter(state, run.fit).map(|bytes| Remedy::Prune { bytes })
        }
        Purpose::Turn => None,
        Purpose::Plan | Purpose::Review | Purpose::Judge | Purpose::Conclude
            if class == ModelErrorClass::ContextTooLong
                && state.squeezes < pruning::MAX_SQUEEZES =>
        {
            let prompt = Prompt::new(definition, state, run.purpose, run.fit);
            let shown: usize = prompt.messages.iter().map(crate::Message::bytes).sum();
            let bytes = u64::try_from(shown / 2).unwrap_or(u64::MAX);
            Some(Remedy::Prune { bytes })
        }
        Purpose::Plan | Purpose::Review | Purpose::Judge | Purpose::Conclude => None,
    }
}

fn too_long(state: &State) -> String {
    let pruned = match state.squeezes {
        0 => String::new(),
        1 => ", also after older messages were left out".to_owned(),
        times => format!(", also after older messages were left out {times} times"),
    };
    format!(
        " (what the model is shown is longer than it can read{pruned}: use a model with a longer context, or shorten the task, the system prompt or the tools' descriptions)"
    )
}
