//! What no agent can work with, found before it is tried.

mod collaborative;

use std::collections::BTreeSet;

use serde::Serialize;
use serde_json::Value;

use super::{
    Approval, ApprovalRule, Builtin, ContinuousConfig, Definition, Effect, ExecutionMode,
    LlmConfig, McpTool, OnApprovalTimeout, Provider, ScheduleConfig, SlackConfig, Tool, ToolKind,
};
use crate::Time;
use crate::execution::MAX_DEPTH;
use crate::nearest::nearest;
use crate::quantity::Money;
use crate::schedule::Trigger;

/// Something about a definition that its author should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// Where: `tools[0].effect`.
    pub path: String,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub hint: String,
    /// Whether it can be lived with.
    #[serde(skip)]
    pub severity: Severity,
}

/// Whether a problem can be lived with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// No.
    Error,
    /// Yes, but.
    Warning,
}

/// The longest system prompt or description, in bytes.
const MAX_TEXT: usize = 1 << 20;
/// The most tools of an agent.
const MAX_TOOLS: usize = 128;

#[derive(Default)]
struct Findings(Vec<Problem>);

impl Findings {
    fn error(
        &mut self,
        path: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.push(path.into(), message.into(), hint.into(), Severity::Error);
    }

    fn warn(
        &mut self,
        path: impl Into<String>,
        message: impl Into<String>,
        hint: impl Into<String>,
    ) {
        self.push(path.into(), message.into(), hint.into(), Severity::Warning);
    }

    fn push(&mut self, path: String, message: String, hint: String, severity: Severity) {
        self.0.push(Problem {
            path,
            message,
            hint,
            severity,
        });
    }

    fn range(&mut self, path: &str, value: Option<f64>, low: f64, high: f64) {
        if let Some(value) = value
            && !(low..=high).contains(&value)
        {
            self.error(
                path,
                format!("{value} is out of range"),
                format!("it is between {low} and {high}"),
            );
        }
    }
}

impl Definition {
    /// Everything wrong with it, errors first in the order of the file's fields; empty when all is well.
    pub fn problems(&self) -> Vec<Problem> {
        let mut found = Findings::default();
        self.check_common(&mut found);
        check_llm("llm_config", &self.llm_config, &mut found);
        self.check_tools(&mut found);
        self.check_limits(&mut found);
        self.check_people(&mut found);
        self.check_modes(&mut found);
        found
            .0
            .sort_by_key(|problem| problem.severity == Severity::Warning);
        found.0
    }

    fn check_common(&self, found: &mut Findings) {
        if self.system_prompt.trim().is_empty() {
            found.error(
                "system_prompt",
                "it is empty",
                "say who the agent is and what it is for",
            );
        }
        for (path, text) in [
            ("system_prompt", &self.system_prompt),
            ("instructions", &self.instructions),
            ("description", &self.description),
        ] {
            if text.len() > MAX_TEXT {
                found.error(
                    path,
                    format!("it has {} bytes", text.len()),
                    format!("at most {MAX_TEXT} are allowed"),
                );
            }
        }
        if let Some(schema) = &self.output_schema
            && !schema.is_object()
        {
            found.error(
                "output_schema",
                "it is not a JSON Schema",
                "write an object with `type` and `properties`",
            );
        }
        if self.concurrency == Some(0) {
            found.error(
                "concurrency",
                "0 would never run",
                "leave it out for no limit, or set enabled: false",
            );
        }
    }

    fn check_limits(&self, found: &mut Findings) {
        if self.timeout_seconds == 0 || self.timeout_seconds > 366 * 86_400 {
            found.error(
                "timeout_seconds",
                format!("{} is out of range", self.timeout_seconds),
                "it is 1 to 31622400 (a year)",
            );
        }
        if self.max_steps == 0 || self.max_steps > 10_000 {
            found.error(
                "max_steps",
                format!("{} is out of range", self.max_steps),
                "it is 1 to 10000",
            );
        }
        let retry = &self.retry_config;
        found.range(
            "retry_config.max_retries",
            Some(f64::from(retry.max_retries)),
            0.0,
            20.0,
        );
        found.range(
            "retry_config.retry_delay_seconds",
            Some(retry.retry_delay_seconds),
            0.0,
            3600.0,
        );
        found.range(
            "retry_config.backoff_multiplier",
            Some(retry.backoff_multiplier),
            1.0,
            100.0,
        );
        found.range(
            "retry_config.max_retry_delay",
            Some(retry.max_retry_delay),
            0.0,
            86_400.0,
        );
        if self.budget.max_cost_usd == Some(Money::ZERO) {
            found.error(
                "budget.max_cost_usd",
                "0 allows no call",
                "leave it out for no limit",
            );
        }
    }

