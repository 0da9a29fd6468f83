//! `alerts.yml` as it is written, and everything that is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::rule::{Rule, Severity, Wrong};
use crate::definition::{self, Problem};
use crate::nearest::nearest;
use crate::{AgentName, Money};

/// How far back a window reaches at most.
const LONGEST: Duration = Duration::from_secs(31 * 86_400);
/// The window of failures and of missed fire times, when nothing is said.
const WINDOW: Duration = Duration::from_secs(15 * 60);

/// The file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertConfig {
    /// Who can be told, each under a name of its own.
    #[serde(default)]
    pub receivers: BTreeMap<String, ReceiverConfig>,
    /// What is looked after.
    #[serde(default)]
    pub rules: Vec<RuleConfig>,
}

/// Somebody who can be told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReceiverConfig {
    /// How: slack, webhook or email.
    #[serde(rename = "type")]
    pub kind: ReceiverKind,
    /// Of slack: the channel that SLACK_BOT_TOKEN writes to.
    #[serde(default)]
    pub channel: Option<String>,
    /// Of webhook: where to. Of slack: an incoming webhook, instead of a channel.
    #[serde(default)]
    pub url: Option<String>,
    /// Of webhook: the secret that it is signed with, instead of CALLBACK_SIGNING_SECRET.
    #[serde(default)]
    pub secret: Option<String>,
    /// Of email: to whom.
    #[serde(default)]
    pub to: Vec<String>,
    /// Of email: from whom.
    #[serde(default)]
    pub from: Option<String>,
    /// Of email: the server, with its port if it is not 587 (465 with tls: tls).
    #[serde(default)]
    pub smtp: Option<String>,
    /// Of email: how the connection is protected.
    #[serde(default)]
    pub tls: Tls,
    /// Of email: who logs in.
    #[serde(default)]
    pub username: Option<String>,
    /// Of email: and with what.
    #[serde(default)]
    pub password: Option<String>,
}

/// How somebody is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReceiverKind {
    /// In Slack.
    Slack,
    /// By a signed request.
    Webhook,
    /// By e-mail.
    Email,
}

/// How a connection to a mail server is protected.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tls {
    /// It begins in the clear and must become TLS before anything is said.
    #[default]
    Starttls,
    /// TLS from the beginning.
    Tls,
    /// Not at all: for a server on this machine.
    None,
}

/// What a rule looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Watch {
    /// More than `above` executions failed or timed out `within` a time.
    Failures,
    /// More than `above` executions wait to be begun.
    QueueDepth,
    /// An execution has waited to be begun for longer than `older_than`.
    QueueAge,
    /// More than `above` events were given up.
    DeadLetters,
    /// Nobody performs an agent's tasks.
    AgentUnavailable,
    /// A fire time of a schedule was missed `within` a time, or nobody looks at one that has come.
    ScheduleMissed,
    /// More than `above_usd` dollars were spent today (UTC).
    Cost,
}

/// A rule.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleConfig {
    /// What it is called; each rule has a name of its own.
    pub name: String,
    /// What it looks at.
    pub when: Watch,
    /// One agent, or `each` for every agent by itself; all together when it is left out.
    #[serde(default)]
    pub agent: Option<String>,
    /// More than so many are too many.
    #[serde(default)]
    pub above: Option<u64>,
    /// More dollars than this are too many.
    #[serde(default)]
    pub above_usd: Option<f64>,
    /// Longer than this is too long, such as 10m.
    #[serde(default)]
    pub older_than: Option<String>,
    /// How far back is looked, such as 15m.
    #[serde(default)]
    pub within: Option<String>,
    /// For how long it must be wrong before somebody is told; at once when it is left out.
    #[serde(default, rename = "for")]
    pub hold: Option<String>,
    /// How often it is told again while it stays wrong; once when it is left out.
    #[serde(default)]
    pub every: Option<String>,
    /// info, warning or critical.
    #[serde(default)]
    pub severity: Severity,
    /// Who is told.
    #[serde(default)]
    pub receivers: Vec<String>,
    /// Whether it is looked at.
    #[serde(default = "yes")]
    pub enabled: bool,
}

const fn yes() -> bool {
    true
}

