//! The journal's entries. A step says what happened; it never changes, and the state follows from the steps alone.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Time;
use crate::budget::BudgetLimits;
use crate::definition::{Effect, Provider};
use crate::execution::{Outcome, Totals};
use crate::id::{AgentName, Epoch, ExecutionId, Seq};
use crate::message::Reply;
use crate::pin::Fingerprint;
use crate::plan::{self, Drafted, Plan, Rules};
use crate::prompt::Purpose;
use crate::quantity::{Money, Usage};
use crate::retry::ModelErrorClass;
use crate::team::Planning;

/// One entry of a journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Step {
    /// Its position, from 1 without gaps.
    pub seq: Seq,
    /// When it was made, by its writer's clock.
    pub at: Time,
    /// The lease epoch of its writer.
    pub epoch: Epoch,
    /// What happened.
    #[serde(flatten)]
    pub body: StepBody,
}

/// What happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum StepBody {
    /// The model answered, whole.
    ModelCall(Box<ModelCall>),
    /// A tool is about to be called; committed before the call.
    ToolIntent(ToolIntent),
    /// A tool call is settled.
    ToolResult(ToolResult),
    /// Something about a coordinator's plan.
    Plan(Box<Planning>),
    /// Another agent was given a task.
    ChildStarted {
        /// The call that asked for it.
        call: CallRef,
        /// The execution that does it.
        child: ExecutionId,
        /// Whose.
        agent: AgentName,
        /// What it may consume; what is left of its parent's budget when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        budget: Option<BudgetLimits>,
    },
    /// The other agent is done.
    ChildFinished {
        /// The call that asked for it.
        call: CallRef,
        /// The execution that did it.
        child: ExecutionId,
        /// How it ended.
        outcome: Outcome,
        /// What it consumed, with all that worked for it.
        #[serde(default, skip_serializing_if = "is_nothing")]
        spent: Totals,
    },
    /// Nothing can go on before a person answers.
    InputRequested(InputRequest),
    /// A person answered, or nobody did in time.
    InputReceived(InputReceived),
    /// Nothing is done before a time; a model call is tried again then.
    Timer {
        /// Until when.
        until: Time,
        /// Why.
        reason: ModelFailure,
    },
    /// Something that whoever reads the journal should know, without consequence for what is next.
    Note {
        /// In words.
        text: String,
    },
    /// It is over.
    Finished {
        /// How.
        outcome: Outcome,
    },
}

fn is_nothing(totals: &Totals) -> bool {
    *totals == Totals::default()
}

impl StepBody {
    /// The kind, as API, tables and logs spell it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::ModelCall(_) => "model_call",
            Self::ToolIntent(_) => "tool_intent",
            Self::ToolResult(_) => "tool_result",
            Self::Plan(_) => "plan",
            Self::ChildStarted { .. } => "child_started",
            Self::ChildFinished { .. } => "child_finished",
            Self::InputRequested(_) => "input_requested",
            Self::InputReceived(_) => "input_received",
            Self::Timer { .. } => "timer",
            Self::Note { .. } => "note",
            Self::Finished { .. } => "finished",
        }
    }
}

/// Names one tool call of an execution: the model call that asked for it, and its place in the answer. Not the
/// provider's id, which a model may repeat.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
pub struct CallRef {
    /// The step of the model call.
    pub turn: Seq,
    /// From 0.
    pub index: u16,
}

impl fmt::Display for CallRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.turn, self.index)
    }
}

/// A whole answer of a model, and what is known about it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ModelCall {
    /// What was asked for.
    #[serde(default, skip_serializing_if = "Purpose::is_turn")]
    pub purpose: Purpose,
    /// Whose model.
    pub provider: Provider,
    /// Which.
    pub model: String,
    /// The answer.
    pub reply: Reply,
    /// What each of the answer's tool calls refers to, in the same order; found out when the answer came, so that
    /// replay does not depend on which tools a server offers today.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub targets: Vec<CallTarget>,
    /// Where the answer does not meet `output_schema`; empty when it does, or there is none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub violations: Vec<String>,
    /// The answer as JSON, when there is an `output_schema` and it is met.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub structured: Option<Value>,
    /// What it consumed.
    pub usage: Usage,
    /// What it cost; absent when the model's price is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<Money>,
    /// How long it took, in milliseconds.
    pub took_ms: u64,
    /// When the first token came, in milliseconds from the start of the call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_token_ms: Option<u64>,
}

