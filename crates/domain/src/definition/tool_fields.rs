//! The fields of a `tools` entry as they are written: one flat list, of which each type uses its own part.
//!
//! Read by hand rather than by a tagged enum, so that an unknown field is an error with a position and a field
//! that belongs to another type is told apart from a misspelt one.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::tool::{default_max_result_bytes, default_timeout};
use super::{
    AgentTool, ApiTool, Approval, Builtin, Effect, FunctionTool, HttpMethod, McpAuth, McpTool,
    OnUnknown, Tool, ToolKind,
};
use crate::id::AgentName;
use crate::topic::TopicPattern;

/// Where a tool comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub(super) enum ToolType {
    /// The tools of an MCP server: by `url` (streamable HTTP) or by `command` and `args` (stdio).
    Mcp,
    /// An HTTP request made from the arguments.
    Api,
    /// A built-in function.
    Function,
    /// Another agent.
    Agent,
}

/// An entry of `tools`.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Tool")]
pub(super) struct ToolFields {
    /// The name that the model calls it by; for `mcp`, the name of the server.
    name: String,
    /// Where it comes from.
    #[serde(rename = "type")]
    kind: ToolType,
    /// What the model is told about it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    description: String,
    /// What is known of its effect; `unsafe` when nothing is said (`read_only` for built-ins that are).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    effect: Option<Effect>,
    /// For `checkable`: the tool of this agent that tells whether an earlier call happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    check: Option<String>,
    /// What is done when the outcome of an unsafe call is not known.
    #[serde(default)]
    on_unknown: OnUnknown,
    /// Whether a person must allow its calls: all, those of some tools (mcp), or those with certain arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    requires_approval: Option<Approval>,
    /// How long a call may take, in seconds.
    #[serde(default = "default_timeout")]
    timeout_seconds: u64,
    /// How much of a result is kept, in bytes.
    #[serde(default = "default_max_result_bytes")]
    max_result_bytes: usize,
    /// mcp, api: the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    url: Option<String>,
    /// mcp: the program that serves on stdio.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    command: Option<String>,
    /// mcp: the program's arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    args: Option<Vec<String>>,
    /// mcp: variables given to the program.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    env: Option<BTreeMap<String, String>>,
    /// mcp: how to authenticate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    auth: Option<McpAuth>,
    /// mcp: the only tools that are offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    allow: Option<Vec<String>>,
    /// mcp: tools that are not offered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    deny: Option<Vec<String>>,
    /// mcp: effects of single tools.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    effects: Option<BTreeMap<String, Effect>>,
    /// mcp: whether a tool whose description or schema changes is withheld until it is approved; true when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pin: Option<bool>,
    /// api: the verb.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    method: Option<HttpMethod>,
    /// api: headers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    headers: Option<BTreeMap<String, String>>,
    /// api: the body as JSON.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    body: Option<Value>,
    /// api: the JSON Schema of the arguments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    parameters: Option<Value>,
    /// function: which one; the entry's name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    function: Option<Builtin>,
    /// function: the folder that the file tools cannot leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    root: Option<String>,
    /// function: hosts that `http_fetch` may ask.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hosts: Option<Vec<String>>,
    /// function: topics that `publish_event` may publish to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    topics: Option<Vec<TopicPattern>>,
    /// agent: which one; the entry's name when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent: Option<AgentName>,
    /// agent: whether its answer is this agent's answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    hand_over: Option<bool>,
}

impl ToolFields {
    /// The names of the fields that are set, each with the types that they belong to.
    fn particular(&self) -> [(&'static str, bool, &'static [ToolType]); 19] {
        use ToolType::{Agent, Api, Function, Mcp};
        [
            ("url", self.url.is_some(), &[Mcp, Api]),
            ("command", self.command.is_some(), &[Mcp]),
            ("args", self.args.is_some(), &[Mcp]),
            ("env", self.env.is_some(), &[Mcp]),
            ("auth", self.auth.is_some(), &[Mcp]),
            ("allow", self.allow.is_some(), &[Mcp]),
            ("deny", self.deny.is_some(), &[Mcp]),
            ("effects", self.effects.is_some(), &[Mcp]),
            ("pin", self.pin.is_some(), &[Mcp]),
            ("method", self.method.is_some(), &[Api]),
            ("headers", self.headers.is_some(), &[Api]),
            ("body", self.body.is_some(), &[Api]),
            ("parameters", self.parameters.is_some(), &[Api]),
            ("function", self.function.is_some(), &[Function]),
            ("root", self.root.is_some(), &[Function]),
            ("hosts", self.hosts.is_some(), &[Function]),
            ("topics", self.topics.is_some(), &[Function]),
            ("agent", self.agent.is_some(), &[Agent]),
            ("hand_over", self.hand_over.is_some(), &[Agent]),
        ]
    }
}