    fn check_people(&self, found: &mut Findings) {
        if let Some(approval) = &self.requires_approval {
            check_approval("requires_approval", approval, found);
        }
        for (field, seconds) in [
            ("approval_timeout_seconds", self.approval_timeout_seconds),
            (
                "clarification_timeout_seconds",
                self.clarification_timeout_seconds,
            ),
        ] {
            let Some(seconds) = seconds else { continue };
            if seconds == 0 || seconds > 366 * 86_400 {
                found.error(
                    field,
                    format!("{seconds} is out of range"),
                    "it is 1 to 31622400 (a year)",
                );
            } else if seconds >= self.timeout_seconds {
                found.warn(
                    field,
                    format!(
                        "it has no effect: an execution takes {} s at most",
                        self.timeout_seconds
                    ),
                    "raise timeout_seconds, or wait less long for people",
                );
            }
        }
        if self.on_approval_timeout == OnApprovalTimeout::Approve {
            found.warn(
                "on_approval_timeout",
                "a call that nobody looked at is made",
                "write deny, unless silence is consent",
            );
        }
        if self
            .answered_by
            .as_ref()
            .is_some_and(|who| who.trim().is_empty() || who.len() > 200)
        {
            found.error(
                "answered_by",
                "it is empty or long",
                "write who answers in 1 to 200 bytes",
            );
        }
        for (path, message, hint) in self.slack.iter().flat_map(SlackConfig::problems) {
            found.error(path, message, hint);
        }
        if self
            .max_delegation_depth
            .is_some_and(|depth| depth > MAX_DEPTH)
        {
            found.error(
                "max_delegation_depth",
                "it is out of range",
                format!("it is 0 to {MAX_DEPTH}"),
            );
        }
    }

    fn check_modes(&self, found: &mut Findings) {
        let blocks = [
            (
                "continuous_config",
                self.continuous_config.is_some(),
                ExecutionMode::Continuous,
            ),
            (
                "collaborative_config",
                self.collaborative_config.is_some(),
                ExecutionMode::Collaborative,
            ),
            (
                "schedule_config",
                self.schedule_config.is_some(),
                ExecutionMode::Scheduled,
            ),
        ];
        for (path, present, mode) in blocks {
            if present && self.execution_mode != mode {
                found.warn(
                    path,
                    format!(
                        "it has no effect in the {} mode",
                        self.execution_mode.as_str()
                    ),
                    format!("remove it or set execution_mode: {}", mode.as_str()),
                );
            }
        }
        if let Some(config) = &self.continuous_config {
            check_continuous(config, found);
        }
        if let Some(config) = &self.collaborative_config {
            collaborative::check(&self.name, config, found);
        }
        if self.execution_mode == ExecutionMode::Scheduled && self.schedule_config.is_none() {
            found.error("schedule_config", "it is missing", "a scheduled agent says when: type: cron with cron:, or type: interval with interval_seconds:");
        }
        if let Some(config) = &self.schedule_config {
            check_schedule(config, found);
        }
    }

    fn check_tools(&self, found: &mut Findings) {
        if self.tools.len() > MAX_TOOLS {
            found.error(
                "tools",
                format!("there are {}", self.tools.len()),
                format!("at most {MAX_TOOLS} are allowed"),
            );
        }
        let mut names = BTreeSet::new();
        for (index, tool) in self.tools.iter().enumerate() {
            let path = format!("tools[{index}]");
            if !names.insert(tool.name.as_str()) {
                found.error(
                    format!("{path}.name"),
                    format!("{:?} is taken by another tool", tool.name),
                    "give each tool a name of its own",
                );
            }
            self.check_tool(tool, &path, found);
        }
    }

    fn check_tool(&self, tool: &Tool, path: &str, found: &mut Findings) {
        let valid = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        if tool.name.is_empty() || tool.name.len() > 64 || !tool.name.chars().all(valid) {
            found.error(
                format!("{path}.name"),
                format!("{:?} is not a tool name", tool.name),
                "use 1 to 64 letters, digits, '_' or '-'",
            );
        }
        if tool.timeout_seconds == 0 || tool.timeout_seconds > 86_400 {
            found.error(
                format!("{path}.timeout_seconds"),
                format!("{} is out of range", tool.timeout_seconds),
                "it is 1 to 86400",
            );
        }
        if tool.max_result_bytes == 0 || tool.max_result_bytes > 16 << 20 {
            found.error(
                format!("{path}.max_result_bytes"),
                format!("{} is out of range", tool.max_result_bytes),
                "it is 1 to 16777216",
            );
        }
        self.check_effect(tool, path, found);
        self.check_kind(tool, path, found);
    }