impl AlertConfig {
    /// Everything that is wrong with it.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (name, receiver) in &self.receivers {
            receiver.check(&format!("receivers.{name}"), &mut problems);
        }
        let mut names = BTreeSet::new();
        for (index, rule) in self.rules.iter().enumerate() {
            let path = format!("rules[{index}]");
            if !names.insert(&rule.name) {
                let message = format!("the name {:?} is taken by another rule", rule.name);
                problems.push(wrong(
                    &path,
                    "name",
                    message,
                    "give each rule a name of its own",
                ));
            }
            if let Err(found) = rule.read() {
                problems.extend(found.into_iter().map(|flaw| flaw.at(&path)));
            }
            for (position, receiver) in rule.receivers.iter().enumerate() {
                if self.receivers.contains_key(receiver) {
                    continue;
                }
                let known: Vec<&str> = self.receivers.keys().map(String::as_str).collect();
                let hint = match nearest(receiver, known.iter().copied()) {
                    Some(near) => format!("did you mean {near}?"),
                    None if known.is_empty() => "describe it under receivers:".to_owned(),
                    None => format!("there are {}", known.join(", ")),
                };
                let message = format!("there is no receiver {receiver:?}");
                problems.push(wrong(
                    &path,
                    &format!("receivers[{position}]"),
                    message,
                    hint,
                ));
            }
            if rule.receivers.is_empty() && rule.enabled {
                let message = "nobody is told; it only shows in GET /alerts".to_owned();
                let mut problem = wrong(&path, "receivers", message, "name receivers");
                problem.severity = definition::Severity::Warning;
                problems.push(problem);
            }
        }
        problems
    }

    /// What the rules that are in use mean. What is wrong is left out; [`AlertConfig::problems`] tells of it.
    pub fn rules(&self) -> Vec<Rule> {
        let enabled = self.rules.iter().filter(|rule| rule.enabled);
        enabled.filter_map(|rule| rule.read().ok()).collect()
    }
}

/// Something wrong with a field.
struct Flaw {
    field: &'static str,
    message: String,
    hint: &'static str,
}

impl Flaw {
    fn at(self, path: &str) -> Problem {
        wrong(path, self.field, self.message, self.hint)
    }
}

fn wrong(path: &str, field: &str, message: String, hint: impl Into<String>) -> Problem {
    Problem {
        path: format!("{path}.{field}"),
        message,
        hint: hint.into(),
        severity: definition::Severity::Error,
    }
}

impl ReceiverConfig {
    fn check(&self, path: &str, problems: &mut Vec<Problem>) {
        let given = [
            ("channel", self.channel.is_some()),
            ("url", self.url.is_some()),
            ("secret", self.secret.is_some()),
            ("to", !self.to.is_empty()),
            ("from", self.from.is_some()),
            ("smtp", self.smtp.is_some()),
            ("username", self.username.is_some()),
            ("password", self.password.is_some()),
        ];
        let (word, takes, needs): (&str, &[&str], &[&str]) = match self.kind {
            ReceiverKind::Slack => ("slack", &["channel", "url"], &[]),
            ReceiverKind::Webhook => ("webhook", &["url", "secret"], &["url"]),
            ReceiverKind::Email => (
                "email",
                &["to", "from", "smtp", "username", "password"],
                &["to", "from", "smtp"],
            ),
        };
        for (field, _) in given.iter().filter(|(f, is)| *is && !takes.contains(f)) {
            let message = format!("a receiver of type {word} has no {field}");
            let hint = format!("it has {}", takes.join(", "));
            problems.push(wrong(path, field, message, hint));
        }
        let is_given = |field: &str| given.iter().any(|(name, is)| *name == field && *is);
        for field in needs.iter().filter(|field| !is_given(field)) {
            let message = format!("a receiver of type {word} needs {field}");
            problems.push(wrong(path, field, message, ""));
        }
        if self.kind == ReceiverKind::Slack && is_given("channel") == is_given("url") {
            let message =
                "it needs either channel (with SLACK_BOT_TOKEN) or the url of an incoming webhook";
            problems.push(wrong(path, "channel", message.to_owned(), ""));
        }
        if self.kind == ReceiverKind::Email && is_given("username") != is_given("password") {
            let message = "username and password go together".to_owned();
            problems.push(wrong(path, "username", message, ""));
        }
        if self.kind == ReceiverKind::Email && self.tls == Tls::None && is_given("password") {
            let message = "the password would be sent in the clear".to_owned();
            problems.push(wrong(path, "tls", message, "use starttls or tls"));
        }
        for (field, value) in [("secret", &self.secret), ("password", &self.password)] {
            if value.as_ref().is_some_and(|text| !is_reference(text)) {
                let message = "a secret does not belong in this file".to_owned();
                let hint = "write ${NAME}, and set the variable NAME";
                problems.push(wrong(path, field, message, hint));
            }
        }
        for (index, address) in self.to.iter().enumerate() {
            if !address.contains('@') {
                let message = format!("{address:?} is no e-mail address");
                problems.push(wrong(path, &format!("to[{index}]"), message, ""));
            }
        }
    }
}

