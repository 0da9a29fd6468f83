//! What an agent may call, and what is known of the effect of a call.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Approval;
use super::tool_fields::ToolFields;
use crate::id::AgentName;
use crate::topic::TopicPattern;

/// What it means when a call may or may not have happened.
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
pub enum Effect {
    /// It changes nothing: calling again is harmless.
    ReadOnly,
    /// It honours the idempotency key: calling again with the same key does nothing more.
    Idempotent,
    /// Its `check` tool tells whether an earlier call happened.
    Checkable,
    /// Nothing is known: calling again could do it twice, so it is not repeated.
    #[default]
    Unsafe,
}

/// What is done when it is not known whether an unsafe call happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnUnknown {
    /// A person decides.
    #[default]
    Ask,
    /// The execution fails.
    Fail,
}

/// An entry of `tools`: one tool, or for `mcp` a server with its tools.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "ToolFields", into = "ToolFields")]
#[schemars(with = "ToolFields")]
pub struct Tool {
    /// The name that the model calls it by; for `mcp`, the name of the server.
    pub name: String,
    /// What the model is told about it.
    pub description: String,
    /// Where it comes from.
    pub kind: ToolKind,
    /// What is known of its effect, if the author says so; [`Tool::effect_of`] answers what holds.
    pub effect: Option<Effect>,
    /// For `checkable`: the tool of this agent that tells whether an earlier call happened. It is called with
    /// `{"idempotency_key", "tool", "arguments"}` and answers `{"happened": bool, "result": …}`.
    pub check: Option<String>,
    /// What is done when the outcome of an unsafe call is not known.
    pub on_unknown: OnUnknown,
    /// Whether a person must allow each call.
    pub requires_approval: Option<Approval>,
    /// How long a call may take, in seconds.
    pub timeout_seconds: u64,
    /// How much of a result is kept, in bytes; the rest is cut, and the model is told.
    pub max_result_bytes: usize,
}

/// Where a tool comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum ToolKind {
    /// The tools of an MCP server.
    Mcp(McpTool),
    /// An HTTP request.
    Api(ApiTool),
    /// One of AgentRunner's own.
    Function(FunctionTool),
    /// Another agent.
    Agent(AgentTool),
}

/// An MCP server: by `url` (streamable HTTP) or by `command` (stdio), never both.
#[derive(Debug, Clone, PartialEq)]
pub struct McpTool {
    /// Its address, for streamable HTTP.
    pub url: Option<String>,
    /// The program, for stdio.
    pub command: Option<String>,
    /// The program's arguments.
    pub args: Vec<String>,
    /// Variables given to the program; it inherits none but `PATH` and `HOME`.
    pub env: BTreeMap<String, String>,
    /// How to authenticate.
    pub auth: Option<McpAuth>,
    /// The only tools that are offered to the model; all when empty.
    pub allow: Vec<String>,
    /// Tools that are not offered.
    pub deny: Vec<String>,
    /// Effects of single tools of the server, where they differ from the entry's `effect`.
    pub effects: BTreeMap<String, Effect>,
    /// Whether a tool that changes is withheld until a person approves it as it is then.
    pub pin: bool,
}

/// How a server knows us.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum McpAuth {
    /// `Authorization: Bearer …`.
    BearerToken {
        /// The token; write `${NAME}`.
        token: String,
    },
    /// A header with a key.
    ApiKey {
        /// The key; write `${NAME}`.
        key: String,
        /// The header's name.
        #[serde(default = "default_key_header")]
        header: String,
    },
    /// OAuth 2.1 client credentials.
    Oauth2 {
        /// Where tokens are had.
        token_url: String,
        /// Who asks.
        client_id: String,
        /// The secret; write `${NAME}`.
        client_secret: String,
        /// What for.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        scopes: Vec<String>,
    },
}

/// An HTTP request made from the arguments: `{name}` in `url`, `headers` and `body` stands for an argument.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiTool {
    /// The verb.
    pub method: HttpMethod,
    /// The address; an argument put into its path or query is percent-encoded.
    pub url: String,
    /// Headers; secrets as `${NAME}`.
    pub headers: BTreeMap<String, String>,
    /// The body as JSON; a text that is just `{name}` becomes the argument as it is. Without it, arguments that
    /// the address does not use are the query (GET, DELETE) or the JSON body (others).
    pub body: Option<Value>,
    /// The JSON Schema of the arguments.
    pub parameters: Option<Value>,
}

/// An HTTP verb.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum HttpMethod {
    /// GET.
    #[default]
    Get,
    /// POST.
    Post,
    /// PUT.
    Put,
    /// PATCH.
    Patch,
    /// DELETE.
    Delete,
}

