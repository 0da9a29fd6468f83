//! A response, as OpenAI's clients read it.

use std::collections::BTreeMap;

use domain::{ExecutionId, Outcome, Status, StopReason};
use serde::Serialize;
use serde_json::{Value, json};
use store::ExecutionRow;
use utoipa::ToSchema;

use super::request::NOTE;

/// How the id of a response begins; the rest is the execution's.
pub(super) const PREFIX: &str = "resp_";

/// A response.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub(in crate::openai) struct ResponseOut {
    /// `resp_` and the execution's id.
    #[schema(example = "resp_0190c2f4-a1b2-7c3d-8e4f-5a6b7c8d9e0f")]
    pub(super) id: String,
    /// `response`.
    #[schema(example = "response")]
    object: &'static str,
    /// When it was asked for, in seconds since 1970.
    created_at: i64,
    /// queued, in_progress, completed, incomplete, failed or cancelled.
    #[schema(example = "completed")]
    pub(super) status: &'static str,
    /// Why it failed.
    error: Option<FailureOut>,
    /// Why it is incomplete.
    incomplete_details: Option<IncompleteOut>,
    /// What the agent was told before all others, this time.
    instructions: Option<String>,
    /// Not told: the agent's file says it.
    #[schema(value_type = Option<u64>)]
    max_output_tokens: (),
    /// The agent's name.
    model: String,
    /// What the agent says.
    pub(super) output: Vec<MessageOut>,
    /// Whether several tools are called at once.
    parallel_tool_calls: bool,
    /// The response that it goes on from.
    previous_response_id: Option<String>,
    /// Not told: the agent's file says it.
    #[schema(value_type = Option<f64>)]
    temperature: (),
    /// `auto`.
    tool_choice: &'static str,
    /// None of the caller's.
    #[schema(value_type = Vec<Object>)]
    tools: [(); 0],
    /// Not told: the agent's file says it.
    #[schema(value_type = Option<f64>)]
    top_p: (),
    /// `disabled`.
    truncation: &'static str,
    /// `text`.
    #[schema(value_type = Object)]
    text: Value,
    /// It is kept.
    store: bool,
    /// What it consumed, every model call of the agent together; null while it goes on.
    usage: Option<UsageOut>,
    /// Who asked.
    user: Option<String>,
    /// Your own notes.
    metadata: BTreeMap<String, String>,
}

/// Why it failed.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ResponseFailure)]
struct FailureOut {
    /// `server_error`.
    code: &'static str,
    /// In words.
    message: String,
}

/// Why it is incomplete.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ResponseIncomplete)]
struct IncompleteOut {
    /// `max_output_tokens` or `content_filter`.
    reason: &'static str,
}

/// What the agent says.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ResponseMessage)]
pub(super) struct MessageOut {
    /// `msg_` and the execution's id.
    pub(super) id: String,
    /// `message`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// in_progress, completed or incomplete.
    status: &'static str,
    /// `assistant`.
    role: &'static str,
    /// Its words.
    pub(super) content: Vec<PartOut>,
}

/// Words.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ResponsePart)]
pub(super) struct PartOut {
    /// `output_text`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// The words.
    text: String,
    /// None.
    #[schema(value_type = Vec<Object>)]
    annotations: [(); 0],
    /// None.
    #[schema(value_type = Vec<Object>)]
    logprobs: [(); 0],
}

/// What was consumed.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = ResponseUsage)]
struct UsageOut {
    input_tokens: u64,
    input_tokens_details: InputDetails,
    output_tokens: u64,
    output_tokens_details: OutputDetails,
    total_tokens: u64,
}

/// Where the input's tokens came from.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = ResponseInputTokens)]
struct InputDetails {
    cached_tokens: u64,
}

/// What the output's tokens were for.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = ResponseOutputTokens)]
struct OutputDetails {
    /// Not told apart.
    reasoning_tokens: u64,
}

/// The id of the response that an execution is.
pub(super) fn response_id(id: ExecutionId) -> String {
    format!("{PREFIX}{id}")
}

impl PartOut {
    /// These words.
    pub(super) fn new(text: String) -> Self {
        Self {
            kind: "output_text",
            text,
            annotations: [],
            logprobs: [],
        }
    }
}

impl MessageOut {
    /// What an execution says so far, or said.
    pub(super) fn new(id: ExecutionId, status: &'static str, text: Option<String>) -> Self {
        Self {
            id: format!("msg_{id}"),
            kind: "message",
            status,
            role: "assistant",
            content: text.map(PartOut::new).into_iter().collect(),
        }
    }
}

impl ResponseOut {
    /// The response that an execution is, as it stands.
    pub(super) fn new(row: &ExecutionRow) -> Self {
        let execution = &row.execution;
        let (status, incomplete) = stands(row);
        let said = match &row.outcome {
            Some(Outcome::Completed { output, .. }) => {
                Some(MessageOut::new(execution.id, status, Some(output.clone())))
            }
            _ => None,
        };
        let error = match &row.outcome {
            Some(Outcome::Failed(failure)) => Some(failure.message.clone()),
            Some(Outcome::Timeout { message }) => Some(message.clone()),
            _ => None,
        };
        let note = |name: &str| {
            let note = execution.metadata.get(NOTE)?.get(name)?;
            note.as_str().map(str::to_owned)
        };
        let notes = execution.metadata.as_object().into_iter().flatten();
        let metadata: BTreeMap<String, String> = notes
            .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
            .collect();
        Self {
            id: response_id(execution.id),
            object: "response",
            created_at: execution.created_at.timestamp(),
            status,
            error: error.map(|message| FailureOut {
                code: "server_error",
                message,
            }),
            incomplete_details: incomplete.map(|reason| IncompleteOut { reason }),
            instructions: note("instructions"),
            max_output_tokens: (),
            model: execution.agent.to_string(),
            output: said.into_iter().collect(),
            parallel_tool_calls: true,
            previous_response_id: note("previous_response_id"),
            temperature: (),
            tool_choice: "auto",
            tools: [],
            top_p: (),
            truncation: "disabled",
            text: json!({ "format": { "type": "text" } }),
            store: true,
            usage: row.outcome.as_ref().map(|_| usage(row)),
            user: metadata.get("user").cloned(),
            metadata,
        }
    }
}

/// How it stands, in the format's words, and why it is incomplete.
fn stands(row: &ExecutionRow) -> (&'static str, Option<&'static str>) {
    match &row.outcome {
        Some(Outcome::Completed { stop, .. }) => match stop {
            StopReason::MaxTokens => ("incomplete", Some("max_output_tokens")),
            StopReason::Refusal => ("incomplete", Some("content_filter")),
            StopReason::EndTurn | StopReason::ToolUse | StopReason::StopSequence => {
                ("completed", None)
            }
        },
        Some(Outcome::Failed(_) | Outcome::Timeout { .. }) => ("failed", None),
        Some(Outcome::Cancelled { .. }) => ("cancelled", None),
        None if row.status == Status::Queued => ("queued", None),
        None => ("in_progress", None),
    }
}

fn usage(row: &ExecutionRow) -> UsageOut {
    let usage = &row.totals.usage;
    UsageOut {
        input_tokens: usage.input_tokens.0,
        input_tokens_details: InputDetails {
            cached_tokens: usage.cached_tokens.0,
        },
        output_tokens: usage.output_tokens.0,
        output_tokens_details: OutputDetails {
            reasoning_tokens: 0,
        },
        total_tokens: usage.input_tokens.0.saturating_add(usage.output_tokens.0),
    }
}
