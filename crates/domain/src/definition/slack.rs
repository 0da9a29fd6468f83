//! Who may talk with an agent in Slack, and where.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What begins a conversation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SlackTrigger {
    /// The app's name in a message of a channel.
    Mention,
    /// A message to the app alone.
    DirectMessage,
}

/// How people talk with an agent in Slack. An agent without it is not to be reached from there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SlackConfig {
    /// What it answers.
    #[serde(default = "both")]
    pub respond_to: Vec<SlackTrigger>,
    /// Slash commands that it answers, without the slash.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    /// The channels in which it may be used, by id (`C…`, `G…`); in all when empty. Direct messages are no channel.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
    /// Who may use it, by id (`U…`, `W…`); everybody in the workspace when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub users: Vec<String>,
    /// Who may answer its questions, by id: allow a call, say what happened. Whoever may use it when empty.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub approvers: Vec<String>,
}

fn both() -> Vec<SlackTrigger> {
    vec![SlackTrigger::Mention, SlackTrigger::DirectMessage]
}

impl SlackConfig {
    /// Whether it may be used in a channel; `None` is a direct message.
    pub fn covers_channel(&self, channel: Option<&str>) -> bool {
        channel.is_none_or(|channel| is_any_or_has(&self.channels, channel))
    }

    /// Whether a person may use it.
    pub fn covers_user(&self, user: &str) -> bool {
        is_any_or_has(&self.users, user)
    }

    /// Whether a person may answer its questions.
    pub fn may_decide(&self, user: &str) -> bool {
        if self.approvers.is_empty() {
            return self.covers_user(user);
        }
        self.approvers.iter().any(|one| one == user)
    }

    /// What is wrong with it: the place, what, and what to do.
    pub(super) fn problems(&self) -> Vec<(String, String, &'static str)> {
        let mut found = Vec::new();
        if self.respond_to.is_empty() && self.commands.is_empty() {
            let what = "it answers nothing".to_owned();
            let hint = "name mention, direct_message or commands, or leave slack out";
            found.push(("slack.respond_to".to_owned(), what, hint));
        }
        let lists: [(&str, &[String], &[char], &'static str); 3] = [
            (
                "channels",
                &self.channels,
                &['C', 'G'],
                "write the channel's id, such as C0123456789: its details in Slack show it",
            ),
            (
                "users",
                &self.users,
                &['U', 'W'],
                "write the member's id, such as U0123456789: their profile in Slack shows it",
            ),
            (
                "approvers",
                &self.approvers,
                &['U', 'W'],
                "write the member's id, such as U0123456789: their profile in Slack shows it",
            ),
        ];
        for (name, ids, kinds, hint) in lists {
            for (n, id) in ids.iter().enumerate().filter(|(_, id)| !is_id(id, kinds)) {
                let what = format!("{id:?} is no id");
                found.push((format!("slack.{name}[{n}]"), what, hint));
            }
        }
        for (n, command) in self.commands.iter().enumerate() {
            if !is_command(command) {
                let what = format!("{command:?} is no name of a command");
                let hint = "write it without the slash: 1 to 31 of a-z, 0-9, - and _";
                found.push((format!("slack.commands[{n}]"), what, hint));
            }
        }
        found
    }
}

fn is_any_or_has(list: &[String], id: &str) -> bool {
    list.is_empty() || list.iter().any(|one| one == id)
}

fn is_id(id: &str, kinds: &[char]) -> bool {
    let is_letter = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit();
    id.starts_with(kinds) && (3..=32).contains(&id.len()) && id.bytes().all(is_letter)
}

fn is_command(name: &str) -> bool {
    let is_letter =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_');
    (1..=31).contains(&name.len()) && name.bytes().all(is_letter)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(yaml: serde_json::Value) -> SlackConfig {
        serde_json::from_value(yaml).unwrap()
    }

    #[test]
    fn nothing_said_is_everybody_everywhere() {
        let open = config(serde_json::json!({}));
        assert!(open.covers_channel(Some("C1")) && open.covers_user("U1") && open.may_decide("U1"));
        assert_eq!(open.respond_to.len(), 2);
        assert!(open.problems().is_empty());
    }

    #[test]
    fn who_may_use_it_is_not_who_may_decide() {
        let limited = config(serde_json::json!({
            "channels": ["C111"], "users": ["U111", "U222"], "approvers": ["U222"],
        }));
        assert!(limited.covers_channel(Some("C111")) && limited.covers_channel(None));
        assert!(!limited.covers_channel(Some("C222")));
        assert!(limited.covers_user("U111") && !limited.covers_user("U333"));
        assert!(limited.may_decide("U222") && !limited.may_decide("U111"));
        let users = config(serde_json::json!({ "users": ["U111"] }));
        assert!(users.may_decide("U111") && !users.may_decide("U222"));
    }

    #[test]
    fn what_is_no_id_is_named_with_its_place() {
        let wrong = config(serde_json::json!({
            "respond_to": [], "channels": ["C0123", "#general"], "users": ["@ann"], "approvers": ["u123"],
        }));
        let places: Vec<String> = wrong.problems().into_iter().map(|(at, ..)| at).collect();
        assert_eq!(
            places,
            [
                "slack.respond_to",
                "slack.channels[1]",
                "slack.users[0]",
                "slack.approvers[0]"
            ]
        );
        let slashed = config(serde_json::json!({ "commands": ["/ask", "ask"] }));
        assert_eq!(slashed.problems().len(), 1);
    }
}
