//! The routes of the Web API.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use axum::Router;
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use bytes::Bytes;
use serde_json::{Map, Value, json};
use tokio::sync::watch;

use super::world::{Fault, SlackCall, World};
use super::{APP_TOKEN, BOT_TOKEN, BOT_USER, TEAM, check, socket};
use crate::server::Link;

/// What the routes share.
#[derive(Clone, Debug)]
pub(super) struct Service(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    world: Mutex<World>,
    version: watch::Sender<u64>,
    address: OnceLock<SocketAddr>,
}

impl Default for Service {
    fn default() -> Self {
        Self(Arc::new(Shared {
            world: Mutex::default(),
            version: watch::Sender::new(0),
            address: OnceLock::new(),
        }))
    }
}

impl Service {
    pub(super) fn router(&self) -> Router {
        Router::new()
            .route("/api/{method}", any(call))
            .route("/socket", get(socket::listen))
            .with_state(self.clone())
    }

    pub(super) fn set_address(&self, address: SocketAddr) {
        self.0.address.set(address).ok();
    }

    pub(super) fn look<T>(&self, look: impl FnOnce(&World) -> T) -> T {
        look(&self.0.world.lock().expect("no holder panics"))
    }

    pub(super) fn change<T>(&self, change: impl FnOnce(&mut World) -> T) -> T {
        let changed = change(&mut self.0.world.lock().expect("no holder panics"));
        self.0.version.send_modify(|version| *version += 1);
        changed
    }

    pub(super) async fn wait<T>(&self, find: impl Fn(&World) -> Option<T>) -> T {
        let mut changed = self.0.version.subscribe();
        loop {
            changed.borrow_and_update();
            if let Some(found) = self.look(&find) {
                return found;
            }
            changed.changed().await.expect("the stand-in lives");
        }
    }
}

/// What docs/slack.md gives an app.
const SCOPES: &str = "app_mentions:read,channels:history,groups:history,im:history,mpim:history,chat:write,commands,reactions:read";

type Answered = Result<Value, String>;

async fn call(
    State(service): State<Service>,
    ConnectInfo(link): ConnectInfo<Link>,
    Path(method): Path<String>,
    Query(query): Query<BTreeMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let arguments = arguments(query, &headers, &body);
    let fault = service.change(|world| world.fault(&method));
    let note = |status: u16| SlackCall {
        method: method.clone(),
        at: Instant::now(),
        arguments: arguments.clone(),
        status,
    };
    if let Some(Fault::Limit(seconds)) = fault {
        service.change(|world| world.calls.push(note(429)));
        let answer = axum::Json(json!({ "ok": false, "error": "ratelimited" }));
        let retry = [("retry-after", seconds.to_string())];
        return (StatusCode::TOO_MANY_REQUESTS, retry, answer).into_response();
    }
    service.change(|world| world.calls.push(note(200)));
    let answered = match &fault {
        Some(Fault::Error(error)) => Err(error.clone()),
        _ => perform(&service, &method, &headers, &arguments),
    };
    if matches!(fault, Some(Fault::Swallow)) {
        link.sever().await;
    }
    let answer = match answered {
        Ok(mut answer) => {
            answer["ok"] = true.into();
            answer
        }
        Err(error) => json!({ "ok": false, "error": error }),
    };
    let scopes = service.look(|world| world.scopes.clone());
    let scopes = scopes.unwrap_or_else(|| SCOPES.to_owned());
    ([("x-oauth-scopes", scopes)], axum::Json(answer)).into_response()
}

