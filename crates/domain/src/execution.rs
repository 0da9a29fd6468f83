//! One piece of work: what was asked, how far it is, how it ended.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Time;
use crate::budget::BudgetLimits;
use crate::definition::ExecutionMode;
use crate::id::{AgentName, ConfigVersion, ConversationId, EventId, ExecutionId, Seq, TraceId};
use crate::message::{Message, StopReason};
use crate::quantity::{Money, Usage};
use crate::span::Upstream;

/// How an execution stands, in the words that every face of the system shows.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Accepted, and not begun.
    Queued,
    /// Begun.
    Running,
    /// Nothing can go on until a person answers.
    WaitingForInput,
    /// Ended with an answer.
    Completed,
    /// Ended without one.
    Failed,
    /// Ended by its deadline.
    Timeout,
    /// Ended because somebody said so.
    Cancelled,
}

impl Status {
    /// All of them, in the order of their lives.
    pub const ALL: [Self; 7] = [
        Self::Queued,
        Self::Running,
        Self::WaitingForInput,
        Self::Completed,
        Self::Failed,
        Self::Timeout,
        Self::Cancelled,
    ];

    /// The word in API, tables and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::WaitingForInput => "waiting_for_input",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Timeout => "timeout",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing will change any more.
    pub const fn is_terminal(self) -> bool {
        matches!(
            self,
            Self::Completed | Self::Failed | Self::Timeout | Self::Cancelled
        )
    }

    /// Whether the declared graph has an edge from `self` to `next`.
    pub const fn may_become(self, next: Self) -> bool {
        match self {
            Self::Queued => !matches!(next, Self::Queued | Self::WaitingForInput | Self::Completed),
            Self::Running => !matches!(next, Self::Queued | Self::Running),
            Self::WaitingForInput => {
                !matches!(next, Self::Queued | Self::WaitingForInput | Self::Completed)
            }
            Self::Completed | Self::Failed | Self::Timeout | Self::Cancelled => false,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl std::str::FromStr for Status {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == s)
            .ok_or_else(|| {
                format!(
                    "{s:?} is not a status; it is one of {}",
                    Self::ALL.map(Self::as_str).join(", ")
                )
            })
    }
}

/// Which of two waiting executions goes first.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    Hash,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Priority {
    /// After all others.
    Low,
    /// In turn.
    #[default]
    Normal,
    /// Before all others.
    High,
}

/// What was asked and under which terms; fixed from the moment of acceptance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Execution {
    /// Its id.
    pub id: ExecutionId,
    /// Who does it.
    pub agent: AgentName,
    /// The definition that it began with and ends on.
    pub version: ConfigVersion,
    /// How it works.
    pub mode: ExecutionMode,
    /// What is to be done: the `task_data` of the request.
    pub input: Value,
    /// What was said before, oldest first, when it continues a conversation.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Message>,
    /// The conversation that it belongs to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conversation: Option<ConversationId>,
    /// Who goes first when many wait.
    #[serde(default)]
    pub priority: Priority,
    /// When it was accepted.
    pub created_at: Time,
    /// When it must have ended.
    pub deadline: Time,
    /// Limits given with the request; the tighter of these and the definition's holds.
    #[serde(default)]
    pub budget: BudgetLimits,
    /// The trace of the request.
    pub trace_id: TraceId,
    /// The span of the request, and whether the trace is recorded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub upstream: Option<Upstream>,
    /// The execution that delegated it, and by which step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// The execution whose beginning it shares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<Origin>,
    /// The event that started it: one (agent, event id) starts one execution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<EventId>,
    /// How many events led to it.
    #[serde(default)]
    pub hops: u8,
    /// The moment of the backup that it came back from, or that what caused it came back from: what it did after that is
    /// forgotten. See [`crate::Restored`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Time>,
    /// Where to send the result.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub callback_url: Option<String>,
    /// The caller's own notes, kept and given back.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub metadata: Value,
}

/// Where a child comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Parent {
    /// The execution that waits for it.
    pub id: ExecutionId,
    /// The step that started it.
    pub seq: Seq,
    /// How many ancestors it has.
    pub depth: u8,
    /// How many ancestors those below it may have at most.
    #[serde(default = "max_depth")]
    pub deepest: u8,
}

const fn max_depth() -> u8 {
    MAX_DEPTH
}

/// Where an execution branched off from another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Origin {
    /// The other one.
    pub id: ExecutionId,
    /// How many steps they share: those up to this one. None when it does the same work from the beginning.
    pub steps: u32,
    /// What it was told there besides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Where the shared steps themselves go from one execution's to another's, in their order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seams: Vec<Seam>,
}

impl Origin {
    /// All places where the journal goes from one execution's steps to another's, the last its own.
    pub fn all_seams(&self) -> Vec<Seam> {
        let own = Seam {
            after: self.steps,
            message: self.message.clone(),
        };
        self.seams.iter().cloned().chain([own]).collect()
    }
}

/// Where a journal goes from one execution's steps to another's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Seam {
    /// After how many steps.
    pub after: u32,
    /// What the other one was told there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// The note of an execution that says whose team it works for.
pub const TEAM: &str = "collaboration";

/// How deep agents may delegate to agents.
pub const MAX_DEPTH: u8 = 8;

impl Execution {
    /// How many ancestors it has.
    pub fn depth(&self) -> u8 {
        self.parent.map_or(0, |p| p.depth)
    }

    /// The coordinator's execution whose team it works for, if it does: what is delegated further belongs to it as well.
    pub fn team(&self) -> Option<ExecutionId> {
        // Only who has a parent was given its notes by the program and not by a caller.
        self.parent?;
        let team = self.metadata.get(TEAM).and_then(Value::as_str);
        team.and_then(|id| id.parse().ok())
    }