fn is_reference(text: &str) -> bool {
    text.starts_with("${") && text.ends_with('}')
}

impl RuleConfig {
    fn read(&self) -> Result<Rule, Vec<Flaw>> {
        let mut flaws = self.misplaced();
        let mut flaw = |field, message: String, hint| {
            flaws.push(Flaw {
                field,
                message,
                hint,
            });
        };
        let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if self.name.is_empty() || self.name.len() > 63 || !self.name.chars().all(is_name) {
            let message = "a name has 1 to 63 letters, digits, dots, - and _".to_owned();
            flaw("name", message, "");
        }
        let mut time = |field, text: &Option<String>| {
            let text = text.as_ref()?;
            match duration(text).filter(|time| *time <= LONGEST) {
                Some(time) => Some(time),
                None => {
                    let message = format!("{text:?} is not a time of at most 31 days");
                    flaw(field, message, "write it as 30s, 15m, 4h or 2d");
                    None
                }
            }
        };
        let within = time("within", &self.within);
        let older_than = time("older_than", &self.older_than);
        let hold = time("for", &self.hold);
        let every = time("every", &self.every);
        let agent = match self.agent.as_deref() {
            None => None,
            Some("each") => Some(None),
            Some(name) => match name.parse::<AgentName>() {
                Ok(name) => Some(Some(name)),
                Err(error) => {
                    flaw("agent", error.to_string(), "name an agent, or write each");
                    None
                }
            },
        };
        let usd = self.above_usd.unwrap_or_default();
        if every.is_some_and(|every| every < Duration::from_secs(60)) {
            let message = "it would be told more than once a minute".to_owned();
            flaw("every", message, "write 1m or more");
        }
        if !flaws.is_empty() {
            return Err(flaws);
        }
        let above = self.above.unwrap_or(0);
        let within = within.unwrap_or(WINDOW);
        Ok(Rule {
            name: self.name.clone(),
            wrong: match self.when {
                Watch::Failures => Wrong::Failures { above, within },
                Watch::QueueDepth => Wrong::QueueDepth { above },
                Watch::QueueAge => Wrong::QueueAge {
                    older_than: older_than.unwrap_or_default(),
                },
                Watch::DeadLetters => Wrong::DeadLetters { above },
                Watch::AgentUnavailable => Wrong::AgentUnavailable,
                Watch::ScheduleMissed => Wrong::ScheduleMissed { within },
                Watch::Cost => Wrong::Cost {
                    above: Money::from_usd(usd),
                },
            },
            agent,
            hold: hold.unwrap_or_default(),
            every,
            severity: self.severity,
            receivers: self.receivers.clone(),
        })
    }

    /// What its kind of rule does not have, and what it lacks.
    fn misplaced(&self) -> Vec<Flaw> {
        let mut flaws = Vec::new();
        let (watch, takes): (&str, &[&str]) = match self.when {
            Watch::Failures => ("failures", &["above", "within", "agent"]),
            Watch::QueueDepth => ("queue_depth", &["above", "agent"]),
            Watch::QueueAge => ("queue_age", &["older_than", "agent"]),
            Watch::DeadLetters => ("dead_letters", &["above"]),
            Watch::AgentUnavailable => ("agent_unavailable", &["agent"]),
            Watch::ScheduleMissed => ("schedule_missed", &["within"]),
            Watch::Cost => ("cost", &["above_usd", "agent"]),
        };
        let given = [
            ("above", self.above.is_some()),
            ("above_usd", self.above_usd.is_some()),
            ("older_than", self.older_than.is_some()),
            ("within", self.within.is_some()),
            ("agent", self.agent.is_some()),
        ];
        for (field, _) in given.iter().filter(|(f, is)| *is && !takes.contains(f)) {
            let message = format!("a rule for {watch} has no {field}");
            flaws.push(Flaw {
                field,
                message,
                hint: "take it out",
            });
        }
        let usd = self.above_usd.unwrap_or_default();
        if self.when == Watch::Cost && !(usd.is_finite() && usd >= 0.0 && self.above_usd.is_some())
        {
            let message = "a rule for cost needs above_usd, a number of dollars".to_owned();
            flaws.push(Flaw {
                field: "above_usd",
                message,
                hint: "",
            });
        }
        if self.when == Watch::QueueAge && self.older_than.is_none() {
            let message = "a rule for queue_age needs older_than".to_owned();
            flaws.push(Flaw {
                field: "older_than",
                message,
                hint: "such as older_than: 10m",
            });
        }
        flaws
    }
}

