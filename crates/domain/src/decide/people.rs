//! Asking people, and what becomes of a question that nobody answers.

use chrono::TimeDelta;
use serde_json::Value;

use super::calls::Next;
use crate::Time;
use crate::definition::{Definition, OnApprovalTimeout, OnClarificationTimeout};
use crate::execution::{Execution, FailureCode};
use crate::id::Seq;
use crate::state::Call;
use crate::step::{Answer, CallTarget, InputReceived, InputRequest, Question, StepBody};

/// Who answers in the place of a person who did not.
pub(crate) const TIME_OUT: &str = "time-out";
/// How long after its end a question is given up. An answer that was taken just in time must have come by then.
const GRACE: TimeDelta = TimeDelta::seconds(1);

/// When a question that can be answered until `until` is given up.
pub fn expiry(until: Time) -> Time {
    until.checked_add_signed(GRACE).unwrap_or(until)
}

/// What it means that nobody answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Silence {
    /// There is no answer, and it goes on without.
    Expired,
    /// Yes.
    Consent,
    /// The end.
    Failure,
}

/// What silence about a question means: what the agent says.
pub(crate) const fn silence(definition: &Definition, question: &Question) -> Silence {
    match question {
        Question::Clarification { .. } => match definition.on_clarification_timeout {
            OnClarificationTimeout::Continue => Silence::Expired,
            OnClarificationTimeout::Fail => Silence::Failure,
        },
        Question::Approval { .. } | Question::Plan { .. } => match definition.on_approval_timeout {
            OnApprovalTimeout::Deny => Silence::Expired,
            OnApprovalTimeout::Approve => Silence::Consent,
            OnApprovalTimeout::Fail => Silence::Failure,
        },
        Question::UnknownOutcome { .. } => Silence::Expired,
    }
}

/// Asks whether a call may be made with exactly these arguments.
pub(super) fn approval(
    definition: &Definition,
    execution: &Execution,
    call: &Call,
    now: Time,
) -> StepBody {
    let arguments: Value = serde_json::from_str(&call.wish.arguments).unwrap_or_default();
    let (name, target) = (&call.wish.name, &call.target);
    let entry = match target {
        CallTarget::Tool { entry, .. } => entry,
        CallTarget::Agent { .. } | CallTarget::Person | CallTarget::Refused { .. } => name,
    };
    let otherwise = match definition.on_approval_timeout {
        OnApprovalTimeout::Deny => "the call is not made, and the model is told",
        OnApprovalTimeout::Approve => "the call is made",
        OnApprovalTimeout::Fail => "the execution fails",
    };
    let question = Question::Approval {
        tool: name.clone(),
        arguments: call.wish.arguments.clone(),
    };
    let until = until(execution, definition.approval_timeout_seconds, now);
    ask(definition, call, question, until, |request| {
        request.why = definition.approval_reason(entry, name, &arguments);
        request.otherwise = Some(otherwise.to_owned());
    })
}

/// Asks what the model wants to know.
pub(super) fn clarification(
    definition: &Definition,
    execution: &Execution,
    call: &Call,
    now: Time,
) -> StepBody {
    let otherwise = match definition.on_clarification_timeout {
        OnClarificationTimeout::Continue => "the model is told that nobody answered",
        OnClarificationTimeout::Fail => "the execution fails",
    };
    let question = Question::Clarification {
        text: question_of(&call.wish.arguments),
    };
    let until = until(execution, definition.clarification_timeout_seconds, now);
    ask(definition, call, question, until, |request| {
        request.otherwise = Some(otherwise.to_owned());
    })
}

/// Asks whether a call happened.
pub(super) fn unknown_outcome(
    definition: &Definition,
    execution: &Execution,
    call: &Call,
    key: &str,
    known: &str,
) -> StepBody {
    let question = Question::UnknownOutcome {
        tool: call.wish.name.clone(),
        arguments: call.wish.arguments.clone(),
        key: key.to_owned(),
        known: known.to_owned(),
    };
    ask(definition, call, question, execution.deadline, |_| {})
}

fn ask(
    definition: &Definition,
    call: &Call,
    question: Question,
    until: Time,
    more: impl FnOnce(&mut InputRequest),
) -> StepBody {
    let mut request = InputRequest {
        call: call.call,
        question,
        until,
        why: None,
        answered_by: definition.answered_by.clone(),
        otherwise: None,
    };
    more(&mut request);
    StepBody::InputRequested(request)
}

/// Until when a question can be answered that is asked now and has so much time.
pub(crate) fn until(execution: &Execution, seconds: Option<u64>, now: Time) -> Time {
    let patience = seconds.and_then(|seconds| TimeDelta::try_seconds(seconds.try_into().ok()?));
    let until = patience.and_then(|patience| now.checked_add_signed(patience));
    until.map_or(execution.deadline, |until| until.min(execution.deadline))
}

/// What becomes of a question that nobody answered: what the agent says, and the journal tells it.
pub(super) fn unanswered(
    definition: &Definition,
    call: &Call,
    (request, question, until): (Seq, &Question, Time),
) -> Next {
    let received = |answer: Answer| {
        Box::new(StepBody::InputReceived(InputReceived {
            request,
            answer,
            by: TIME_OUT.to_owned(),
        }))
    };
    match silence(definition, question) {
        Silence::Expired => return Next::Record(received(Answer::Expired)),
        Silence::Consent => return Next::Record(received(Answer::Approve)),
        Silence::Failure => {}
    }
    Next::Fail {
        code: FailureCode::NobodyAnswered,
        message: format!(
            "nobody answered the {} about {:?} by {}, and the agent says to fail then",
            question.kind(),
            call.wish.name,
            until.to_rfc3339()
        ),
        because: Some(received(Answer::Expired)),
    }
}

fn question_of(arguments: &str) -> String {
    serde_json::from_str::<Value>(arguments)
        .ok()
        .and_then(|value| {
            value
                .get("question")
                .and_then(|q| q.as_str())
                .map(str::to_owned)
        })
        .unwrap_or_else(|| arguments.to_owned())
}
