//! What waits for a person, and what people answer.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::step::Answer as StepAnswer;
use domain::{ExecutionId, Seq, Status};
use http::Uri;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{ExecutionFilter, InputAnswer, NewInput};
use utoipa::{IntoParams, ToSchema};

use crate::execution::{QuestionOut, journal, open_questions};
use crate::http::body::{JsonBody, Payload};
use crate::http::error::ErrorBody;
use crate::http::page::{Listed, cursor, execution_page, next_address};
use crate::http::params::{Params, execution_id, no_execution};
use crate::http::{Answer, ApiError, App, Code};

/// A question with whose it is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InboxOut {
    /// The execution that asks.
    #[schema(value_type = String, format = Uuid)]
    execution_id: ExecutionId,
    /// Whose.
    agent_name: String,
    #[serde(flatten)]
    question: QuestionOut,
    /// Where to POST the answer.
    answer_to: String,
}

/// Which part of the inbox.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Of one agent.
    agent_name: Option<String>,
    /// Of how many executions at most: 1 to 1000, 100 when nothing is said.
    limit: Option<usize>,
    /// Where to go on: from the `Link` header of the answer before.
    cursor: Option<String>,
}

/// Lists everything that waits for a person. `X-Total-Count` counts the executions that wait.
#[utoipa::path(get, path = "/inbox", tag = "inbox", params(ListParams), responses(
    (status = 200, body = Vec<InboxOut>),
    (status = 400, body = ErrorBody),
))]
pub(super) async fn list(
    State(app): State<App>,
    Params(params): Params<ListParams>,
    uri: Uri,
) -> Answer<Response> {
    let page = execution_page(params.limit, params.cursor.as_deref())?;
    let limit = page.limit;
    let agent = params.agent_name.map(|name| name.parse()).transpose();
    let filter = ExecutionFilter {
        agent: agent.map_err(|error: domain::id::InvalidId| {
            ApiError::new(
                Code::InvalidRequest,
                format!("query parameter agent_name: {error}"),
            )
        })?,
        status: vec![Status::WaitingForInput],
        ..ExecutionFilter::default()
    };
    let store = app.engine.store();
    let (rows, total) = store.executions(filter, page).await?;
    let mut items = Vec::new();
    for row in &rows {
        let id = row.execution.id;
        let questions = open_questions(&journal(&**store, id).await?);
        items.extend(questions.into_iter().map(|question| InboxOut {
            execution_id: id,
            agent_name: row.execution.agent.to_string(),
            question,
            answer_to: format!("/tasks/{id}/input"),
        }));
    }
    let last = rows.last().filter(|_| rows.len() == limit);
    let next = last.map(|row| {
        next_address(
            &uri,
            &cursor(row.execution.created_at, &row.execution.id.to_string()),
        )
    });
    Ok(Listed::new(items, next, Some(total)).into_response())
}

/// A person's answer. Which fields it has depends on `answer`.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct AnswerIn {
    /// The step that asks; may be left out when there is one question only.
    #[serde(default)]
    request: Option<u32>,
    /// What kind of answer; `text` when it is left out and there is a `text`.
    #[serde(default)]
    answer: Option<Word>,
    /// For `text`: the words.
    #[serde(default)]
    text: Option<String>,
    /// For `reject`: what the model is told.
    #[serde(default)]
    reason: Option<String>,
    /// For `happened`: the result as text.
    #[serde(default)]
    result: Option<String>,
    /// For `edit_plan`: the plan that is carried out instead: an object with `steps`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    plan: Option<Value>,
    /// Who answers.
    #[serde(default)]
    by: Option<String>,
}

impl Payload for AnswerIn {}

/// What kind of answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Word {
    /// Answers a clarification.
    Text,
    /// Allows a tool call.
    Approve,
    /// Refuses a tool call, or to answer, or to repeat a call in doubt.
    Reject,
    /// Says that a call in doubt happened.
    Happened,
    /// Says that a call in doubt did not happen and is to be made.
    Repeat,
    /// Has another plan carried out.
    EditPlan,
}

impl AnswerIn {
    /// The same answer to a certain question.
    pub(super) fn to(self, request: Seq) -> Self {
        Self {
            request: Some(request.get()),
            ..self
        }
    }

