//! Slack, as far as it takes part: it tells that something happened until somebody has heard it.

use serde_json::json;
use testkit::slack::{SIGNING_SECRET, TEAM, sign};

use super::agents::HAPPENING;

/// Tells that this happened, now.
pub(super) fn happening(
    client: &reqwest::Client,
    url: &str,
    name: &str,
) -> reqwest::RequestBuilder {
    let event = json!({
        "type": HAPPENING, "user": "UANN00001", "reaction": name, "event_ts": "1732440600.000100",
        "item": { "type": "message", "channel": "C00000001", "ts": "1732440500.000100" },
    });
    let body = json!({
        "type": "event_callback", "team_id": TEAM, "api_app_id": "A00000001", "event_id": format!("Ev-{name}"),
        "event_time": 1_732_440_600, "event": event,
    });
    let (body, at) = (body.to_string(), chrono::Utc::now().timestamp());
    client
        .post(format!("{url}/slack/events"))
        .header("x-slack-request-timestamp", at.to_string())
        .header("x-slack-signature", sign(SIGNING_SECRET, at, &body))
        .header("content-type", "application/json")
        .body(body)
}
