//! What Slack sends, as far as it is of interest: the same by HTTP and by Socket Mode.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest id that is taken, in bytes.
const MAX_ID: usize = 255;
/// Kinds of messages that people write; all others tell of changes, or are written by programs.
const WRITTEN: [&str; 3] = ["file_share", "thread_broadcast", "me_message"];
/// How the names of our buttons and fields begin.
pub(super) const OURS: &str = "agentrunner:";

/// Something to act on, as it is kept until it is done.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub(super) enum Incoming {
    /// Something happened.
    Event(Happening),
    /// Somebody typed a slash command.
    Command(Command),
    /// Somebody pressed one of our buttons.
    Press(Press),
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Happening {
    pub(super) event_id: String,
    pub(super) team: String,
    /// The app's own user in that team.
    pub(super) bot: Option<String>,
    /// As Slack sent it.
    pub(super) event: Value,
}

/// A slash command.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Command {
    pub(super) trigger: String,
    pub(super) team: String,
    pub(super) channel: String,
    pub(super) user: String,
    pub(super) user_name: String,
    /// Without the slash.
    pub(super) name: String,
    pub(super) text: String,
}

/// A pressed button.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Press {
    pub(super) trigger: String,
    pub(super) user: String,
    pub(super) user_name: String,
    pub(super) channel: String,
    pub(super) thread: Option<String>,
    /// Which button, without [`OURS`].
    pub(super) action: String,
    /// What we wrote into the button.
    pub(super) value: String,
    /// What stands in the field beside it.
    pub(super) words: String,
}

/// What a request of Slack's comes to.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Heard {
    /// Slack wants this text back, to see that somebody is here.
    Challenge(String),
    /// To act on, under this name: however often it comes, it has the same.
    Work(String, Box<Incoming>),
    /// Nothing of ours.
    Nothing,
}

impl Heard {
    fn work(kind: &str, id: &str, incoming: Incoming) -> Self {
        Self::Work(format!("slack-in:{kind}:{id}"), Box::new(incoming))
    }
}

/// What a message says and where, when it is one that a person wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message<'a> {
    pub(super) channel: &'a str,
    pub(super) user: &'a str,
    pub(super) ts: &'a str,
    pub(super) thread: Option<&'a str>,
    pub(super) text: &'a str,
    /// Whether it was written to the app alone.
    pub(super) is_direct: bool,
}

impl Happening {
    /// Its type, the last word of its topic.
    pub(super) fn name(&self) -> &str {
        field(&self.event, "type").unwrap_or_default()
    }

    /// The message that is meant for the app, if it is one: a mention, or any message to the app alone.
    pub(super) fn message(&self) -> Option<Message<'_>> {
        let event = &self.event;
        let channel = field(event, "channel")?;
        let is_direct = field(event, "channel_type") == Some("im") || channel.starts_with('D');
        match self.name() {
            "app_mention" => {}
            "message" if is_direct => {}
            _ => return None,
        }
        Some(Message {
            channel,
            user: field(event, "user")?,
            ts: field(event, "ts")?,
            thread: field(event, "thread_ts"),
            text: field(event, "text").unwrap_or_default(),
            is_direct,
        })
    }
}

/// Reads what came for the Events API.
///
/// # Errors
/// It is not what Slack sends.
pub(super) fn event(payload: &Value) -> Result<Heard, String> {
    match field(payload, "type") {
        Some("url_verification") => {
            let challenge = needed(payload, "challenge")?;
            return Ok(Heard::Challenge(challenge.to_owned()));
        }
        Some("event_callback") => {}
        // Slack tells that it held back events, and other things that ask for nothing.
        Some(_) => return Ok(Heard::Nothing),
        None => return Err("type: the field is missing".to_owned()),
    }
    let event_id = id(payload, "event_id")?;
    let event = payload.get("event").filter(|event| event.is_object());
    let event = event.ok_or("event: an object is missing")?;
    let name = needed(event, "type").map_err(|why| format!("event.{why}"))?;
    let bot = payload
        .pointer("/authorizations/0/user_id")
        .and_then(Value::as_str)
        .map(str::to_owned);
    let happening = Happening {
        event_id: event_id.to_owned(),
        team: team(payload, "team_id")?,
        bot,
        event: event.clone(),
    };
    if is_of_programs(name, &happening) {
        return Ok(Heard::Nothing);
    }
    Ok(Heard::work("event", event_id, Incoming::Event(happening)))
}

/// Whether a program did it, our own first of all: whoever acted on that would talk with itself.
fn is_of_programs(name: &str, happening: &Happening) -> bool {
    let event = &happening.event;
    let by_bot = event.get("bot_id").is_some_and(|bot| !bot.is_null());
    let user = field(event, "user");
    let is_own = user.is_some() && user == happening.bot.as_deref();
    let is_change = matches!(name, "message" | "app_mention")
        && (user.is_none() || field(event, "subtype").is_some_and(|kind| !WRITTEN.contains(&kind)));
    by_bot || is_own || is_change
}