/// What a tool call refers to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "target", rename_all = "snake_case")]
pub enum CallTarget {
    /// A tool, with arguments that meet its schema.
    Tool {
        /// The entry of the definition's `tools` that it belongs to (for MCP, the server's).
        entry: String,
        /// What is known of its effect.
        effect: Effect,
        /// Whether a person must allow it.
        approval: bool,
        /// What its server said of it when the model was told: only that tool is called.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pin: Option<Fingerprint>,
    },
    /// Another agent.
    Agent {
        /// Which.
        agent: AgentName,
        /// Whether a person must allow it.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        approval: bool,
        /// Whether its answer is the answer.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        hand_over: bool,
    },
    /// A person: the arguments hold the question.
    Person,
    /// Nothing that can be called; the model is told why.
    Refused {
        /// Why.
        message: String,
    },
}

/// A tool is about to be called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolIntent {
    /// Which call.
    pub call: CallRef,
    /// The tool's name.
    pub tool: String,
    /// What is known of its effect.
    pub effect: Effect,
    /// Sent with the call, and again when it is repeated: `{execution id}-{seq of the first intent}`.
    pub key: String,
}

/// A tool call is settled.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ToolResult {
    /// Which call.
    pub call: CallRef,
    /// How.
    pub outcome: ToolOutcome,
    /// How long the call took, in milliseconds.
    pub took_ms: u64,
}

/// What came of a tool call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "outcome", rename_all = "snake_case")]
pub enum ToolOutcome {
    /// It happened, and this is the result.
    Succeeded {
        /// The result as text.
        content: String,
        /// Whether the end of it was cut off.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        truncated: bool,
    },
    /// It was called and says that it failed, or it certainly did not happen.
    Failed {
        /// What it says.
        message: String,
    },
    /// It was not called.
    Refused {
        /// Why.
        message: String,
    },
    /// It was called, and nobody knows whether it happened.
    Unknown {
        /// What is known.
        message: String,
    },
}

impl ToolOutcome {
    /// What the model is told: the text, and whether it is an error.
    pub fn for_model(&self) -> (String, bool) {
        match self {
            Self::Succeeded {
                content,
                truncated: false,
            } => (content.clone(), false),
            Self::Succeeded {
                content,
                truncated: true,
            } => (
                format!("{content}\n[the rest of the result was cut off]"),
                false,
            ),
            Self::Failed { message } | Self::Refused { message } => (message.clone(), true),
            Self::Unknown { message } => (format!("outcome unknown: {message}"), true),
        }
    }
}

/// A failed try of a model call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ModelFailure {
    /// What kind.
    pub class: ModelErrorClass,
    /// What the provider said, or what happened.
    pub message: String,
    /// Which of the configured models is asked next: 0 is the first choice.
    pub next_choice: usize,
    /// How many tries of that model have failed.
    pub attempt: u32,
    /// What is done differently from then on.
    #[serde(default, skip_serializing_if = "Remedy::is_none")]
    pub remedy: Remedy,
}

/// What is done differently after a failed model call.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "remedy", rename_all = "snake_case")]
pub enum Remedy {
    /// Nothing.
    #[default]
    None,
    /// The model is shown less: it could not read it all.
    Prune {
        /// How many bytes of messages.
        bytes: u64,
    },
    /// No summary is made: older messages are left out instead.
    NoSummary,
}

impl Remedy {
    const fn is_none(&self) -> bool {
        matches!(self, Self::None)
    }
}

