//! What Slack sends, as its documentation shows it.

use serde_json::{Value, json};

use super::{BOT_USER, SlackMessage, TEAM};

/// A person.
#[derive(Clone, Copy, Debug)]
pub struct SlackUser {
    /// `U…`.
    pub id: &'static str,
    /// As others see them.
    pub name: &'static str,
}

/// Somebody mentions the app in a channel.
#[must_use]
pub fn mention(
    event_id: &str,
    user: SlackUser,
    channel: &str,
    ts: &str,
    thread: Option<&str>,
    text: &str,
) -> Value {
    let mut event = json!({
        "type": "app_mention", "user": user.id, "text": format!("<@{BOT_USER}> {text}"), "ts": ts, "team": TEAM,
        "channel": channel, "event_ts": ts,
    });
    if let Some(thread) = thread {
        event["thread_ts"] = thread.into();
    }
    callback(event_id, &event)
}

/// Somebody writes to the app alone.
#[must_use]
pub fn direct_message(
    event_id: &str,
    user: SlackUser,
    channel: &str,
    ts: &str,
    text: &str,
) -> Value {
    let event = json!({
        "type": "message", "channel_type": "im", "user": user.id, "text": text, "ts": ts, "team": TEAM,
        "channel": channel, "event_ts": ts, "client_msg_id": event_id,
    });
    callback(event_id, &event)
}

fn callback(event_id: &str, event: &Value) -> Value {
    json!({
        "token": "deprecated", "team_id": TEAM, "api_app_id": "A00000001", "event": event, "type": "event_callback",
        "event_id": event_id, "event_time": 1_732_440_600, "is_ext_shared_channel": false,
        "authorizations": [{
            "enterprise_id": null, "team_id": TEAM, "user_id": BOT_USER, "is_bot": true, "is_enterprise_install": false,
        }],
    })
}

/// Somebody types a slash command: its fields.
#[must_use]
pub fn slash_command(
    trigger: &str,
    user: SlackUser,
    channel: &str,
    command: &str,
    text: &str,
) -> Value {
    json!({
        "token": "deprecated", "team_id": TEAM, "team_domain": "stand-in", "channel_id": channel,
        "channel_name": "general", "user_id": user.id, "user_name": user.name, "command": command, "text": text,
        "api_app_id": "A00000001", "is_enterprise_install": "false",
        "response_url": "https://hooks.slack.com/commands/1/2/3", "trigger_id": trigger,
    })
}

/// Somebody presses the button of a message with this action, with words in its field.
///
/// # Panics
/// When the message has no such button.
#[must_use]
pub fn press(
    trigger: &str,
    user: SlackUser,
    channel: &str,
    message: &SlackMessage,
    action: &str,
    words: Option<&str>,
) -> Value {
    let mut buttons = message
        .blocks
        .iter()
        .filter(|block| block["type"] == "actions")
        .filter_map(|block| block["elements"].as_array())
        .flatten();
    let button = buttons.find(|button| button["action_id"] == action);
    let button = button.unwrap_or_else(|| panic!("no button {action}: {message:#?}"));
    let field = message.blocks.iter().find(|block| block["type"] == "input");
    let mut state = json!({ "values": {} });
    if let Some(field) = field {
        let (block, element) = (&field["block_id"], &field["element"]["action_id"]);
        let (block, element) = (block.as_str().unwrap(), element.as_str().unwrap());
        state["values"][block][element] = json!({ "type": "plain_text_input", "value": words });
    }
    json!({
        "type": "block_actions", "trigger_id": trigger, "api_app_id": "A00000001", "token": "deprecated",
        "user": { "id": user.id, "username": user.name, "name": user.name, "team_id": TEAM },
        "team": { "id": TEAM, "domain": "stand-in" }, "channel": { "id": channel, "name": "general" },
        "container": {
            "type": "message", "message_ts": message.ts, "channel_id": channel, "is_ephemeral": false,
            "thread_ts": message.thread,
        },
        "message": { "type": "message", "ts": message.ts, "thread_ts": message.thread, "text": message.text },
        "state": state, "response_url": "https://hooks.slack.com/actions/1/2/3",
        "actions": [{
            "type": "button", "action_id": button["action_id"], "block_id": "x", "value": button["value"],
            "text": button["text"], "action_ts": "1732440601.000100",
        }],
    })
}
