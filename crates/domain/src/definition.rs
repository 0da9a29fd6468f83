//! An agent as its YAML file says it. One file, one [`Definition`]; equal content, equal version.
//!
//! Reading refuses unknown fields and wrong types; [`Definition::problems`] refuses what no agent can work with.

mod approval;
pub mod expand;
mod llm;
mod modes;
mod slack;
mod tool;
mod tool_fields;
mod validate;

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

pub use approval::{
    Approval, ApprovalRule, ArgumentRule, OnApprovalTimeout, OnClarificationTimeout,
};
pub use llm::{FallbackModel, LlmConfig, Provider};
pub use modes::{
    CollaborativeConfig, ContinuousConfig, MisfirePolicy, OnConcurrent, OnStepFailure,
    OverlapPolicy, PlanningStrategy, Pruning, ScheduleConfig, ScheduleType,
};
pub use slack::{SlackConfig, SlackTrigger};
pub use tool::{
    AgentTool, ApiTool, Builtin, Effect, FunctionTool, HttpMethod, McpAuth, McpTool, OnUnknown,
    Tool, ToolKind,
};
pub use validate::{Problem, Severity};

use crate::budget::Budget;
use crate::id::{AgentName, ConfigVersion};
use crate::retry::RetryConfig;
use crate::topic::TopicPattern;

/// How an agent works.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionMode {
    /// One isolated task.
    Autonomous,
    /// A planner and several agents over a shared state.
    Collaborative,
    /// A long-lived conversation.
    Continuous,
    /// By cron or interval.
    Scheduled,
}

impl ExecutionMode {
    /// The word in YAML, API and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Autonomous => "autonomous",
            Self::Collaborative => "collaborative",
            Self::Continuous => "continuous",
            Self::Scheduled => "scheduled",
        }
    }
}

/// The whole definition of an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Definition {
    /// Its name, unique in the folder of agents.
    pub name: AgentName,
    /// How it works.
    pub execution_mode: ExecutionMode,
    /// The model behind it.
    pub llm_config: LlmConfig,
    /// Who it is and what it is for; sent first with every model call.
    pub system_prompt: String,
    /// What it does, in a sentence, for people.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// A label of your own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub agent_type: String,
    /// A version label of your own; what pins an execution is the content hash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether it takes work.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Labels to filter by.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Notes of your own, kept and given back.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub metadata: Value,
    /// Added to the system prompt.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub instructions: String,
    /// How people talk with it in Slack; not at all when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack: Option<SlackConfig>,
    /// Events on these topics start an execution.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub event_subscriptions: Vec<TopicPattern>,
    /// How long an execution may take, waiting for people included. In seconds.
    #[serde(default = "default_timeout")]
    pub timeout_seconds: u64,
    /// How many turns of the model an execution may take.
    #[serde(default = "default_max_steps")]
    pub max_steps: u32,
    /// How many executions of this agent may run at once; unlimited when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// A JSON Schema that the answer must meet.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    /// What it may call.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<Tool>,
    /// Which calls of its tools a person must allow, besides those that a tool's own `requires_approval` names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires_approval: Option<Approval>,
    /// How long an approval is waited for, in seconds; as long as the execution may take when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_timeout_seconds: Option<u64>,
    /// What becomes of a call that nobody allowed or refused in time.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_approval_timeout: OnApprovalTimeout,
    /// How long an answer to a question is waited for, in seconds; as long as the execution may take when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub clarification_timeout_seconds: Option<u64>,
    /// What becomes of a question that nobody answered in time.
    #[serde(default, skip_serializing_if = "is_default")]
    pub on_clarification_timeout: OnClarificationTimeout,
    /// For whom its questions are, in a word of your own: shown in the inbox, and to filter by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_by: Option<String>,
    /// How many levels of agents may work below it, 0 to 8; 8 when absent, and never more than those above it leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_delegation_depth: Option<u8>,
    /// How failed model calls are repeated.
    #[serde(default)]
    pub retry_config: RetryConfig,
    /// What an execution, and a day, may consume.
    #[serde(default)]
    pub budget: Budget,
    /// For the continuous mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continuous_config: Option<ContinuousConfig>,
    /// For the collaborative mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collaborative_config: Option<CollaborativeConfig>,
    /// For the scheduled mode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule_config: Option<ScheduleConfig>,
}

impl Definition {
    /// The version: a hash of the content, the same in every process that reads the same file. Secrets are not
    /// part of it when the definition holds references to them.
    pub fn content_hash(&self) -> ConfigVersion {
        // Serialising plain data to JSON cannot fail; were it to, all such definitions would share one version.
        let canonical = serde_json::to_vec(self).unwrap_or_default();
        let hash = Sha256::digest(&canonical);
        let hex: String = hash
            .iter()
            .take(8)
            .map(|byte| format!("{byte:02x}"))
            .collect();
        ConfigVersion::try_from(hex)
            .unwrap_or_else(|_| unreachable!("eight bytes are sixteen hex digits"))
    }

    /// What the model is told first: the system prompt and the instructions.
    pub fn full_prompt(&self) -> Cow<'_, str> {
        if self.instructions.is_empty() {
            Cow::Borrowed(&self.system_prompt)
        } else {
            let prompt = self.system_prompt.trim_end();
            Cow::Owned(format!("{prompt}\n\n{}", self.instructions))
        }
    }

    /// How long an execution may take, waiting for people included. In seconds.
    pub fn longest_seconds(&self) -> u64 {
        let team = self.collaborative_config.as_ref();
        let team = team.filter(|_| self.execution_mode == ExecutionMode::Collaborative);
        let team = team.and_then(|config| config.timeout_seconds);
        self.timeout_seconds.min(team.unwrap_or(u64::MAX))
    }

    /// The tool entry called `name` (for `mcp`, the server's).
    pub fn tool(&self, name: &str) -> Option<&Tool> {
        self.tools.iter().find(|tool| tool.name == name)
    }
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

const fn yes() -> bool {
    true
}

const fn default_timeout() -> u64 {
    3600
}

const fn default_max_steps() -> u32 {
    50
}
