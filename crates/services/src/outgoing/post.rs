//! One signed message by HTTP, and what its receiver says.

use std::time::Duration;

use bytes::Bytes;
use chrono::DateTime;
use domain::delivery::Reply;
use domain::{DeliveryId, Time};
use http::{HeaderMap, HeaderValue, Method, header};
use tools::Egress;
use tools::egress::{Origin, Request, Response};
use url::Url;

use super::SigningKeys;

/// How long a receiver may take to say that it has it.
const PATIENCE: Duration = Duration::from_secs(15);
/// How much of what it says is read: nobody looks at it.
const MAX_ANSWER: usize = 64 << 10;

/// What came of a try.
#[derive(Debug)]
pub(crate) struct Tried {
    pub(crate) reply: Reply,
    /// In words; empty when all is well.
    pub(crate) detail: String,
}

impl Tried {
    /// It will not work however often it is tried.
    pub(crate) fn refused(detail: impl Into<String>) -> Self {
        Self {
            reply: Reply::Refused,
            detail: detail.into(),
        }
    }

    /// It did not work now.
    pub(crate) fn failed(detail: impl Into<String>) -> Self {
        Self {
            reply: Reply::Nothing,
            detail: detail.into(),
        }
    }

    /// The status that was answered, if any was.
    pub(crate) fn status(&self) -> Option<u16> {
        match self.reply {
            Reply::Status(status, _) => Some(status),
            Reply::Nothing | Reply::Taken | Reply::Refused => None,
        }
    }
}

/// What a message is called to its receiver, each time it is sent.
pub(crate) fn webhook_id(id: DeliveryId) -> String {
    format!("msg_{id}")
}

/// Sends a message. `written` is an origin that an operator wrote down: it may be private.
pub(crate) async fn post(
    egress: &Egress,
    keys: &SigningKeys,
    url: Url,
    written: Option<Origin>,
    (id, now): (DeliveryId, Time),
    body: Vec<u8>,
) -> Tried {
    let id = webhook_id(id);
    let timestamp = now.timestamp();
    let signature = keys.sign(&id, timestamp, &body);
    let mut headers = HeaderMap::new();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    let ours = [
        ("webhook-id", id),
        ("webhook-timestamp", timestamp.to_string()),
        ("webhook-signature", signature),
    ];
    for (name, value) in ours {
        let Ok(value) = HeaderValue::try_from(value) else {
            return Tried::refused(format!("{name} can't be written"));
        };
        headers.insert(name, value);
    }
    let request = Request {
        method: Method::POST,
        url,
        headers,
        body: Some(Bytes::from(body)),
        written,
        hosts: &[],
        timeout: PATIENCE,
        max_bytes: MAX_ANSWER,
        reuse: true,
    };
    match egress.send_once(request).await {
        Ok(response) => said(&response, now),
        Err(tools::egress::EgressError::TimedOut) => Tried::failed(format!(
            "there was no answer within {} s",
            PATIENCE.as_secs()
        )),
        Err(error) => Tried::failed(error.to_string()),
    }
}

fn said(response: &Response, now: Time) -> Tried {
    let status = response.status;
    let detail = match status.as_u16() {
        200..=299 => String::new(),
        300..=399 => format!("HTTP {status}: a redirect is not followed; give the address itself"),
        410 => format!("HTTP {status}: it wants nothing more"),
        _ => format!("HTTP {status}"),
    };
    Tried {
        reply: Reply::Status(status.as_u16(), retry_after(&response.headers, now)),
        detail,
    }
}

/// How long we are asked to wait, in seconds or until a date.
pub(crate) fn retry_after(headers: &HeaderMap, now: Time) -> Option<Duration> {
    let text = headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = DateTime::parse_from_rfc2822(text).ok()?;
    (until.to_utc() - now).to_std().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_read_in_both_forms() {
        let now = DateTime::parse_from_rfc3339("2026-11-24T10:00:00Z").unwrap();
        let wait = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::RETRY_AFTER, text.parse().unwrap());
            retry_after(&headers, now.to_utc()).map(|wait| wait.as_secs())
        };
        assert_eq!(wait("120"), Some(120));
        assert_eq!(wait("Tue, 24 Nov 2026 10:00:09 GMT"), Some(9));
        for nonsense in ["", "soon", "-1", "1.5", "Tue, 24 Nov 2026 09:00:00 GMT"] {
            assert_eq!(wait(nonsense), None, "{nonsense}");
        }
    }
}
