//! What no agent can work with, found before it is tried.

mod collaborative;
mod tools;

use serde::Serialize;
use serde_json::Value;

use super::{
    Approval, ContinuousConfig, Definition, ExecutionMode, LlmConfig, OnApprovalTimeout, Provider,
    ScheduleConfig, SlackConfig,
};
use crate::Time;
use crate::execution::MAX_DEPTH;
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
