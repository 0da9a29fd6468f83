//! Messages that callers of the API send through the app.

use std::time::Duration;

use axum::Json;
use axum::extract::{Path, State};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use store::NewErrand;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use super::client::set;
use super::gateway::{OUT, read};
use super::outgoing::{Act, Call, CallResult, Outgoing};
use crate::http::body::{JsonBody, Payload};
use crate::http::caller::Caller;
use crate::http::error::ErrorBody;
use crate::http::idempotency::idempotency_key;
use crate::http::params::Params;
use crate::http::{Answer, ApiError, App, Code};

/// How long a caller waits for Slack; what takes longer is sent all the same.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);
/// What Slack cuts off, in characters.
const MAX_TEXT: usize = 40_000;
const MAX_BLOCKS: usize = 50;

/// A message to send.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct SendIn {
    /// The channel, or the person for a direct message, by id.
    #[schema(example = "C0123456789")]
    channel: String,
    /// What it says, in Slack's mrkdwn; with `blocks`, what notifications say.
    #[serde(default)]
    #[schema(example = "The report is *ready*.")]
    text: Option<String>,
    /// Block Kit.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>)]
    blocks: Option<Vec<Value>>,
    /// The message that it answers.
    #[serde(default)]
    thread_ts: Option<String>,
}

impl Payload for SendIn {}

/// What a message is to say from now on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangeIn {
    /// Where it is.
    #[schema(example = "C0123456789")]
    channel: String,
    /// What it says, in Slack's mrkdwn.
    #[serde(default)]
    text: Option<String>,
    /// Block Kit.
    #[serde(default)]
    #[schema(value_type = Option<Vec<Object>>)]
    blocks: Option<Vec<Value>>,
}

impl Payload for ChangeIn {}

/// Where a message is.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct PlaceParams {
    /// The channel.
    channel: String,
}

/// What became of it.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct SentOut {
    /// `sent`, or `queued` while Slack makes us wait.
    status: &'static str,
    /// Where.
    channel: String,
    /// The message, once Slack has it.
    ts: Option<String>,
}

/// Sends a message. It is on disk before Slack is asked; when Slack makes us wait, the answer is 202 and it is sent later.
#[utoipa::path(post, path = "/slack/send-message", tag = "slack",
    params(("Idempotency-Key" = Option<String>, Header, description = "The same key and body send one message.")),
    request_body = SendIn,
    responses(
        (status = 200, description = "Slack has it.", body = SentOut),
        (status = 202, description = "It will be sent.", body = SentOut),
        (status = 400, description = "It can't be sent like this; `details.slack_error` when Slack says so.", body = ErrorBody),
        (status = 404, description = "Slack knows no such channel or message.", body = ErrorBody),
        (status = 409, description = "SLACK_BOT_TOKEN is not set, or the key came with another body.", body = ErrorBody),
    ))]
pub(super) async fn send(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: JsonBody<SendIn>,
) -> Answer<(StatusCode, Json<SentOut>)> {
    let key = idempotency_key(&headers)?.unwrap_or_else(|| Uuid::now_v7().to_string());
    let given = body.value;
    let mut message = json!({ "channel": given.channel });
    fill(&mut message, given.text, given.blocks)?;
    if let Some(thread) = given.thread_ts {
        set(
            &mut message,
            "thread_ts",
            Some(checked_ts("thread_ts", &thread)?),
        );
    }
    let channel = checked_channel(given.channel)?;
    order(&app, &caller, Act::Post, channel, message, (key, body.hash)).await
}

/// Puts another text in the place of a message's that the app sent.
#[utoipa::path(put, path = "/slack/messages/{ts}", tag = "slack",
    params(("ts" = String, Path, description = "The message.", example = "1732440600.000100")),
    request_body = ChangeIn,
    responses(
        (status = 200, description = "Slack has it.", body = SentOut),
        (status = 202, description = "It will be changed.", body = SentOut),
        (status = 400, description = "It can't be changed like this.", body = ErrorBody),
        (status = 404, description = "Slack knows no such channel or message.", body = ErrorBody),
        (status = 409, description = "SLACK_BOT_TOKEN is not set.", body = ErrorBody),
    ))]
pub(super) async fn change(
    State(app): State<App>,
    caller: Caller,
    Path(ts): Path<String>,
    body: JsonBody<ChangeIn>,
) -> Answer<(StatusCode, Json<SentOut>)> {
    let given = body.value;
    let ts = checked_ts("ts", &ts)?;
    let mut message = json!({ "channel": given.channel, "ts": ts });
    fill(&mut message, given.text, given.blocks)?;
    let channel = checked_channel(given.channel)?;
    let key = (Uuid::now_v7().to_string(), body.hash);
    order(&app, &caller, Act::Update, channel, message, key).await
}

/// Takes a message away that the app sent.
#[utoipa::path(delete, path = "/slack/messages/{ts}", tag = "slack",
    params(("ts" = String, Path, description = "The message.", example = "1732440600.000100"), PlaceParams),
    responses(
        (status = 200, description = "It is gone.", body = SentOut),
        (status = 202, description = "It will be taken away.", body = SentOut),
        (status = 400, description = "It can't be taken away.", body = ErrorBody),
        (status = 404, description = "Slack knows no such channel or message.", body = ErrorBody),
        (status = 409, description = "SLACK_BOT_TOKEN is not set.", body = ErrorBody),
    ))]