    fn check_kind(&self, tool: &Tool, path: &str, found: &mut Findings) {
        match &tool.kind {
            ToolKind::Mcp(server) => check_server(server, path, found),
            ToolKind::Api(api) => {
                check_url(&format!("{path}.url"), &api.url, found);
                check_schema(
                    &format!("{path}.parameters"),
                    api.parameters.as_ref(),
                    found,
                );
            }
            ToolKind::Function(function) => {
                check_function(tool, function.root.is_none(), path, found)
            }
            ToolKind::Agent(_) => match tool.agent() {
                None => found.error(
                    format!("{path}.agent"),
                    format!("{:?} is not an agent name", tool.name),
                    "add agent: with the name of the agent",
                ),
                Some(agent) if agent == self.name => {
                    found.error(
                        format!("{path}.agent"),
                        "an agent can't be its own tool",
                        "name another agent",
                    );
                }
                Some(_) => self.check_hand_over(tool, path, found),
            },
        }
    }

    fn check_hand_over(&self, tool: &Tool, path: &str, found: &mut Findings) {
        if matches!(&tool.kind, ToolKind::Agent(agent) if agent.hand_over)
            && self.output_schema.is_some()
        {
            found.error(
                format!("{path}.hand_over"),
                "the other agent's answer would not be checked against output_schema",
                "take output_schema away here and give it to the other agent, or leave hand_over out",
            );
        }
    }

    fn check_effect(&self, tool: &Tool, path: &str, found: &mut Findings) {
        match (tool.effect, &tool.check) {
            (Some(Effect::Checkable), None) => {
                found.error(
                    format!("{path}.check"),
                    "a checkable tool needs it",
                    "name the tool that tells whether an earlier call happened",
                );
            }
            (Some(Effect::Checkable), Some(check)) if self.tool(check).is_none() => {
                found.error(
                    format!("{path}.check"),
                    format!("there is no tool {check:?}"),
                    "name another tool of this agent",
                );
            }
            (effect, Some(_)) if effect != Some(Effect::Checkable) => {
                found.warn(
                    format!("{path}.check"),
                    "it has no effect",
                    "set effect: checkable",
                );
            }
            _ => {}
        }
        let Some(approval) = &tool.requires_approval else {
            return;
        };
        check_approval(&format!("{path}.requires_approval"), approval, found);
        if let Approval::Rules(rules) = approval
            && !matches!(tool.kind, ToolKind::Mcp(_))
        {
            let is_other = |rule: &ApprovalRule| match rule {
                ApprovalRule::Tool(name) => *name != tool.name,
                ApprovalRule::When(rule) => rule.tool.as_ref().is_some_and(|t| *t != tool.name),
            };
            if rules.iter().all(is_other) {
                found.error(
                    format!("{path}.requires_approval"),
                    "none of these is this tool",
                    "write requires_approval: true",
                );
            }
        }
    }
}

fn check_approval(path: &str, approval: &Approval, found: &mut Findings) {
    for (index, why) in approval.mistakes() {
        found.error(
            format!("{path}[{index}]"),
            why,
            "write argument: with a path such as order.amount, and one of matches, equals, above, below",
        );
    }
}

fn check_schedule(config: &ScheduleConfig, found: &mut Findings) {
    // What comes from a variable is looked at when its value is known.
    let has_variable =
        |text: &Option<String>| text.as_ref().is_some_and(|text| text.contains("${"));
    for flaw in Trigger::from_config(config, Time::UNIX_EPOCH)
        .err()
        .unwrap_or_default()
    {
        let is_later = match flaw.field {
            "cron" => has_variable(&config.cron),
            "timezone" => has_variable(&config.timezone),
            "at" => has_variable(&config.at),
            _ => false,
        };
        if !is_later {
            found.error(
                format!("schedule_config.{}", flaw.field),
                flaw.message,
                flaw.hint,
            );
        }
    }
}

/// The most messages of a conversation that a model may be shown.
const MAX_HISTORY: u32 = 1000;