/// A time such as `30s`, `15m`, `4h` or `2d`.
fn duration(text: &str) -> Option<Duration> {
    let text = text.trim();
    let unit = text.chars().next_back()?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let number: u64 = text.strip_suffix(unit)?.parse().ok()?;
    number.checked_mul(seconds).map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn config(receivers: Value, rule: Value) -> AlertConfig {
        serde_json::from_value(json!({ "receivers": receivers, "rules": [rule] })).unwrap()
    }

    fn complaints(config: &AlertConfig) -> Vec<String> {
        let problems = config.problems();
        problems.into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn a_whole_file_is_read() {
        let config = config(
            json!({
                "chat": {"type": "slack", "channel": "#ops"},
                "pager": {"type": "webhook", "url": "https://pager.example/x", "secret": "${PAGER}"},
                "mail": {"type": "email", "to": ["ops@example.com"], "from": "ar@example.com", "smtp": "localhost:25",
                    "tls": "none"},
            }),
            json!({"name": "failing", "when": "failures", "agent": "each", "above": 3, "within": "10m", "for": "1m",
                "every": "4h", "severity": "critical", "receivers": ["chat", "pager", "mail"]}),
        );
        assert!(config.problems().is_empty(), "{:?}", config.problems());
        let rule = config.rules().remove(0);
        let within = Duration::from_secs(600);
        assert_eq!(rule.wrong, Wrong::Failures { above: 3, within });
        assert_eq!(rule.agent, Some(None));
        assert_eq!(rule.every, Some(Duration::from_secs(4 * 3600)));
    }

    #[test]
    fn each_mistake_has_its_place() {
        let rule = |rule: Value| {
            complaints(&config(
                json!({"chat": {"type": "slack", "channel": "#ops"}}),
                rule,
            ))
        };
        let told = |rest: Value| {
            let mut fields = json!({"name": "r", "receivers": ["chat"]});
            let Value::Object(rest) = rest else { panic!() };
            fields.as_object_mut().unwrap().extend(rest);
            rule(fields)
        };
        assert_eq!(told(json!({"when": "cost"})), ["rules[0].above_usd"]);
        assert_eq!(told(json!({"when": "queue_age"})), ["rules[0].older_than"]);
        assert_eq!(
            told(json!({"when": "dead_letters", "agent": "a"})),
            ["rules[0].agent"]
        );
        assert_eq!(
            told(json!({"when": "failures", "within": "soon"})),
            ["rules[0].within"]
        );
        assert_eq!(
            told(json!({"when": "failures", "every": "1s"})),
            ["rules[0].every"]
        );
        assert_eq!(
            told(json!({"when": "failures", "agent": "No!"})),
            ["rules[0].agent"]
        );
        assert_eq!(
            rule(json!({"name": "r", "when": "failures", "receivers": ["chat2"]})),
            ["rules[0].receivers[0]"]
        );
        assert_eq!(
            rule(json!({"name": "r", "when": "failures"})),
            ["rules[0].receivers"]
        );
    }

    #[test]
    fn a_receiver_has_what_its_type_takes_and_no_secret_in_the_file() {
        let receiver = |fields: Value| {
            complaints(&config(
                json!({ "x": fields }),
                json!({"name": "r", "when": "cost", "above_usd": 1, "receivers": ["x"]}),
            ))
        };
        assert_eq!(receiver(json!({"type": "slack"})), ["receivers.x.channel"]);
        assert_eq!(receiver(json!({"type": "webhook"})), ["receivers.x.url"]);
        assert_eq!(
            receiver(json!({"type": "webhook", "url": "https://x.example", "secret": "whsec_abc"})),
            ["receivers.x.secret"]
        );
        assert_eq!(
            receiver(json!({"type": "webhook", "url": "https://x.example", "channel": "#a"})),
            ["receivers.x.channel"]
        );
        assert_eq!(
            receiver(
                json!({"type": "email", "to": ["a@b"], "from": "c@d", "smtp": "s", "tls": "none",
                "username": "u", "password": "${P}"})
            ),
            ["receivers.x.tls"]
        );
    }
}