pub(super) async fn remove(
    State(app): State<App>,
    caller: Caller,
    Path(ts): Path<String>,
    Params(place): Params<PlaceParams>,
) -> Answer<(StatusCode, Json<SentOut>)> {
    let ts = checked_ts("ts", &ts)?;
    let channel = checked_channel(place.channel)?;
    let message = json!({ "channel": channel, "ts": ts });
    let key = (Uuid::now_v7().to_string(), String::new());
    order(&app, &caller, Act::Delete, channel, message, key).await
}

/// Has it done, and waits for a while until it is.
async fn order(
    app: &App,
    caller: &Caller,
    act: Act,
    channel: String,
    body: Value,
    (key, hash): (String, String),
) -> Answer<(StatusCode, Json<SentOut>)> {
    let Some(slack) = app.slack.as_ref().filter(|slack| slack.writer().is_some()) else {
        let message = "SLACK_BOT_TOKEN is not set, so nothing can be written in Slack; set it to the Bot User OAuth Token of the app's page";
        return Err(ApiError::new(Code::StateConflict, message));
    };
    caller.note("channel", channel.as_str());
    let call = Call {
        act,
        channel: channel.clone(),
        body,
        hash,
        is_begun: false,
        result: None,
    };
    let errand = NewErrand {
        id: format!("slack-call:{key}"),
        queue: OUT.to_owned(),
        body: serde_json::to_string(&Outgoing::Call(call.clone())).unwrap_or_default(),
        due_at: app.engine.now(),
    };
    let (id, store) = (errand.id.clone(), app.engine.store());
    store.add_errand(errand).await?;
    slack.0.goes.notify_one();
    let begun = tokio::time::Instant::now();
    let result = loop {
        let kept = store.errand(&id).await?.as_ref().and_then(read::<Outgoing>);
        match kept {
            Some(Outgoing::Call(kept)) if kept.hash != call.hash => {
                let message = "the Idempotency-Key came with another body; use a new one";
                return Err(ApiError::new(Code::IdempotencyMismatch, message));
            }
            Some(Outgoing::Call(kept)) if kept.result.is_some() => break kept.result,
            _ if begun.elapsed() >= PATIENCE => break None,
            _ => tokio::time::sleep(LOOK).await,
        }
    };
    let out = |status, ts| SentOut {
        status,
        channel,
        ts,
    };
    match result {
        Some(CallResult::Done(ts)) => Ok((StatusCode::OK, Json(out("sent", Some(ts))))),
        Some(CallResult::Refused(error)) => Err(refused(&error)),
        None => Ok((StatusCode::ACCEPTED, Json(out("queued", None)))),
    }
}

fn refused(error: &str) -> ApiError {
    let (code, hint) = match error {
        "channel_not_found" => (
            Code::NotFound,
            "look at the channel's id, and invite the app if it is private",
        ),
        "message_not_found" => (Code::NotFound, "look at the channel and the ts"),
        "not_in_channel" => (Code::InvalidRequest, "invite the app to the channel"),
        "cant_update_message" | "cant_delete_message" => (
            Code::InvalidRequest,
            "only messages that the app sent can be changed",
        ),
        _ => (
            Code::InvalidRequest,
            "https://docs.slack.dev/reference/methods says what that means",
        ),
    };
    ApiError::new(code, format!("Slack says {error}; {hint}")).with("slack_error", error)
}

fn fill(message: &mut Value, text: Option<String>, blocks: Option<Vec<Value>>) -> Answer<()> {
    let text = text.filter(|text| !text.trim().is_empty());
    let blocks = blocks.filter(|blocks| !blocks.is_empty());
    if text.is_none() && blocks.is_none() {
        return Err(invalid("text", "say something: text, or blocks"));
    }
    if text
        .as_ref()
        .is_some_and(|text| text.chars().count() > MAX_TEXT)
    {
        return Err(invalid(
            "text",
            "Slack takes 40,000 characters at most; send several messages",
        ));
    }
    if blocks
        .as_ref()
        .is_some_and(|blocks| blocks.len() > MAX_BLOCKS)
    {
        return Err(invalid(
            "blocks",
            "Slack takes 50 at most; send several messages",
        ));
    }
    set(message, "text", text);
    set(message, "blocks", blocks);
    Ok(())
}

fn checked_channel(channel: String) -> Answer<String> {
    let is_id = (1..=255).contains(&channel.len()) && channel.bytes().all(|b| b.is_ascii_graphic());
    match is_id {
        true => Ok(channel),
        false => Err(invalid("channel", "write its id, such as C0123456789")),
    }
}

/// A message's name: seconds and six digits.
fn checked_ts(field: &str, ts: &str) -> Answer<String> {
    let is_number =
        |text: &str| (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    match ts.split_once('.') {
        Some((seconds, rest)) if is_number(seconds) && is_number(rest) => Ok(ts.to_owned()),
        _ => Err(invalid(field, "it looks like 1732440600.000100")),
    }
}

fn invalid(field: &str, why: &str) -> ApiError {
    ApiError::new(Code::InvalidRequest, format!("{field}: {why}")).with_field(field, why, "")
}