/// What a person is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InputRequest {
    /// The tool call that it is about.
    pub call: CallRef,
    /// What kind of answer is needed.
    pub question: Question,
    /// When it is too late to answer.
    pub until: Time,
    /// Why a person is asked, where that does not go without saying.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// Who is asked, if the agent says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<String>,
    /// What is done when nobody answers in time, in words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub otherwise: Option<String>,
}

/// What kind of answer a person is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "question", rename_all = "snake_case")]
pub enum Question {
    /// Words.
    Clarification {
        /// The agent's question.
        text: String,
    },
    /// Whether a tool may be called with exactly these arguments.
    Approval {
        /// Which tool.
        tool: String,
        /// Its arguments as JSON text.
        arguments: String,
    },
    /// Whether a call happened that nobody answered for.
    UnknownOutcome {
        /// Which tool.
        tool: String,
        /// Its arguments as JSON text.
        arguments: String,
        /// The key that was sent with it.
        key: String,
        /// What is known.
        known: String,
    },
    /// Whether a plan may be carried out.
    Plan {
        /// The plan.
        plan: Plan,
        /// What another one must keep to.
        rules: Rules,
    },
}

impl Question {
    /// The kind, as API and journal spell it.
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Clarification { .. } => "clarification",
            Self::Approval { .. } => "approval",
            Self::UnknownOutcome { .. } => "unknown_outcome",
            Self::Plan { .. } => "plan",
        }
    }

    /// Why an answer of the right kind can't be taken, if so: an edited plan must be one that can be carried out.
    pub fn objection(&self, answer: &Answer) -> Option<String> {
        let (Self::Plan { rules, .. }, Answer::EditPlan { plan }) = (self, answer) else {
            return None;
        };
        let problems = match plan::read(&plan.to_string()) {
            Ok(Drafted::Plan(draft)) => rules.check(&draft).err()?,
            Ok(Drafted::Question(_)) => vec!["it is no plan".to_owned()],
            Err(why) => vec![why],
        };
        Some(problems.join("; "))
    }

    /// Whether `answer` is one that this question can be answered with by a person.
    pub const fn accepts(&self, answer: &Answer) -> bool {
        match self {
            Self::Clarification { .. } => {
                matches!(answer, Answer::Text { .. } | Answer::Reject { .. })
            }
            Self::Approval { .. } => matches!(
                answer,
                Answer::Approve | Answer::Edit { .. } | Answer::Reject { .. }
            ),
            Self::UnknownOutcome { .. } => {
                matches!(
                    answer,
                    Answer::Happened { .. } | Answer::Repeat | Answer::Reject { .. }
                )
            }
            Self::Plan { .. } => matches!(
                answer,
                Answer::Approve | Answer::EditPlan { .. } | Answer::Reject { .. }
            ),
        }
    }

    /// What a person can say to it, in words.
    pub const fn choices(&self) -> &'static str {
        match self {
            Self::Clarification { .. } => "answer with text, or reject with a reason",
            Self::Approval { .. } => {
                "approve, edit (with other arguments), or reject with a reason"
            }
            Self::UnknownOutcome { .. } => {
                "say that it happened (with its result), that it is to be repeated, or reject with a reason"
            }
            Self::Plan { .. } => {
                "approve, edit_plan with the plan as it is to be, or reject with a reason"
            }
        }
    }
}

/// A person's answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InputReceived {
    /// The step that asked.
    pub request: Seq,
    /// What they said.
    pub answer: Answer,
    /// Who.
    pub by: String,
}

/// What a person said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// An answer to a clarification.
    Text {
        /// Their words.
        text: String,
    },
    /// The call may be made.
    Approve,
    /// The call may be made, with other arguments.
    Edit {
        /// These, as JSON text.
        arguments: String,
    },
    /// The call may not be made, or an unknown one is not to be repeated.
    Reject {
        /// What the model is told.
        reason: String,
    },
    /// The unknown call happened, and this is its result.
    Happened {
        /// The result as text.
        result: String,
    },
    /// The unknown call did not happen: call again.
    Repeat,
    /// This plan is to be carried out instead.
    EditPlan {
        /// The plan, as JSON.
        plan: Value,
    },
    /// Nobody answered in time.
    Expired,
}
