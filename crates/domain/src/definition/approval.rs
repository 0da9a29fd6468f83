//! Which calls a person must allow, and what becomes of a question that nobody answers.

use regex::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Definition;

/// The largest compiled pattern, in bytes.
const MAX_PATTERN: usize = 1 << 18;

/// Which calls a person must allow.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "it is true, false, or a list: names of tools, and rules such as {argument: amount, above: 100}"
)]
pub enum Approval {
    /// Every call, or none.
    Always(bool),
    /// The calls that one of these names or fits.
    Rules(Vec<ApprovalRule>),
}

/// One reason to ask a person.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(
    untagged,
    expecting = "it is the name of a tool, or a rule: argument with one of matches, equals, above, below; and tool, where there are several"
)]
pub enum ApprovalRule {
    /// Every call of the tool of that name.
    Tool(String),
    /// The calls whose arguments fit.
    When(ArgumentRule),
}

/// Says of which arguments a person must know.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArgumentRule {
    /// Of which tool; of each one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tool: Option<String>,
    /// The argument: names joined by dots, `*` for any item or field, such as `items.*.price`.
    pub argument: String,
    /// A regular expression that is found in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<String>,
    /// What it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub equals: Option<Value>,
    /// A number that it is larger than.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub above: Option<f64>,
    /// A number that it is smaller than.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub below: Option<f64>,
}

/// What becomes of a call that nobody allowed or refused in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnApprovalTimeout {
    /// It is not made, and the model is told.
    #[default]
    Deny,
    /// It is made.
    Approve,
    /// The execution fails.
    Fail,
}

/// What becomes of a question that nobody answered in time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnClarificationTimeout {
    /// The model is told that nobody answered, and goes on.
    #[default]
    Continue,
    /// The execution fails.
    Fail,
}

impl Approval {
    /// Whether every call of the tool named `tool` must be allowed by a person, whatever its arguments.
    pub fn covers(&self, tool: &str) -> bool {
        match self {
            Self::Always(always) => *always,
            Self::Rules(rules) => rules
                .iter()
                .any(|rule| matches!(rule, ApprovalRule::Tool(name) if name == tool)),
        }
    }

    /// Why a person must allow a call of `tool` with these arguments, if one must.
    pub fn reason(&self, tool: &str, arguments: &Value) -> Option<String> {
        if self.covers(tool) {
            return Some("each call of it needs approval".to_owned());
        }
        let Self::Rules(rules) = self else {
            return None;
        };
        rules.iter().find_map(|rule| match rule {
            ApprovalRule::When(rule) if rule.tool.as_ref().is_none_or(|name| name == tool) => {
                rule.reason(arguments)
            }
            _ => None,
        })
    }

    /// The rules that can't be used, each with why.
    pub(super) fn mistakes(&self) -> Vec<(usize, String)> {
        let Self::Rules(rules) = self else {
            return Vec::new();
        };
        let mistake = |(index, rule): (usize, &ApprovalRule)| match rule {
            ApprovalRule::Tool(_) => None,
            ApprovalRule::When(rule) => rule.mistake().map(|why| (index, why)),
        };
        rules.iter().enumerate().filter_map(mistake).collect()
    }
}

impl ArgumentRule {
    fn reason(&self, arguments: &Value) -> Option<String> {
        let mut found = Vec::new();
        let path: Vec<&str> = self.argument.split('.').collect();
        collect(arguments, &path, &mut found);
        let why = found.iter().find_map(|value| self.holds(value))?;
        Some(format!("`{}` {why}", self.argument))
    }

    /// How a value fits. One that can't be compared is one that a person should see.
    fn holds(&self, value: &Value) -> Option<String> {
        if let Some(expected) = &self.equals {
            return (value == expected).then(|| format!("is {expected}"));
        }
        if let Some(pattern) = &self.matches {
            let text = match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            let is_found = compile(pattern).is_none_or(|regex| regex.is_match(&text));
            return is_found.then(|| format!("matches {pattern}"));
        }
        let Some(number) = value.as_f64() else {
            return Some("is no number".to_owned());
        };
        match (self.above, self.below) {
            (Some(bound), _) if number > bound => Some(format!("is above {bound}")),
            (_, Some(bound)) if number < bound => Some(format!("is below {bound}")),
            _ => None,
        }
    }

    fn mistake(&self) -> Option<String> {
        let is_path = self.argument.split('.').all(|name| !name.is_empty());
        if !is_path {
            return Some(format!(
                "{:?} is not the path of an argument",
                self.argument
            ));
        }
        let numbers = usize::from(self.above.is_some() || self.below.is_some());
        let conditions =
            usize::from(self.matches.is_some()) + usize::from(self.equals.is_some()) + numbers;
        if conditions != 1 {
            return Some("it needs one of matches, equals, above or below".to_owned());
        }
        match &self.matches {
            Some(pattern) if compile(pattern).is_none() => {
                Some(format!("{pattern:?} is not a regular expression"))
            }
            _ => None,
        }
    }
}