/// Reads a slash command.
///
/// # Errors
/// It is not what Slack sends.
pub(super) fn command(payload: &Value) -> Result<Heard, String> {
    if field(payload, "ssl_check") == Some("1") {
        return Ok(Heard::Nothing);
    }
    let trigger = id(payload, "trigger_id")?;
    let name = needed(payload, "command")?;
    let command = Command {
        trigger: trigger.to_owned(),
        team: team(payload, "team_id")?,
        channel: id(payload, "channel_id")?.to_owned(),
        user: id(payload, "user_id")?.to_owned(),
        user_name: field(payload, "user_name").unwrap_or_default().to_owned(),
        name: name.trim_start_matches('/').to_ascii_lowercase(),
        text: field(payload, "text").unwrap_or_default().to_owned(),
    };
    Ok(Heard::work("command", trigger, Incoming::Command(command)))
}

/// Reads what came of a button, a menu or a dialog.
///
/// # Errors
/// It is not what Slack sends.
pub(super) fn interaction(payload: &Value) -> Result<Heard, String> {
    if needed(payload, "type")? != "block_actions" {
        return Ok(Heard::Nothing);
    }
    let action = payload
        .pointer("/actions/0")
        .ok_or("actions: there is none")?;
    let Some(name) = field(action, "action_id").and_then(|name| name.strip_prefix(OURS)) else {
        return Ok(Heard::Nothing);
    };
    let trigger = id(payload, "trigger_id")?;
    let user = payload.get("user").ok_or("user: the field is missing")?;
    let channel = payload
        .get("channel")
        .ok_or("channel: the field is missing")?;
    let at = |pointer| payload.pointer(pointer).and_then(Value::as_str);
    let message = at("/container/message_ts").or_else(|| at("/message/ts"));
    let thread = at("/container/thread_ts").or_else(|| at("/message/thread_ts"));
    let press = Press {
        trigger: trigger.to_owned(),
        user: id(user, "id")
            .map_err(|why| format!("user.{why}"))?
            .to_owned(),
        user_name: ["username", "name"]
            .iter()
            .find_map(|name| field(user, name))
            .unwrap_or_default()
            .to_owned(),
        channel: id(channel, "id")
            .map_err(|why| format!("channel.{why}"))?
            .to_owned(),
        thread: thread.or(message).map(str::to_owned),
        action: name.to_owned(),
        value: field(action, "value").unwrap_or_default().to_owned(),
        words: words(payload),
    };
    Ok(Heard::work("press", trigger, Incoming::Press(press)))
}

/// What stands in our field of the message.
fn words(payload: &Value) -> String {
    let blocks = payload.pointer("/state/values").and_then(Value::as_object);
    let fields = blocks.into_iter().flat_map(serde_json::Map::values);
    let named = format!("{OURS}words");
    fields
        .filter_map(|block| field(block.get(&named)?, "value"))
        .map(|words| words.trim().to_owned())
        .find(|words| !words.is_empty())
        .unwrap_or_default()
}

/// The fields of a form as the object that Socket Mode sends in its place.
pub(super) fn of_form(fields: BTreeMap<String, String>) -> Value {
    fields
        .into_iter()
        .map(|(name, value)| (name, Value::String(value)))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn field<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

fn needed<'a>(value: &'a Value, name: &str) -> Result<&'a str, String> {
    let text = field(value, name).filter(|text| !text.is_empty());
    text.ok_or_else(|| format!("{name}: the field is missing"))
}

fn id<'a>(value: &'a Value, name: &str) -> Result<&'a str, String> {
    let text = needed(value, name)?;
    if text.len() > MAX_ID || !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(format!("{name}: it is no id"));
    }
    Ok(text)
}

