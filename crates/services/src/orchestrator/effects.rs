//! What an execution did to the world: its tool calls, their keys, and what is known of each.

use axum::Json;
use axum::extract::{Path, State};
use domain::definition::Effect;
use domain::step::{Answer as StepAnswer, CallRef, Question};
use domain::{Seq, Status, Step, StepBody, Time, ToolOutcome};
use serde::Serialize;
use store::ExecutionRow;
use utoipa::ToSchema;

use super::inbox::{AnswerIn, AnsweredOut, deliver};
use crate::execution::journal;
use crate::http::body::JsonBody;
use crate::http::caller::Caller;
use crate::http::error::ErrorBody;
use crate::http::params::{execution_id, no_execution};
use crate::http::{Answer, ApiError, App, Code};

/// The longest result that is shown whole, in characters.
const SHOWN: usize = 2000;

/// A tool call.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EffectOut {
    /// The step that says that it is about to be made; the first one when it was made again.
    seq: u32,
    /// Which call: the step of the model's answer and its place in it.
    call: String,
    /// The tool.
    tool: String,
    /// read_only, idempotent, checkable or unsafe.
    #[schema(value_type = String, example = "unsafe")]
    effect: Effect,
    /// The idempotency key that went with it.
    key: String,
    /// Its arguments as JSON text.
    arguments: Option<String>,
    /// How often it was begun.
    attempts: u32,
    /// When it was first begun.
    #[schema(value_type = String, format = DateTime)]
    at: Time,
    /// succeeded, failed, refused, unknown, or open when it is not settled yet.
    outcome: &'static str,
    /// The result, or what is known; cut when it is long.
    result: Option<String>,
    /// How long the call took.
    took_ms: Option<u64>,
    /// The question to a person that it waits for: settle it by POST …/settle.
    open_request: Option<u32>,
    /// Whether another execution made it, whose steps are shared.
    shared: bool,
}

