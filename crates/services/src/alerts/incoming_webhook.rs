//! An alert by an incoming webhook of Slack's, or of what understands the same.
//!
//! Source: <https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks>.

use std::time::Duration;

use bytes::Bytes;
use domain::Time;
use domain::delivery::Reply;
use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::{Value, json};
use tools::Egress;
use tools::egress::Request;

use super::tell::address;
use crate::outgoing::{Tried, retry_after};

const PATIENCE: Duration = Duration::from_secs(15);
const MAX_ANSWER: usize = 64 << 10;

/// Posts plain text.
pub(super) async fn tell(egress: &Egress, url: &str, text: &str, now: Time) -> Tried {
    let (url, written) = match address(url) {
        Ok(address) => address,
        Err(tried) => return tried,
    };
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json; charset=utf-8"),
    );
    let request = Request {
        method: Method::POST,
        url,
        headers,
        body: Some(Bytes::from(json!({ "text": text }).to_string())),
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
    // It answers `ok`; some that understand the same answer 200 to what they refuse, too, and say so in JSON.
    let refusal = serde_json::from_slice::<Value>(&response.body)
        .ok()
        .filter(|answer| status.is_success() && answer.get("ok") == Some(&Value::Bool(false)))
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
