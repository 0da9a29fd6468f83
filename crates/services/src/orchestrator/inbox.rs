//! What waits for a person, and what people answer.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::step::Answer as StepAnswer;
use domain::{AgentName, ExecutionId, Seq, Status};
use http::Uri;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::{InboxFilter, InputAnswer, NewInput, Total};
use utoipa::{IntoParams, ToSchema};

use super::question::{QuestionOut, question};
use crate::http::body::{JsonBody, Payload};
use crate::http::caller::Caller;
use crate::http::error::ErrorBody;
use crate::http::page::{Listed, bad_cursor, limit, next_address};
use crate::http::params::{Params, execution_id, no_execution};
use crate::http::{Answer, ApiError, App, Code};

/// A question with whose it is.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct InboxOut {
    /// Its name: the execution and the step that asks.
    #[schema(example = "0192f0c1-7e3a-7c3d-8e4f-5a6b7c8d9e0f:4")]
    id: String,
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
    /// Of one execution.
    execution_id: Option<String>,
    /// clarification, approval, unknown_outcome or plan.
    question: Option<String>,
    /// For whom: the `answered_by` of the agent.
    answered_by: Option<String>,
    /// How many at most: 1 to 1000, 100 when nothing is said.
    limit: Option<usize>,
    /// Where to go on: from the `Link` header of the answer before.
    cursor: Option<String>,
}

impl ListParams {
    fn filter(&self, app: &App, caller: &Caller) -> Answer<Option<InboxFilter>> {
        let agents = match allowed(self.agents(app)?, caller) {
            // Nobody's questions are for them.
            Some(none) if none.is_empty() => return Ok(None),
            agents => agents.unwrap_or_default(),
        };
        let kinds = ["clarification", "approval", "unknown_outcome", "plan"];
        if self
            .question
            .as_ref()
            .is_some_and(|kind| !kinds.contains(&kind.as_str()))
        {
            let why = format!(
                "query parameter question: it is one of {}",
                kinds.join(", ")
            );
            return Err(ApiError::new(Code::InvalidRequest, why));
        }
        Ok(Some(InboxFilter {
            agents,
            execution: match self.execution_id.as_deref().map(str::parse) {
                None => None,
                Some(Ok(id)) => Some(id),
                Some(Err(_)) => {
                    let why = "query parameter execution_id: the id of an execution is a UUID";
                    return Err(ApiError::new(Code::InvalidRequest, why));
                }
            },
            kind: self.question.clone(),
            now: app.engine.now(),
            after: self.cursor.as_deref().map(read_cursor).transpose()?,
            limit: limit(self.limit)?,
        }))
    }

    /// The agents whose questions are wanted; `None` for all.
    fn agents(&self, app: &App) -> Answer<Option<Vec<AgentName>>> {
        let named = self
            .agent_name
            .as_ref()
            .map(|name| name.parse::<AgentName>());
        let named = named.transpose().map_err(|error| {
            let message = format!("query parameter agent_name: {error}");
            ApiError::new(Code::InvalidRequest, message)
        })?;
        let Some(whom) = &self.answered_by else {
            return Ok(named.map(|name| vec![name]));
        };
        let all = app.engine.agents().all().into_iter();
        let theirs = all.filter(|agent| agent.definition.answered_by.as_ref() == Some(whom));
        let theirs = theirs.map(|agent| agent.definition.name.clone());
        Ok(Some(
            theirs
                .filter(|name| named.as_ref().is_none_or(|named| named == name))
                .collect(),
        ))
    }
}

/// Those of the wanted agents that are the caller's.
fn allowed(wanted: Option<Vec<AgentName>>, caller: &Caller) -> Option<Vec<AgentName>> {
    match (wanted, caller.agents()) {
        (wanted, None) => wanted,
        (None, Some(own)) => Some(own.iter().cloned().collect()),
        (Some(mut wanted), Some(own)) => {
            wanted.retain(|name| own.contains(name));
            Some(wanted)
        }
    }
}

fn read_cursor(text: &str) -> Answer<(ExecutionId, Seq)> {
    let read = || {
        let (id, seq) = text.split_once(':')?;
        Some((id.parse().ok()?, Seq::new(seq.parse().ok()?)))
    };
    read().ok_or_else(bad_cursor)
}

