//! Answers, whole and in frames.

use domain::{ExecutionId, Outcome, StopReason};
use serde::Serialize;
use store::ExecutionRow;
use utoipa::ToSchema;

use crate::http::{ApiError, Code};

/// A chat completion.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChatOut {
    /// `chatcmpl-` and the execution's id.
    id: String,
    /// `chat.completion`.
    object: &'static str,
    /// When it was asked for, in seconds since 1970.
    created: i64,
    /// The agent's name.
    model: String,
    /// The version of the agent's file that answered.
    system_fingerprint: String,
    /// One.
    choices: Vec<ChoiceOut>,
    /// What it consumed, every model call of the agent together.
    usage: UsageOut,
}

/// The answer.
#[derive(Debug, Serialize, ToSchema)]
struct ChoiceOut {
    /// 0.
    index: u32,
    /// What the agent says.
    message: SaidOut,
    /// Not told.
    #[schema(value_type = Option<Object>)]
    logprobs: (),
    /// `stop`, `length` or `content_filter`.
    finish_reason: &'static str,
}

/// What the agent says.
#[derive(Debug, Serialize, ToSchema)]
struct SaidOut {
    /// `assistant`.
    role: &'static str,
    /// Its words.
    content: String,
    /// Not told apart from its words.
    #[schema(value_type = Option<String>)]
    refusal: (),
}

/// What was consumed.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
#[schema(as = ChatUsage)]
pub(super) struct UsageOut {
    prompt_tokens: u64,
    completion_tokens: u64,
    total_tokens: u64,
    prompt_tokens_details: PromptTokensOut,
}

/// Where the prompt's tokens came from.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
struct PromptTokensOut {
    cached_tokens: u64,
}

/// A frame of an answer that is being written.
#[derive(Debug, Serialize)]
pub(super) struct Frame<'a> {
    id: &'a str,
    object: &'static str,
    created: i64,
    model: &'a str,
    system_fingerprint: &'a str,
    choices: &'a [FrameChoice<'a>],
    #[serde(skip_serializing_if = "Option::is_none")]
    usage: Option<Option<UsageOut>>,
}

#[derive(Debug, Serialize)]
struct FrameChoice<'a> {
    index: u32,
    delta: Delta<'a>,
    logprobs: (),
    finish_reason: Option<&'a str>,
}

/// What a frame adds.
#[derive(Debug, Default, Serialize)]
pub(super) struct Delta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    content: Option<&'a str>,
}

/// What all frames of an answer have alike.
#[derive(Debug)]
pub(super) struct Heading {
    pub(super) id: String,
    pub(super) created: i64,
    pub(super) model: String,
    pub(super) fingerprint: String,
    /// Whether the frames say what was consumed.
    pub(super) with_usage: bool,
}

impl Heading {
    /// The heading of an execution's answer.
    pub(super) fn new(row: &ExecutionRow, with_usage: bool) -> Self {
        let execution = &row.execution;
        Self {
            id: completion_id(execution.id),
            created: execution.created_at.timestamp(),
            model: execution.agent.to_string(),
            fingerprint: execution.version.to_string(),
            with_usage,
        }
    }

    /// The first frame.
    pub(super) fn begin(&self) -> String {
        let role = Some("assistant");
        let content = Some("");
        self.frame(Delta { role, content }, None)
    }

    /// More words.
    pub(super) fn words(&self, text: &str) -> String {
        let content = Some(text);
        self.frame(
            Delta {
                role: None,
                content,
            },
            None,
        )
    }

    /// The end of the words.
    pub(super) fn finish(&self, reason: &str) -> String {
        self.frame(Delta::default(), Some(reason))
    }

    /// What was consumed: the last frame.
    pub(super) fn usage(&self, usage: UsageOut) -> String {
        self.write(&[], Some(usage))
    }

    fn frame(&self, delta: Delta<'_>, finish_reason: Option<&str>) -> String {
        let choice = FrameChoice {
            index: 0,
            delta,
            logprobs: (),
            finish_reason,
        };
        self.write(&[choice], None)
    }

    fn write(&self, choices: &[FrameChoice<'_>], usage: Option<UsageOut>) -> String {
        let frame = Frame {
            id: &self.id,
            object: "chat.completion.chunk",
            created: self.created,
            model: &self.model,
            system_fingerprint: &self.fingerprint,
            choices,
            usage: self.with_usage.then_some(usage),
        };
        serde_json::to_string(&frame).unwrap_or_default()
    }
}

impl ChatOut {
    /// The whole answer of an execution that ended with one.
    pub(super) fn new(row: &ExecutionRow, said: &Said) -> Self {
        let heading = Heading::new(row, true);
        Self {
            id: heading.id,
            object: "chat.completion",
            created: heading.created,
            model: heading.model,
            system_fingerprint: heading.fingerprint,
            choices: vec![ChoiceOut {
                index: 0,
                message: SaidOut {
                    role: "assistant",
                    content: said.text.clone(),
                    refusal: (),
                },
                logprobs: (),
                finish_reason: said.finish_reason,
            }],
            usage: usage(row),
        }
    }
}

/// What an execution that ended says.
#[derive(Debug)]
pub(super) struct Said {
    /// Its words.
    pub(super) text: String,
    /// Why they end.
    pub(super) finish_reason: &'static str,
}

/// What it says, or why it says nothing.
pub(super) fn said(row: &ExecutionRow) -> Result<Said, ApiError> {
    let failed = |code: Code, message: String| {
        ApiError::new(code, message).with("execution_id", row.execution.id.to_string())
    };
    match &row.outcome {
        Some(Outcome::Completed { output, stop, .. }) => Ok(Said {
            text: output.clone(),
            finish_reason: match stop {
                StopReason::MaxTokens => "length",
                StopReason::Refusal => "content_filter",
                StopReason::EndTurn | StopReason::ToolUse | StopReason::StopSequence => "stop",
            },
        }),
        Some(Outcome::Failed(failure)) => Err(failed(Code::Internal, failure.message.clone())),
        Some(Outcome::Timeout { message }) => Err(failed(Code::Timeout, message.clone())),
        Some(outcome @ Outcome::Cancelled { .. }) => {
            Err(failed(Code::StateConflict, outcome.reason()))
        }
        None => Err(failed(
            Code::Timeout,
            format!(
                "it is not over yet ({}); it goes on, and GET /tasks/{} tells how it stands",
                row.status, row.execution.id
            ),
        )),
    }
}

/// What an execution consumed.
pub(super) fn usage(row: &ExecutionRow) -> UsageOut {
    let usage = &row.totals.usage;
    UsageOut {
        prompt_tokens: usage.input_tokens.0,
        completion_tokens: usage.output_tokens.0,
        total_tokens: usage.input_tokens.0.saturating_add(usage.output_tokens.0),
        prompt_tokens_details: PromptTokensOut {
            cached_tokens: usage.cached_tokens.0,
        },
    }
}

fn completion_id(id: ExecutionId) -> String {
    format!("chatcmpl-{id}")
}