/// The arguments of a call, however they come.
fn arguments(query: BTreeMap<String, String>, headers: &HeaderMap, body: &[u8]) -> Value {
    let kind = headers
        .get("content-type")
        .and_then(|kind| kind.to_str().ok());
    if kind.is_some_and(|kind| kind.starts_with("application/json")) {
        return serde_json::from_slice(body).unwrap_or_default();
    }
    let form = form(body).into_iter().chain(query);
    let fields = form.map(|(name, text)| {
        // Blocks and metadata come as JSON in a form.
        let value = match text.starts_with(['[', '{']) {
            true => serde_json::from_str(&text).unwrap_or(Value::String(text)),
            false => Value::String(text),
        };
        (name, value)
    });
    Value::Object(fields.collect::<Map<_, _>>())
}

fn form(body: &[u8]) -> Vec<(String, String)> {
    let text = String::from_utf8_lossy(body);
    let uri: http::Uri = format!("http://x/?{text}").parse().unwrap_or_default();
    Query::<Vec<(String, String)>>::try_from_uri(&uri)
        .map(|Query(pairs)| pairs)
        .unwrap_or_default()
}

fn perform(service: &Service, method: &str, headers: &HeaderMap, arguments: &Value) -> Answered {
    let token = headers
        .get("authorization")
        .and_then(|value| value.to_str().ok());
    let token = token.and_then(|value| value.strip_prefix("Bearer "));
    let token = token.or_else(|| arguments["token"].as_str());
    let wanted = match method {
        "apps.connections.open" => APP_TOKEN,
        _ => BOT_TOKEN,
    };
    match token {
        None => return Err("not_authed".to_owned()),
        Some(token) if token == wanted => {}
        Some(APP_TOKEN | BOT_TOKEN) => return Err("not_allowed_token_type".to_owned()),
        Some(_) => return Err("invalid_auth".to_owned()),
    }
    let text = |name: &str| arguments[name].as_str().map(str::to_owned);
    match method {
        "auth.test" => Ok(json!({
            "url": "https://stand-in.slack.com/", "team": "stand-in", "user": "agentrunner", "team_id": TEAM,
            "user_id": BOT_USER, "bot_id": "B00000001", "is_enterprise_install": false,
        })),
        "apps.connections.open" => {
            let address = service.0.address.get().expect("it listens");
            Ok(json!({ "url": format!("ws://{address}/socket?ticket=1&app_id=A1") }))
        }
        "chat.postMessage" => post(service, arguments),
        "chat.postEphemeral" => {
            let channel = channel(service, arguments)?;
            checked(service, method, arguments, false)?;
            let user = text("user").ok_or("user_not_found")?;
            let words = text("text").unwrap_or_default();
            service.change(|world| world.whispers.push((user, words)));
            Ok(json!({ "message_ts": "1732440000.000001", "channel": channel }))
        }
        "chat.update" => update(service, arguments),
        "chat.delete" => {
            let (channel, ts) = (channel(service, arguments)?, text("ts").unwrap_or_default());
            own(service, &channel, &ts, "cant_delete_message")?;
            service.change(|world| world.remove(&channel, &ts));
            Ok(json!({ "channel": channel, "ts": ts }))
        }
        "conversations.replies" | "conversations.history" => list(service, method, arguments),
        _ => Err("unknown_method".to_owned()),
    }
}

fn channel(service: &Service, arguments: &Value) -> Result<String, String> {
    let channel = arguments["channel"].as_str().unwrap_or_default();
    let channel = match channel.chars().next() {
        Some('C' | 'D' | 'G') => channel.to_owned(),
        // A message to a person opens a conversation with them.
        Some('U') => format!("D{}", channel.get(1..).unwrap_or_default()),
        _ => return Err("channel_not_found".to_owned()),
    };
    match service.look(|world| world.hidden.contains(&channel)) {
        true => Err("channel_not_found".to_owned()),
        false => Ok(channel),
    }
}

fn blocks(arguments: &Value) -> Vec<Value> {
    arguments["blocks"].as_array().cloned().unwrap_or_default()
}

fn checked(
    service: &Service,
    method: &str,
    arguments: &Value,
    is_update: bool,
) -> Result<(), String> {
    let text = arguments["text"].as_str();
    check::message(text, &blocks(arguments), is_update).map_err(|(error, why)| {
        service.change(|world| world.rejections.push(format!("{method}: {why}")));
        error.to_owned()
    })
}

