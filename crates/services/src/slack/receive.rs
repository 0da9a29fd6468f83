//! What Slack sends by HTTP. Answered when it is on disk, and before anything is done about it.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Serialize;
use serde_json::Value;
use store::NewErrand;
use utoipa::ToSchema;

use super::Slack;
use super::gateway::IN;
use super::incoming::{self, Heard};
use super::signed::Signed;
use crate::http::error::ErrorBody;
use crate::http::{Answer, ApiError, App, Code};

/// What Slack is answered.
#[derive(Debug, Default, Serialize, ToSchema)]
pub(super) struct Received {
    /// What Slack wants back when it looks whether somebody is here.
    #[serde(skip_serializing_if = "Option::is_none")]
    challenge: Option<String>,
}

/// Takes an event of Slack's Events API.
#[utoipa::path(post, path = "/slack/events", tag = "slack",
    params(
        ("X-Slack-Request-Timestamp" = String, Header, description = "When it was sent, in seconds since 1970: 5 minutes off at most."),
        ("X-Slack-Signature" = String, Header, description = "`v0=` and the HMAC-SHA256 of `v0:`, the time, `:` and the body."),
    ),
    request_body(content = Object, description = "`url_verification`, or `event_callback` with an `event_id` and an `event`."),
    responses(
        (status = 200, description = "It is on disk; an `event_id` that was known changes nothing.", body = Received),
        (status = 401, description = "It is not signed by Slack, or not now.", body = ErrorBody),
        (status = 429, description = "Too many came from there that were not signed.", body = ErrorBody),
    ))]
pub(super) async fn events(State(app): State<App>, body: Signed) -> Answer<Json<Received>> {
    take(&app, incoming::event(&json(&body.0)?)).await
}

/// Takes a slash command.
#[utoipa::path(post, path = "/slack/commands", tag = "slack",
    params(
        ("X-Slack-Request-Timestamp" = String, Header, description = "As for /slack/events."),
        ("X-Slack-Signature" = String, Header, description = "As for /slack/events."),
    ),
    request_body(content = Object, content_type = "application/x-www-form-urlencoded", description = "`command`, `text`, `trigger_id`, `team_id`, `channel_id`, `user_id`."),
    responses(
        (status = 200, description = "It is on disk.", body = Received),
        (status = 401, description = "It is not signed by Slack, or not now.", body = ErrorBody),
        (status = 429, description = "Too many came from there that were not signed.", body = ErrorBody),
    ))]
pub(super) async fn commands(State(app): State<App>, body: Signed) -> Answer<Json<Received>> {
    take(&app, incoming::command(&incoming::of_form(form(&body.0)))).await
}

/// Takes a pressed button.
#[utoipa::path(post, path = "/slack/interactive", tag = "slack",
    params(
        ("X-Slack-Request-Timestamp" = String, Header, description = "As for /slack/events."),
        ("X-Slack-Signature" = String, Header, description = "As for /slack/events."),
    ),
    request_body(content = Object, content_type = "application/x-www-form-urlencoded", description = "`payload`: JSON, of which `block_actions` is acted on."),
    responses(
        (status = 200, description = "It is on disk.", body = Received),
        (status = 401, description = "It is not signed by Slack, or not now.", body = ErrorBody),
        (status = 429, description = "Too many came from there that were not signed.", body = ErrorBody),
    ))]
pub(super) async fn interactive(State(app): State<App>, body: Signed) -> Answer<Json<Received>> {
    let mut fields = form(&body.0);
    let payload = fields.remove("payload").unwrap_or_default();
    take(&app, incoming::interaction(&json(payload.as_bytes())?)).await
}

async fn take(app: &App, heard: Result<Heard, String>) -> Answer<Json<Received>> {
    let heard = heard.map_err(|why| ApiError::new(Code::InvalidRequest, why))?;
    let slack = app.slack.as_ref().ok_or_else(ApiError::internal)?;
    let challenge = slack.keep(app, heard).await?;
    Ok(Json(Received { challenge }))
}

impl Slack {
    /// Takes something in, durably, unless it is known; answers the text that Slack wants back.
    ///
    /// # Errors
    /// The store can't take it.
    pub(super) async fn keep(
        &self,
        app: &App,
        heard: Heard,
    ) -> Result<Option<String>, store::Error> {
        let (id, incoming) = match heard {
            Heard::Challenge(text) => return Ok(Some(text)),
            Heard::Nothing => return Ok(None),
            Heard::Work(id, incoming) => (id, incoming),
        };
        // Whichever way it came: what is kept has no known secret in it.
        let mut body = serde_json::to_value(&incoming).unwrap_or_default();
        app.redactor.mask_json(&mut body);
        let errand = NewErrand {
            id,
            queue: IN.to_owned(),
            body: body.to_string(),
            due_at: app.engine.now(),
        };
        let is_new = app.engine.store().add_errand(errand).await?;
        let known = if is_new { "new" } else { "known" };
        metrics::counter!("agentrunner_slack_received_total", "kind" => known).increment(1);
        if is_new {
            self.0.came.notify_one();
        }
        Ok(None)
    }
}

fn json(bytes: &[u8]) -> Answer<Value> {
    serde_json::from_slice(bytes).map_err(|error| {
        let message = format!("the body is no JSON that can be read: {error}");
        ApiError::new(Code::InvalidRequest, message)
    })
}

fn form(bytes: &[u8]) -> BTreeMap<String, String> {
    url::form_urlencoded::parse(bytes).into_owned().collect()
}