/// A built-in function, by its name or, when the model should know it by another, by `function`.
#[derive(Debug, Clone, PartialEq)]
pub struct FunctionTool {
    /// Which one; the entry's `name` when absent.
    pub function: Option<Builtin>,
    /// For the file tools: the folder that they cannot leave, relative to the working directory.
    pub root: Option<String>,
    /// For `http_fetch`: hosts that may be asked, besides what the operator allows. All public ones when empty.
    pub hosts: Vec<String>,
    /// For `publish_event`: topics that may be published to; all when empty.
    pub topics: Vec<TopicPattern>,
}

/// The built-in functions.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Builtin {
    /// Gets a web page or a JSON document, through the egress guard.
    HttpFetch,
    /// Reads a text file below `root`.
    ReadFile,
    /// Lists a folder below `root`.
    ListFiles,
    /// Finds lines in files below `root`.
    SearchFiles,
    /// Tells the time in a zone.
    CurrentTime,
    /// Computes an expression.
    Calculate,
    /// Publishes an event.
    PublishEvent,
    /// Keeps a fact of this agent across executions.
    Remember,
    /// Gives back what was kept.
    Recall,
    /// Asks a person and waits for the answer.
    AskHuman,
    /// Reads the shared state of the team that the execution works for.
    SharedStateGet,
    /// Writes to it.
    SharedStateSet,
}

impl Builtin {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::HttpFetch,
        Self::ReadFile,
        Self::ListFiles,
        Self::SearchFiles,
        Self::CurrentTime,
        Self::Calculate,
        Self::PublishEvent,
        Self::Remember,
        Self::Recall,
        Self::AskHuman,
        Self::SharedStateGet,
        Self::SharedStateSet,
    ];

    /// The name in YAML.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HttpFetch => "http_fetch",
            Self::ReadFile => "read_file",
            Self::ListFiles => "list_files",
            Self::SearchFiles => "search_files",
            Self::CurrentTime => "current_time",
            Self::Calculate => "calculate",
            Self::PublishEvent => "publish_event",
            Self::Remember => "remember",
            Self::Recall => "recall",
            Self::AskHuman => "ask_human",
            Self::SharedStateGet => "shared_state_get",
            Self::SharedStateSet => "shared_state_set",
        }
    }

    /// What is known of its effect.
    pub const fn effect(self) -> Effect {
        match self {
            Self::HttpFetch
            | Self::ReadFile
            | Self::ListFiles
            | Self::SearchFiles
            | Self::CurrentTime
            | Self::Calculate
            | Self::Recall
            | Self::AskHuman
            | Self::SharedStateGet => Effect::ReadOnly,
            Self::PublishEvent | Self::Remember | Self::SharedStateSet => Effect::Idempotent,
        }
    }

    /// The one called `name`.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|builtin| builtin.as_str() == name)
    }
}

/// Another agent as a tool: the model hands it a task and gets its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentTool {
    /// Which one; the entry's `name` when absent.
    pub agent: Option<AgentName>,
    /// Whether its answer is the answer of the agent that called it, without another word of that one's model.
    pub hand_over: bool,
}

impl Tool {
    /// The effect of calling the tool named `tool` of this entry (the same as the entry but for MCP servers).
    pub fn effect_of(&self, tool: &str) -> Effect {
        let by_kind = match &self.kind {
            ToolKind::Mcp(server) => server.effects.get(tool).copied(),
            ToolKind::Function(_) => self.builtin().map(Builtin::effect),
            ToolKind::Api(_) | ToolKind::Agent(_) => None,
        };
        match (&self.kind, by_kind, self.effect) {
            (ToolKind::Mcp(_), Some(single), _) => single,
            (_, _, Some(declared)) => declared,
            (_, Some(known), None) => known,
            (_, None, None) => Effect::Unsafe,
        }
    }

    /// The built-in function behind it, if it is one.
    pub fn builtin(&self) -> Option<Builtin> {
        match &self.kind {
            ToolKind::Function(function) => {
                function.function.or_else(|| Builtin::named(&self.name))
            }
            ToolKind::Mcp(_) | ToolKind::Api(_) | ToolKind::Agent(_) => None,
        }
    }

    /// The agent behind it, if it is one.
    pub fn agent(&self) -> Option<AgentName> {
        match &self.kind {
            ToolKind::Agent(tool) => tool.agent.clone().or_else(|| self.name.parse().ok()),
            ToolKind::Mcp(_) | ToolKind::Api(_) | ToolKind::Function(_) => None,
        }
    }
}

fn default_key_header() -> String {
    "X-API-Key".to_owned()
}

pub(super) const fn default_timeout() -> u64 {
    60
}

pub(super) const fn default_max_result_bytes() -> usize {
    65_536
}