impl TryFrom<ToolFields> for Tool {
    type Error = String;

    fn try_from(fields: ToolFields) -> Result<Self, String> {
        if let Some((name, ..)) = fields
            .particular()
            .into_iter()
            .find(|(_, set, types)| *set && !types.contains(&fields.kind))
        {
            let word = serde_json::to_value(fields.kind).unwrap_or_default();
            return Err(format!(
                "tool {:?}: the field `{name}` has no meaning for type {word}",
                fields.name
            ));
        }
        let kind = match fields.kind {
            ToolType::Mcp => ToolKind::Mcp(McpTool {
                url: fields.url,
                command: fields.command,
                args: fields.args.unwrap_or_default(),
                env: fields.env.unwrap_or_default(),
                auth: fields.auth,
                allow: fields.allow.unwrap_or_default(),
                deny: fields.deny.unwrap_or_default(),
                effects: fields.effects.unwrap_or_default(),
                pin: fields.pin.unwrap_or(true),
            }),
            ToolType::Api => ToolKind::Api(ApiTool {
                method: fields.method.unwrap_or_default(),
                url: fields.url.ok_or_else(|| {
                    format!("tool {:?}: an api tool needs the field `url`", fields.name)
                })?,
                headers: fields.headers.unwrap_or_default(),
                body: fields.body,
                parameters: fields.parameters,
            }),
            ToolType::Function => ToolKind::Function(FunctionTool {
                function: fields.function,
                root: fields.root,
                hosts: fields.hosts.unwrap_or_default(),
                topics: fields.topics.unwrap_or_default(),
            }),
            ToolType::Agent => ToolKind::Agent(AgentTool {
                agent: fields.agent,
                hand_over: fields.hand_over.unwrap_or_default(),
            }),
        };
        Ok(Self {
            name: fields.name,
            description: fields.description,
            kind,
            effect: fields.effect,
            check: fields.check,
            on_unknown: fields.on_unknown,
            requires_approval: fields.requires_approval,
            timeout_seconds: fields.timeout_seconds,
            max_result_bytes: fields.max_result_bytes,
        })
    }
}

impl From<Tool> for ToolFields {
    fn from(tool: Tool) -> Self {
        let mut fields = Self {
            name: tool.name,
            kind: ToolType::Agent,
            description: tool.description,
            effect: tool.effect,
            check: tool.check,
            on_unknown: tool.on_unknown,
            requires_approval: tool.requires_approval,
            timeout_seconds: tool.timeout_seconds,
            max_result_bytes: tool.max_result_bytes,
            url: None,
            command: None,
            args: None,
            env: None,
            auth: None,
            allow: None,
            deny: None,
            effects: None,
            pin: None,
            method: None,
            headers: None,
            body: None,
            parameters: None,
            function: None,
            root: None,
            hosts: None,
            topics: None,
            agent: None,
            hand_over: None,
        };
        match tool.kind {
            ToolKind::Mcp(server) => {
                fields.kind = ToolType::Mcp;
                fields.url = server.url;
                fields.command = server.command;
                fields.args = some(server.args, Vec::is_empty);
                fields.env = some(server.env, BTreeMap::is_empty);
                fields.auth = server.auth;
                fields.allow = some(server.allow, Vec::is_empty);
                fields.deny = some(server.deny, Vec::is_empty);
                fields.effects = some(server.effects, BTreeMap::is_empty);
                fields.pin = (!server.pin).then_some(false);
            }
            ToolKind::Api(api) => {
                fields.kind = ToolType::Api;
                fields.method = Some(api.method);
                fields.url = Some(api.url);
                fields.headers = some(api.headers, BTreeMap::is_empty);
                fields.body = api.body;
                fields.parameters = api.parameters;
            }
            ToolKind::Function(function) => {
                fields.kind = ToolType::Function;
                fields.function = function.function;
                fields.root = function.root;
                fields.hosts = some(function.hosts, Vec::is_empty);
                fields.topics = some(function.topics, Vec::is_empty);
            }
            ToolKind::Agent(agent) => {
                fields.agent = agent.agent;
                fields.hand_over = agent.hand_over.then_some(true);
            }
        }
        fields
    }
}

/// `None` for what is empty, so that it is not written.
fn some<T>(value: T, is_empty: fn(&T) -> bool) -> Option<T> {
    (!is_empty(&value)).then_some(value)
}