    /// How many ancestors those below it may have, when its own definition allows `own` levels.
    pub fn deepest(&self, own: Option<u8>) -> u8 {
        let inherited = self.parent.map_or(MAX_DEPTH, |p| p.deepest.min(MAX_DEPTH));
        own.map_or(inherited, |levels| {
            inherited.min(self.depth().saturating_add(levels))
        })
    }

    /// The first words to the model. An object with a single text under a customary name is that text;
    /// anything else is shown as the JSON it is. A coordinator's task may come with terms; the words are its
    /// `task_description`.
    pub fn prompt(&self) -> String {
        let task = self.input.get("task_description").and_then(Value::as_str);
        if let (ExecutionMode::Collaborative, Some(task)) = (self.mode, task) {
            return task.to_owned();
        }
        const CUSTOMARY: [&str; 6] = ["prompt", "text", "message", "task", "question", "input"];
        match &self.input {
            Value::String(text) => text.clone(),
            Value::Object(fields) if fields.len() == 1 => fields
                .iter()
                .next()
                .filter(|(name, _)| CUSTOMARY.contains(&name.as_str()))
                .and_then(|(_, value)| value.as_str())
                .map_or_else(|| pretty(&self.input), str::to_owned),
            Value::Null => String::from("Begin."),
            other => pretty(other),
        }
    }
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}

/// How an execution ended. Exactly one, and final.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Outcome {
    /// With an answer.
    Completed {
        /// The model's last words.
        output: String,
        /// The same as JSON, when the agent declares an `output_schema`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        structured: Option<Value>,
        /// `max_tokens` tells that the answer was cut off by its length limit.
        stop: StopReason,
    },
    /// Without one, and why.
    Failed(Failure),
    /// By its deadline.
    Timeout {
        /// What was under way.
        message: String,
    },
    /// By somebody's word.
    Cancelled {
        /// Whose.
        by: String,
        /// Why, if they said.
        reason: String,
    },
}

impl Outcome {
    /// The status that it leaves behind.
    pub const fn status(&self) -> Status {
        match self {
            Self::Completed { .. } => Status::Completed,
            Self::Failed(_) => Status::Failed,
            Self::Timeout { .. } => Status::Timeout,
            Self::Cancelled { .. } => Status::Cancelled,
        }
    }

    /// In a sentence, for a list or a log line.
    pub fn reason(&self) -> String {
        match self {
            Self::Completed {
                stop: StopReason::MaxTokens,
                ..
            } => "completed, but the answer was cut off at max_tokens".to_owned(),
            Self::Completed { .. } => "completed".to_owned(),
            Self::Failed(failure) => failure.message.clone(),
            Self::Timeout { message } => message.clone(),
            Self::Cancelled { by, reason } if reason.is_empty() => format!("cancelled by {by}"),
            Self::Cancelled { by, reason } => format!("cancelled by {by}: {reason}"),
        }
    }
}

/// Why an execution failed: a code to branch on and a sentence that says what to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Failure {
    /// What kind of failure.
    pub code: FailureCode,
    /// What happened and what to do about it.
    pub message: String,
}

/// The kinds of failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FailureCode {
    /// The model did not come to an end within `max_steps` turns.
    MaxStepsExceeded,
    /// A limit of the budget leaves no room for the next action.
    BudgetExceeded,
    /// The provider could not be reached or did not answer properly, however often it was tried.
    ModelUnavailable,
    /// The provider refused the request itself (key, model name, parameters, length).
    ModelRejected,
    /// The provider or the model declined to answer.
    ModelRefused,
    /// The answer does not meet `output_schema`, also after it was asked to.
    OutputInvalid,
    /// A person did not answer in time, and the agent says to fail then.
    NobodyAnswered,
    /// A coordinator has no plan that can be carried out, also after it was told why.
    PlanInvalid,
    /// A person rejected a coordinator's plan, or nobody approved it in time.
    PlanRejected,
    /// A step of a coordinator's plan failed for good.
    StepFailed,
    /// It is not known whether an unsafe tool call happened, and the agent says to fail then.
    OutcomeUnknown,
    /// The tools that the agent needs can't be had.
    ToolsUnavailable,
    /// It took its worker down again and again.
    Poison,
    /// Its journal or definition can't be read or does not fit.
    Corrupt,
    /// Something in AgentRunner itself went wrong.
    Internal,
}

/// Running totals of an execution.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Totals {
    /// Tokens consumed.
    #[serde(flatten)]
    pub usage: Usage,
    /// What they cost, as far as prices are known.
    pub cost_usd: Money,
    /// Answers of the model.
    pub model_calls: u32,
    /// Tool calls that were begun.
    pub tool_calls: u32,
}

impl std::ops::AddAssign for Totals {
    fn add_assign(&mut self, other: Self) {
        self.usage += other.usage;
        self.cost_usd += other.cost_usd;
        self.model_calls = self.model_calls.saturating_add(other.model_calls);
        self.tool_calls = self.tool_calls.saturating_add(other.tool_calls);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminal_states_never_change() {
        for from in Status::ALL.into_iter().filter(|s| s.is_terminal()) {
            assert!(Status::ALL.into_iter().all(|to| !from.may_become(to)));
        }
    }

    #[test]
    fn every_status_reads_back() {
        for status in Status::ALL {
            assert_eq!(status.as_str().parse(), Ok(status));
            assert_eq!(serde_json::to_value(status).unwrap(), status.as_str());
        }
    }
}