/// Lists everything that waits for a person, by the time of the executions. `X-Total-Count` counts the questions.
#[utoipa::path(get, path = "/inbox", tag = "inbox", params(ListParams), responses(
    (status = 200, body = Vec<InboxOut>),
    (status = 400, body = ErrorBody),
))]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(params): Params<ListParams>,
    uri: Uri,
) -> Answer<Response> {
    let Some(filter) = params.filter(&app, &caller)? else {
        return Ok(
            Listed::<InboxOut>::new(Vec::new(), None, Some(Total::exactly(0))).into_response(),
        );
    };
    let (store, limit) = (app.engine.store(), filter.limit);
    let (open, total) = store.inbox(filter).await?;
    let mut items = Vec::with_capacity(open.len());
    for one in &open {
        let Some(question) = question(&**store, one).await? else {
            continue;
        };
        items.push(InboxOut {
            id: format!("{}:{}", one.id, one.request),
            execution_id: one.id,
            agent_name: one.agent.to_string(),
            question,
            answer_to: format!("/tasks/{}/input", one.id),
        });
    }
    let last = open.last().filter(|_| open.len() == limit);
    let next = last.map(|last| next_address(&uri, &format!("{}:{}", last.id, last.request)));
    Ok(Listed::new(items, next, Some(Total::exactly(total))).into_response())
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
    /// For `edit`: the arguments to call the tool with, all of them; an object, or its JSON as text.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    arguments: Option<Value>,
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
    /// Who answers; the name of the key when it is left out.
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
    /// Allows a tool call with other arguments.
    Edit,
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
                let why = "say text, approve, edit, reject, happened, repeat or edit_plan";
                return Err(invalid("answer", why));
            }
        };
        let only = [
            ("text", self.text.is_some(), Word::Text),
            ("reason", self.reason.is_some(), Word::Reject),
            ("arguments", self.arguments.is_some(), Word::Edit),
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
            Word::Edit => match &self.arguments {
                None => Err(invalid("arguments", "the field is missing")),
                Some(Value::String(text)) => Ok(StepAnswer::Edit {
                    arguments: text.clone(),
                }),
                Some(value) => Ok(StepAnswer::Edit {
                    arguments: value.to_string(),
                }),
            },
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
        ("other arguments" = (value = json!({"request": 5, "answer": "edit", "arguments": {"amount": 90}}))),
    )),
    responses(
        (status = 200, description = "It is taken.", body = AnsweredOut),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
        (status = 409, description = "Another was first (`details.first`), or nothing is asked.", body = ErrorBody),
        (status = 503, description = "What the tool takes can't be found out now.", body = ErrorBody),
    ))]
pub(super) async fn answer(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    body: JsonBody<AnswerIn>,
) -> Answer<Json<AnsweredOut>> {
    deliver(&app, &caller, execution_id(&id)?, body.value).await
}

/// What kind of answer it is.
fn word(answer: &StepAnswer) -> String {
    let written = serde_json::to_value(answer).unwrap_or_default();
    let word = written.get("answer").and_then(Value::as_str);
    word.unwrap_or_default().to_owned()
}

/// Gives an answer to the engine and its verdict to the caller.
pub(super) async fn deliver(
    app: &App,
    caller: &Caller,
    id: ExecutionId,
    given: AnswerIn,
) -> Answer<Json<AnsweredOut>> {
    let by: String = given
        .by
        .as_deref()
        .unwrap_or_else(|| caller.name())
        .chars()
        .take(200)
        .collect();
    let answer = given.read()?;
    caller.note("answer", word(&answer));
    caller.note("by", by.as_str());
    let input = NewInput {
        id,
        request: given.request.map(Seq::new),
        answer: answer.clone(),
        by,
        now: app.engine.now(),
    };
    let conflict = |message: String| ApiError::new(Code::StateConflict, message);
    match app.engine.answer(input).await? {
        InputAnswer::Accepted { request } => {
            caller.note("request", request.to_string());
            Ok(Json(AnsweredOut {
                execution_id: id,
                request: request.get(),
                status: "accepted",
            }))
        }
        InputAnswer::AlreadyAnswered { first } => {
            let message = format!("{} has answered already; nothing was changed", first.by);
            let mut told = serde_json::to_value(first.answer).unwrap_or_default();
            if let Value::Object(fields) = &mut told {
                fields.insert("by".to_owned(), json!(first.by));
                fields.insert("request".to_owned(), json!(first.request));
            }
            Err(conflict(message).with("first", told))
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
            let message = if status == Status::WaitingForInput {
                format!(
                    "request: that is no open question of execution {id}; GET /inbox?execution_id={id} lists what it asks"
                )
            } else {
                format!("execution {id} asks nothing; it is {status}")
            };
            Err(conflict(message).with("status", status.as_str()))
        }
        InputAnswer::NotFound => Err(no_execution(id)),
    }
}