    fn read(&self) -> Answer<StepAnswer> {
        let word = match (self.answer, &self.text) {
            (Some(word), _) => word,
            (None, Some(_)) => Word::Text,
            (None, None) => {
                let why = "say text, approve, reject, happened, repeat or edit_plan";
                return Err(invalid("answer", why));
            }
        };
        let only = [
            ("text", self.text.is_some(), Word::Text),
            ("reason", self.reason.is_some(), Word::Reject),
            ("result", self.result.is_some(), Word::Happened),
            ("plan", self.plan.is_some(), Word::EditPlan),
        ];
        if let Some((field, ..)) = only
            .iter()
            .find(|(_, given, owner)| *given && *owner != word)
        {
            return Err(invalid(
                field,
                "it has no meaning for this answer; leave it out",
            ));
        }
        let words = |text: &Option<String>| text.clone().unwrap_or_default();
        match word {
            Word::Text if self.text.is_none() => Err(invalid("text", "the field is missing")),
            Word::Text => Ok(StepAnswer::Text {
                text: words(&self.text),
            }),
            Word::Approve => Ok(StepAnswer::Approve),
            Word::Reject => Ok(StepAnswer::Reject {
                reason: words(&self.reason),
            }),
            Word::Happened => Ok(StepAnswer::Happened {
                result: words(&self.result),
            }),
            Word::Repeat => Ok(StepAnswer::Repeat),
            Word::EditPlan => match &self.plan {
                Some(plan) => Ok(StepAnswer::EditPlan { plan: plan.clone() }),
                None => Err(invalid("plan", "the field is missing")),
            },
        }
    }
}

fn invalid(field: &str, why: &str) -> ApiError {
    ApiError::new(Code::InvalidRequest, format!("{field}: {why}")).with_field(field, why, "")
}

/// A taken answer.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AnsweredOut {
    /// The execution.
    #[schema(value_type = String, format = Uuid)]
    execution_id: ExecutionId,
    /// The question that it answers.
    request: u32,
    /// `accepted`.
    status: &'static str,
}

/// Answers a question of an execution: a clarification, an approval, or whether a call happened.
#[utoipa::path(post, path = "/tasks/{id}/input", tag = "inbox", params(("id" = String, Path)),
    request_body(content = AnswerIn, examples(
        ("clarification" = (value = json!({"answer": "text", "text": "The one from Tuesday."}))),
        ("approval" = (value = json!({"request": 5, "answer": "approve", "by": "ada"}))),
    )),
    responses(
        (status = 200, description = "It is taken.", body = AnsweredOut),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, description = "Another was first, or nothing is asked.", body = ErrorBody),
    ))]
pub(super) async fn answer(
    State(app): State<App>,
    Path(id): Path<String>,
    body: JsonBody<AnswerIn>,
) -> Answer<Json<AnsweredOut>> {
    deliver(&app, execution_id(&id)?, body.value).await
}

/// Gives an answer to the engine and its verdict to the caller.
pub(super) async fn deliver(
    app: &App,
    id: ExecutionId,
    given: AnswerIn,
) -> Answer<Json<AnsweredOut>> {
    let by: String = given
        .by
        .as_deref()
        .unwrap_or("api")
        .chars()
        .take(200)
        .collect();
    let answer = given.read()?;
    let input = NewInput {
        id,
        request: given.request.map(Seq::new),
        answer: answer.clone(),
        by,
        now: app.engine.now(),
    };
    let conflict = |message: String| ApiError::new(Code::StateConflict, message);
    match app.engine.answer(input).await? {
        InputAnswer::Accepted { request } => Ok(Json(AnsweredOut {
            execution_id: id,
            request: request.get(),
            status: "accepted",
        })),
        InputAnswer::AlreadyAnswered { first } => {
            let message = format!("{} has answered already; nothing was changed", first.by);
            Err(conflict(message).with(
                "first",
                serde_json::to_value(first.answer).unwrap_or_default(),
            ))
        }
        InputAnswer::DoesNotFit(question) => {
            let message = match question.objection(&answer) {
                Some(why) => format!("plan: it can't be carried out: {why}"),
                None => format!(
                    "answer: it does not fit the question; {}",
                    question.choices()
                ),
            };
            Err(ApiError::new(Code::InvalidRequest, message).with(
                "question",
                serde_json::to_value(question).unwrap_or_default(),
            ))
        }
        InputAnswer::Ambiguous(open) => {
            let open: Vec<u32> = open.into_iter().map(Seq::get).collect();
            let message =
                format!("request: several questions are open; say which, one of {open:?}");
            Err(ApiError::new(Code::InvalidRequest, message).with("open", open))
        }
        InputAnswer::NothingAsked(status) => {
            let message = format!("execution {id} asks nothing; it is {status}");
            Err(conflict(message).with("status", status.as_str()))
        }
        InputAnswer::NotFound => Err(no_execution(id)),
    }
}