fn check_continuous(config: &ContinuousConfig, found: &mut Findings) {
    let block = |field: &str| format!("continuous_config.{field}");
    let most = config.max_conversation_history;
    if most == 0 || most > MAX_HISTORY {
        found.error(
            block("max_conversation_history"),
            format!("{most} is out of range"),
            format!("it is 1 to {MAX_HISTORY}"),
        );
    }
    let longest = 365 * 86_400;
    for (field, seconds) in [
        ("idle_timeout_seconds", config.idle_timeout_seconds),
        ("save_interval_seconds", config.save_interval_seconds),
    ] {
        if seconds.is_some_and(|seconds| seconds == 0 || seconds > longest) {
            found.error(
                block(field),
                format!("{} is out of range", seconds.unwrap_or_default()),
                format!("it is 1 to {longest}"),
            );
        }
    }
    let is_path = |key: &String| key.len() <= 255 && key.split('.').all(|name| !name.is_empty());
    if let Some(key) = config.conversation_key.as_ref().filter(|key| !is_path(key)) {
        found.error(
            block("conversation_key"),
            format!("{key:?} is not the path of a field"),
            "write the names of fields joined by dots, such as thread.id",
        );
    }
}

fn check_server(server: &McpTool, path: &str, found: &mut Findings) {
    match (&server.url, &server.command) {
        (Some(url), None) => check_url(&format!("{path}.url"), url, found),
        (None, Some(command)) if command.trim().is_empty() => {
            found.error(
                format!("{path}.command"),
                "it is empty",
                "name the program that serves MCP on stdio",
            );
        }
        (None, Some(_)) => {}
        (Some(_), Some(_)) => found.error(
            path,
            "it has both url and command",
            "keep url for streamable HTTP or command for stdio",
        ),
        (None, None) => found.error(
            path,
            "it has neither url nor command",
            "give url for streamable HTTP or command and args for stdio",
        ),
    }
}

fn check_function(tool: &Tool, has_no_root: bool, path: &str, found: &mut Findings) {
    match tool.builtin() {
        None => {
            let known = Builtin::ALL.map(Builtin::as_str);
            let hint = nearest(&tool.name, known).map_or_else(
                || format!("the built-in functions are {}", known.join(", ")),
                |name| format!("did you mean {name}?"),
            );
            found.error(
                format!("{path}.name"),
                format!("there is no built-in function {:?}", tool.name),
                hint,
            );
        }
        Some(Builtin::ReadFile | Builtin::ListFiles | Builtin::SearchFiles) if has_no_root => {
            found.error(
                path,
                "a file tool needs a root",
                "add root: with the folder that it may read, such as root: ./logs",
            );
        }
        Some(_) => {}
    }
}

fn check_llm(block: &str, config: &LlmConfig, found: &mut Findings) {
    let at = |field: &str| format!("{block}.{field}");
    if config.model.trim().is_empty() {
        found.error(
            at("model"),
            "it is empty",
            "name the model as the provider spells it",
        );
    }
    found.range(&at("temperature"), config.temperature, 0.0, 2.0);
    found.range(&at("top_p"), config.top_p, 0.0, 1.0);
    found.range(
        &at("frequency_penalty"),
        config.frequency_penalty,
        -2.0,
        2.0,
    );
    found.range(&at("presence_penalty"), config.presence_penalty, -2.0, 2.0);
    found.range(&at("timeout"), Some(config.timeout as f64), 1.0, 3600.0);
    if config
        .api_key
        .as_ref()
        .is_some_and(|key| !key.starts_with("${"))
    {
        found.error(
            at("api_key"),
            "a key does not belong into a file",
            "put it into the environment and write api_key: ${NAME}",
        );
    }
    if config.top_k == Some(0) {
        found.error(
            at("top_k"),
            "0 leaves nothing to choose",
            "it is at least 1",
        );
    }
    if config.max_tokens.is_some_and(|tokens| tokens.0 == 0) {
        found.error(at("max_tokens"), "0 leaves no answer", "it is at least 1");
    }
    for (path, url) in [
        (at("api_base"), &config.api_base),
        (at("endpoint_url"), &config.endpoint_url),
    ] {
        if let Some(url) = url {
            check_url(&path, url, found);
        }
    }
    if config.provider == Provider::Scripted && !config.fallbacks.is_empty() {
        found.warn(
            at("fallbacks"),
            "a script does not fail on its own",
            "remove them",
        );
    }
}

fn check_url(path: &str, url: &str, found: &mut Findings) {
    let reference = url.starts_with("${");
    if !reference && !url.starts_with("http://") && !url.starts_with("https://") {
        found.error(
            path,
            format!("{url:?} is not an http address"),
            "it begins with https:// or http://",
        );
    }
}

fn check_schema(path: &str, schema: Option<&Value>, found: &mut Findings) {
    if let Some(schema) = schema
        && schema.get("type").and_then(Value::as_str) != Some("object")
    {
        found.error(
            path,
            "it does not describe an object",
            "write type: object with properties:",
        );
    }
}
