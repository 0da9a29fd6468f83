//! An alert in Slack: as the bot in a channel, or by an incoming webhook.
//!
//! Source: <https://docs.slack.dev/reference/methods/chat.postMessage>.

use std::time::Duration;

use bytes::Bytes;
use domain::Time;
use domain::alert::{Notice, ReceiverConfig};
use domain::delivery::Reply;
use http::{HeaderMap, HeaderValue, Method, header};
use secrecy::ExposeSecret;
use serde_json::{Value, json};
use tools::Egress;
use tools::egress::{Origin, Request};
use url::Url;

use super::tell::address;
use super::{Alerts, message};
use crate::outgoing::{Tried, retry_after};

const PATIENCE: Duration = Duration::from_secs(15);
const MAX_ANSWER: usize = 64 << 10;

pub(super) async fn tell(
    alerts: &Alerts,
    egress: &Egress,
    receiver: &ReceiverConfig,
    notice: &Notice,
    now: Time,
) -> Tried {
    let text = escaped(&message::text(notice));
    if let Some(url) = &receiver.url {
        let (url, origin) = match address(url) {
            Ok(address) => address,
            Err(tried) => return tried,
        };
        return send(
            egress,
            (url, origin),
            HeaderMap::new(),
            &json!({ "text": text }),
            now,
        )
        .await;
    }
    let Some(token) = &alerts.settings.slack_token else {
        return Tried::failed("SLACK_BOT_TOKEN is not set");
    };
    let Ok(url) = alerts.settings.slack_api.join("chat.postMessage") else {
        return Tried::failed("SLACK_API_URL is no address");
    };
    let mut headers = HeaderMap::new();
    let bearer = format!("Bearer {}", token.expose_secret());
    let Ok(mut bearer) = HeaderValue::try_from(bearer) else {
        return Tried::failed("SLACK_BOT_TOKEN holds what no header can carry");
    };
    bearer.set_sensitive(true);
    headers.insert(header::AUTHORIZATION, bearer);
    let body = json!({ "channel": receiver.channel, "text": text, "unfurl_links": false });
    let origin = Origin::of(&url);
    send(egress, (url, origin), headers, &body, now).await
}

async fn send(
    egress: &Egress,
    (url, written): (Url, Option<Origin>),
    mut headers: HeaderMap,
    body: &Value,
    now: Time,
) -> Tried {
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    let request = Request {
        method: Method::POST,
        url,
        headers,
        body: Some(Bytes::from(body.to_string())),
        written,
        hosts: &[],
        timeout: PATIENCE,
        max_bytes: MAX_ANSWER,
        reuse: true,
    };
    let response = match egress.send_once(request).await {
        Ok(response) => response,
        Err(error) => return Tried::failed(format!("Slack: {error}")),
    };
    let status = response.status;
    // The Web API answers 200 to what it refuses, too, and says so in the body; an incoming webhook says `ok`.
    // What it answers otherwise goes by its status: 429 says how long we are to wait.
    let refusal = serde_json::from_slice::<Value>(&response.body)
        .ok()
        .filter(|_| status.is_success())
        .filter(|answer| answer.get("ok") == Some(&Value::Bool(false)))
        .map(|answer| match answer.get("error").and_then(Value::as_str) {
            Some(word) => word.to_owned(),
            None => "unknown".to_owned(),
        });
    match refusal {
        Some(why) => Tried::failed(format!("Slack refused it: {why}")),
        None if status.is_success() => Tried {
            reply: Reply::Taken,
            detail: String::new(),
        },
        None => Tried {
            reply: Reply::Status(status.as_u16(), retry_after(&response.headers, now)),
            detail: format!("Slack: HTTP {status}"),
        },
    }
}

/// What would be markup to Slack, as text.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