/// The workspace; one that spans a whole organisation has no team.
fn team(payload: &Value, name: &str) -> Result<String, String> {
    match payload.get(name) {
        None | Some(Value::Null) => Ok("none".to_owned()),
        Some(_) => id(payload, name).map(str::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn callback(event: Value) -> Value {
        json!({
            "type": "event_callback", "team_id": "T1", "event_id": "Ev1", "event": event,
            "authorizations": [{ "user_id": "UBOT", "is_bot": true }],
        })
    }

    fn heard(event_: Value) -> Heard {
        event(&callback(event_)).unwrap()
    }

    fn mention() -> Value {
        json!({ "type": "app_mention", "user": "U1", "text": "<@UBOT> hi", "ts": "1.2", "channel": "C1" })
    }

    #[test]
    fn a_mention_and_a_direct_message_are_for_the_app() {
        let Heard::Work(id, work) = heard(mention()) else {
            panic!("it is work");
        };
        assert_eq!(id, "slack-in:event:Ev1");
        let Incoming::Event(happening) = *work else {
            panic!("it is an event");
        };
        let message = happening.message().unwrap();
        assert_eq!(
            (message.channel, message.user, message.ts),
            ("C1", "U1", "1.2")
        );
        assert!(!message.is_direct);
        let direct = json!({ "type": "message", "channel_type": "im", "user": "U1", "text": "hi", "ts": "1.2", "channel": "D1" });
        assert!(matches!(heard(direct), Heard::Work(..)));
    }

    #[test]
    fn what_programs_write_is_nothing() {
        let with = |name: &str, value: Value| {
            let mut event = mention();
            event[name] = value;
            event
        };
        for event in [
            with("bot_id", json!("B1")),
            with("user", json!("UBOT")),
            with("user", Value::Null),
            with("subtype", json!("message_changed")),
            with("subtype", json!("bot_message")),
        ] {
            assert_eq!(heard(event.clone()), Heard::Nothing, "{event}");
        }
        let shared = with("subtype", json!("file_share"));
        assert!(matches!(heard(shared), Heard::Work(..)));
    }

    #[test]
    fn a_message_in_a_channel_is_not_for_the_app() {
        let event = json!({ "type": "message", "channel_type": "channel", "user": "U1", "text": "hi", "ts": "1.2", "channel": "C1" });
        let Heard::Work(_, work) = heard(event) else {
            panic!("others may want it");
        };
        let Incoming::Event(happening) = *work else {
            panic!("it is an event");
        };
        assert_eq!(happening.message(), None);
    }

    #[test]
    fn commands_and_buttons_are_read() {
        let form = [
            ("command", "/Ask"),
            ("text", "why"),
            ("trigger_id", "1.2.a"),
            ("channel_id", "C1"),
            ("user_id", "U1"),
            ("user_name", "ann"),
            ("team_id", "T1"),
        ];
        let form = form.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let Ok(Heard::Work(id, work)) = command(&of_form(BTreeMap::from(form))) else {
            panic!("it is work");
        };
        assert_eq!(id, "slack-in:command:1.2.a");
        assert!(matches!(*work, Incoming::Command(Command { ref name, .. }) if name == "ask"));
        let pressed = json!({
            "type": "block_actions", "trigger_id": "1.2.b", "user": { "id": "U1", "username": "ann" },
            "channel": { "id": "C1" }, "container": { "message_ts": "5.6", "thread_ts": "1.2" },
            "actions": [{ "action_id": "agentrunner:approve", "value": "v" }],
            "state": { "values": { "b": { "agentrunner:words": { "value": " why " } } } },
        });
        let Ok(Heard::Work(_, work)) = interaction(&pressed) else {
            panic!("it is work");
        };
        let Incoming::Press(press) = *work else {
            panic!("a button was pressed");
        };
        assert_eq!(
            (press.action.as_str(), press.words.as_str()),
            ("approve", "why")
        );
        assert_eq!(press.thread.as_deref(), Some("1.2"));
        let mut others = pressed;
        others["actions"][0]["action_id"] = json!("other");
        assert_eq!(interaction(&others), Ok(Heard::Nothing));
    }

    #[test]
    fn what_slack_does_not_send_is_refused_with_the_field() {
        for (payload, field) in [
            (json!({}), "type"),
            (json!({ "type": "url_verification" }), "challenge"),
            (json!({ "type": "event_callback" }), "event_id"),
            (
                json!({ "type": "event_callback", "event_id": "E 1" }),
                "event_id",
            ),
            (
                json!({ "type": "event_callback", "event_id": "E1", "event": [] }),
                "event",
            ),
            (
                json!({ "type": "event_callback", "event_id": "E1", "event": {} }),
                "event.type",
            ),
        ] {
            let why = event(&payload).unwrap_err();
            assert!(why.starts_with(field), "{why}");
        }
    }

    fn arbitrary() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            prop::sample::select(vec![
                "event_callback",
                "block_actions",
                "message",
                "",
                "agentrunner:x",
                "D1"
            ])
            .prop_map(Value::from),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            let names = prop::sample::select(vec![
                "type",
                "event",
                "event_id",
                "team_id",
                "user",
                "channel",
                "actions",
                "action_id",
                "trigger_id",
                "state",
                "values",
                "ts",
                "id",
            ]);
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
                prop::collection::btree_map(names, inner, 0..6).prop_map(|map| map
                    .into_iter()
                    .map(|(k, v)| (k.to_owned(), v))
                    .collect::<serde_json::Map<_, _>>()
                    .into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_breaks_the_reader(payload in arbitrary()) {
            let _read = (event(&payload), command(&payload), interaction(&payload));
        }
    }
}