/// The regular expression, if it is one: of the kind that takes linear time.
fn compile(pattern: &str) -> Option<Regex> {
    RegexBuilder::new(pattern)
        .size_limit(MAX_PATTERN)
        .build()
        .ok()
}

/// The values at a path.
fn collect<'a>(value: &'a Value, path: &[&str], found: &mut Vec<&'a Value>) {
    let Some((name, rest)) = path.split_first() else {
        return found.push(value);
    };
    match (value, *name) {
        (Value::Object(fields), "*") => fields.values().for_each(|v| collect(v, rest, found)),
        (Value::Array(items), "*") => items.iter().for_each(|v| collect(v, rest, found)),
        (Value::Object(fields), name) => {
            if let Some(value) = fields.get(name) {
                collect(value, rest, found);
            }
        }
        (Value::Array(items), name) => {
            let item = name.parse().ok().and_then(|n: usize| items.get(n));
            if let Some(value) = item {
                collect(value, rest, found);
            }
        }
        _ => {}
    }
}

impl Definition {
    /// Why a person must allow a call of `tool`, which the entry `entry` offers, if one must: the entry says so, or the
    /// agent does.
    pub fn approval_reason(&self, entry: &str, tool: &str, arguments: &Value) -> Option<String> {
        let own = self
            .tool(entry)
            .and_then(|entry| entry.requires_approval.as_ref())
            .and_then(|approval| approval.reason(tool, arguments));
        own.or_else(|| {
            self.requires_approval
                .as_ref()?
                .reason(tool, arguments)
                .map(|why| format!("{why}, says the agent"))
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn reason(approval: Value, arguments: Value) -> Option<String> {
        let approval: Approval = serde_json::from_value(approval).unwrap();
        assert!(approval.mistakes().is_empty());
        approval.reason("pay", &arguments)
    }

    #[test]
    fn a_rule_fits_by_number_pattern_or_value() {
        let above = json!([{"argument": "amount", "above": 100}]);
        assert_eq!(
            reason(above.clone(), json!({"amount": 100.5})).as_deref(),
            Some("`amount` is above 100")
        );
        assert_eq!(reason(above.clone(), json!({"amount": 100})), None);
        assert_eq!(reason(above.clone(), json!({})), None);
        assert!(
            reason(above, json!({"amount": "1e9"})).is_some(),
            "what can't be compared is shown"
        );
        let below = json!([{"argument": "n", "below": 0}]);
        assert!(reason(below, json!({"n": -1})).is_some());
        let matches = json!([{"argument": "to", "matches": "@evil\\.example$"}]);
        assert!(reason(matches.clone(), json!({"to": "a@evil.example"})).is_some());
        assert!(reason(matches, json!({"to": "a@good.example"})).is_none());
        let equals = json!([{"argument": "env", "equals": "prod"}]);
        assert!(reason(equals, json!({"env": "prod"})).is_some());
    }

    #[test]
    fn a_path_goes_into_lists_and_objects() {
        let rule = json!([{"argument": "items.*.price", "above": 10}]);
        assert!(
            reason(
                rule.clone(),
                json!({"items": [{"price": 1}, {"price": 11}]})
            )
            .is_some()
        );
        assert!(reason(rule, json!({"items": [{"price": 1}], "price": 99})).is_none());
        let rule = json!([{"argument": "items.1", "equals": 2}]);
        assert!(reason(rule, json!({"items": [1, 2]})).is_some());
    }

    #[test]
    fn a_rule_may_be_about_one_tool_and_a_name_about_all_its_calls() {
        let rule = json!([{"tool": "refund", "argument": "amount", "above": 0}]);
        assert!(reason(rule, json!({"amount": 5})).is_none());
        assert!(reason(json!(["pay"]), json!({})).is_some());
        assert!(reason(json!(true), json!({})).is_some());
        assert!(reason(json!(false), json!({})).is_none());
    }

    #[test]
    fn what_can_not_be_used_is_told() {
        for (rule, word) in [
            (json!({"argument": "a..b", "above": 1}), "path"),
            (json!({"argument": "a"}), "one of"),
            (json!({"argument": "a", "above": 1, "equals": 2}), "one of"),
            (json!({"argument": "a", "matches": "("}), "regular"),
            (
                json!({"argument": "a", "matches": "(a{1000}){1000}"}),
                "regular",
            ),
        ] {
            let approval: Approval = serde_json::from_value(json!([rule])).unwrap();
            let mistakes = approval.mistakes();
            assert!(mistakes[0].1.contains(word), "{mistakes:?}");
        }
    }
}