fn post(service: &Service, arguments: &Value) -> Answered {
    let channel = channel(service, arguments)?;
    checked(service, "chat.postMessage", arguments, false)?;
    let text = arguments["text"].as_str().unwrap_or_default();
    let thread = arguments["thread_ts"].as_str().map(str::to_owned);
    let (blocks, metadata) = (blocks(arguments), arguments["metadata"].clone());
    let ts = service.change(|world| world.app_writes(&channel, thread, text, blocks, metadata));
    Ok(json!({
        "channel": channel, "ts": ts,
        "message": { "type": "message", "user": BOT_USER, "bot_id": "B00000001", "text": text, "ts": ts },
    }))
}

/// Fails unless the message is there, and the app's.
fn own(service: &Service, channel: &str, ts: &str, error: &str) -> Result<(), String> {
    let user = service.change(|world| world.find(channel, ts).map(|message| message.user.clone()));
    match user.as_deref() {
        None => Err("message_not_found".to_owned()),
        Some(BOT_USER) => Ok(()),
        Some(_) => Err(error.to_owned()),
    }
}

fn update(service: &Service, arguments: &Value) -> Answered {
    let channel = channel(service, arguments)?;
    let ts = arguments["ts"].as_str().unwrap_or_default();
    checked(service, "chat.update", arguments, true)?;
    own(service, &channel, ts, "cant_update_message")?;
    let text = arguments["text"].as_str().unwrap_or_default();
    service.change(|world| {
        if let Some(message) = world.find(&channel, ts) {
            message.text = text.to_owned();
            message.blocks = blocks(arguments);
            message.history.push(text.to_owned());
        }
    });
    Ok(json!({ "channel": channel, "ts": ts, "text": text, "message": { "text": text, "ts": ts } }))
}

/// How many messages a page has: Slack may give fewer than were asked for.
const PAGE: usize = 3;

fn list(service: &Service, method: &str, arguments: &Value) -> Answered {
    let channel = channel(service, arguments)?;
    let all = service.look(|world| world.messages(&channel));
    let thread = arguments["ts"].as_str();
    let wants_metadata = match &arguments["include_all_metadata"] {
        Value::Bool(wanted) => *wanted,
        Value::String(text) => matches!(text.as_str(), "true" | "1"),
        _ => false,
    };
    let is_wanted = |message: &&super::SlackMessage| match (method, thread) {
        ("conversations.replies", Some(thread)) => {
            message.ts == thread || message.thread.as_deref() == Some(thread)
        }
        _ => message.thread.is_none(),
    };
    let messages = all.iter().filter(is_wanted).map(|message| {
        let mut shown = json!({
            "type": "message", "user": message.user, "text": message.text, "ts": message.ts, "blocks": message.blocks,
        });
        if let Some(thread) = &message.thread {
            shown["thread_ts"] = thread.as_str().into();
        }
        if wants_metadata && !message.metadata.is_null() {
            shown["metadata"] = message.metadata.clone();
        }
        shown
    });
    let number = |name: &str| match &arguments[name] {
        Value::Number(number) => number.as_u64(),
        Value::String(text) => text.parse().ok(),
        _ => None,
    };
    let from = usize::try_from(number("cursor").unwrap_or(0)).unwrap_or(usize::MAX);
    let wanted = usize::try_from(number("limit").unwrap_or(100)).unwrap_or(usize::MAX);
    let mut messages = messages.skip(from).peekable();
    let page: Vec<_> = messages.by_ref().take(wanted.clamp(1, PAGE)).collect();
    let next = messages.peek().map(|_| (from + page.len()).to_string());
    Ok(json!({
        "messages": page, "has_more": next.is_some(),
        "response_metadata": { "next_cursor": next.unwrap_or_default() },
    }))
}