/// Lists the tool calls of an execution.
#[utoipa::path(get, path = "/tasks/{id}/effects", tag = "tasks", params(("id" = String, Path)), responses(
    (status = 200, body = Vec<EffectOut>),
    (status = 404, body = ErrorBody),
))]
pub(super) async fn list(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Answer<Json<Vec<EffectOut>>> {
    let id = execution_id(&id)?;
    let store = app.engine.store();
    let row = store.execution(id).await?.ok_or_else(|| no_execution(id))?;
    let shared = shared(&row);
    Ok(Json(effects(&journal(&**store, id).await?, shared)))
}

/// How many of its steps are another execution's.
fn shared(row: &ExecutionRow) -> u32 {
    row.execution
        .origin
        .as_ref()
        .map_or(0, |origin| origin.steps)
}

fn effects(steps: &[Step], shared: u32) -> Vec<EffectOut> {
    let mut effects: Vec<(CallRef, EffectOut)> = Vec::new();
    for step in steps {
        match &step.body {
            StepBody::ToolIntent(intent) => {
                match effects.iter_mut().find(|(call, _)| *call == intent.call) {
                    Some((_, effect)) => effect.attempts += 1,
                    None => effects.push((
                        intent.call,
                        EffectOut {
                            seq: step.seq.get(),
                            call: intent.call.to_string(),
                            tool: intent.tool.clone(),
                            effect: intent.effect,
                            key: intent.key.clone(),
                            arguments: arguments(steps, intent.call),
                            attempts: 1,
                            at: step.at,
                            outcome: "open",
                            result: None,
                            took_ms: None,
                            open_request: unknown_request(steps, intent.call, shared).map(Seq::get),
                            shared: step.seq.get() <= shared,
                        },
                    )),
                }
            }
            StepBody::ToolResult(result) => {
                if let Some((_, effect)) = effects.iter_mut().find(|(call, _)| *call == result.call)
                {
                    let (outcome, text) = describe(&result.outcome);
                    effect.outcome = outcome;
                    effect.result = Some(cut(text));
                    effect.took_ms = Some(result.took_ms);
                }
            }
            _ => {}
        }
    }
    effects.into_iter().map(|(_, effect)| effect).collect()
}

fn describe(outcome: &ToolOutcome) -> (&'static str, &str) {
    match outcome {
        ToolOutcome::Succeeded { content, .. } => ("succeeded", content),
        ToolOutcome::Failed { message } => ("failed", message),
        ToolOutcome::Refused { message } => ("refused", message),
        ToolOutcome::Unknown { message } => ("unknown", message),
    }
}

fn cut(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// What it was called with: what a person wrote, or else what the model did.
fn arguments(steps: &[Step], call: CallRef) -> Option<String> {
    let is_about = |seq: Seq| {
        steps.iter().any(|step| {
            step.seq == seq
                && matches!(&step.body, StepBody::InputRequested(asked) if asked.call == call)
        })
    };
    let edited = steps.iter().find_map(|step| match &step.body {
        StepBody::InputReceived(received) if is_about(received.request) => match &received.answer {
            StepAnswer::Edit { arguments } => Some(arguments.clone()),
            _ => None,
        },
        _ => None,
    });
    if edited.is_some() {
        return edited;
    }
    let turn = steps.iter().find(|step| step.seq == call.turn)?;
    match &turn.body {
        StepBody::ModelCall(model) => {
            let calls = &model.reply.tool_calls;
            calls
                .get(usize::from(call.index))
                .map(|call| call.arguments.clone())
        }
        _ => None,
    }
}

/// The unanswered question whether `call` happened.
fn unknown_request(steps: &[Step], call: CallRef, shared: u32) -> Option<Seq> {
    let answered = |seq: Seq| {
        steps.iter().any(|step| {
            matches!(&step.body, StepBody::InputReceived(received) if received.request == seq)
        })
    };
    steps.iter().find_map(|step| match &step.body {
        StepBody::InputRequested(request)
            if request.call == call
                && step.seq.get() > shared
                && matches!(request.question, Question::UnknownOutcome { .. })
                && !answered(step.seq) =>
        {
            Some(step.seq)
        }
        _ => None,
    })
}

/// Settles a tool call of which nobody knows whether it happened: `happened` with its `result`, `repeat`, or `reject`.
#[utoipa::path(post, path = "/tasks/{id}/effects/{seq}/settle", tag = "tasks",
    params(("id" = String, Path), ("seq" = u32, Path, description = "The `seq` of the effect.")),
    request_body = AnswerIn,
    responses(
        (status = 200, description = "It is taken.", body = AnsweredOut),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, description = "It is settled already, or not in doubt.", body = ErrorBody),
    ))]
pub(super) async fn settle(
    State(app): State<App>,
    caller: Caller,
    Path((id, seq)): Path<(String, String)>,
    body: JsonBody<AnswerIn>,
) -> Answer<Json<AnsweredOut>> {
    let id = execution_id(&id)?;
    let store = app.engine.store();
    let row = store.execution(id).await?.ok_or_else(|| no_execution(id))?;
    let steps = journal(&**store, id).await?;
    let intent = steps.iter().find_map(|step| match &step.body {
        StepBody::ToolIntent(intent) if step.seq.get().to_string() == seq => Some(intent),
        _ => None,
    });
    let Some(intent) = intent else {
        let shown: String = seq.chars().take(20).collect();
        let message = format!(
            "step {shown:?} of this execution is no tool call; GET /tasks/{id}/effects lists them"
        );
        return Err(ApiError::new(Code::NotFound, message));
    };
    let Some(request) = unknown_request(&steps, intent.call, shared(&row)) else {
        return Err(settled(row.status));
    };
    deliver(&app, &caller, id, body.value.to(request)).await
}

fn settled(status: Status) -> ApiError {
    let message = "the call is not in doubt: it is settled or still under way; nothing was changed";
    ApiError::new(Code::StateConflict, message).with("status", status.as_str())
}
