//! Which model, and how it is asked.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::quantity::Tokens;

/// Whose wire format is spoken.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// OpenAI's chat completions, and every server compatible with them (`api_base`).
    Openai,
    /// Anthropic's messages.
    Anthropic,
    /// AWS Bedrock's Converse.
    #[serde(alias = "aws_bedrock")]
    Bedrock,
    /// Ollama's chat.
    Ollama,
    /// Replies from a script, without any model: for demonstrations, dry runs and tests.
    Scripted,
}

impl Provider {
    /// The word in YAML and API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Openai => "openai",
            Self::Anthropic => "anthropic",
            Self::Bedrock => "bedrock",
            Self::Ollama => "ollama",
            Self::Scripted => "scripted",
        }
    }
}

/// The `llm_config` of an agent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct LlmConfig {
    /// Whose model.
    pub provider: Provider,
    /// Its name, as the provider spells it; for `scripted`, the script's file below the configuration folder.
    pub model: String,
    /// 0 to 2: how much chance there is in the answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub temperature: Option<f64>,
    /// The longest answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_tokens: Option<Tokens>,
    /// 0 to 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_p: Option<f64>,
    /// At least 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_k: Option<u32>,
    /// -2 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub frequency_penalty: Option<f64>,
    /// -2 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub presence_penalty: Option<f64>,
    /// Texts at which the model stops.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stop_sequences: Vec<String>,
    /// For repeatable answers, where the provider offers it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed: Option<i64>,
    /// Passed to the provider as it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_format: Option<Value>,
    /// How long one model call may take, in seconds.
    #[serde(default = "default_timeout")]
    pub timeout: u64,
    /// The address of an OpenAI-compatible (or other) server instead of the provider's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_base: Option<String>,
    /// The key for `api_base`, as a reference `${NAME}`. Without it a server at another address than the provider's
    /// own gets no key: a key goes to the host that it is for, and nowhere else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub api_key: Option<String>,
    /// The AWS region.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// The address of Bedrock instead of AWS's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_url: Option<String>,
    /// Ollama: the size of the context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_ctx: Option<u32>,
    /// Ollama: the longest answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub num_predict: Option<i32>,
    /// Ollama: how much repetition is held against a word.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repeat_penalty: Option<f64>,
    /// Merged into the request's body as they are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub additional_params: Option<serde_json::Map<String, Value>>,
    /// Tried in order when this model fails for good.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub fallbacks: Vec<FallbackModel>,
    /// Whether the provider may cache the prompt, where that has to be asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub prompt_cache: Option<bool>,
}

/// Another model to try.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct FallbackModel {
    /// Whose model.
    pub provider: Provider,
    /// Its name.
    pub model: String,
}

impl LlmConfig {
    /// The configuration for try number `fallback`: 0 is the first choice, 1 the first fallback, and so on. A
    /// fallback at another provider does not inherit an address: a key must never go to another's host.
    pub fn choice(&self, fallback: usize) -> Option<Self> {
        let Some(index) = fallback.checked_sub(1) else {
            return Some(self.clone());
        };
        let other = self.fallbacks.get(index)?;
        let mut config = self.clone();
        if other.provider != self.provider {
            config.api_base = None;
            config.api_key = None;
            config.endpoint_url = None;
            config.response_format = None;
            config.additional_params = None;
        }
        config.provider = other.provider;
        config.model.clone_from(&other.model);
        Some(config)
    }
}

const fn default_timeout() -> u64 {
    120
}
