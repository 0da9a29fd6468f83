//! Reads a refusal, and an error event in the middle of a stream.

use serde::Deserialize;

use crate::failure::Report;

#[derive(Deserialize)]
struct Body {
    error: WireError,
}

/// What is wrong.
#[derive(Debug, Deserialize)]
pub(super) struct WireError {
    #[serde(rename = "type", default)]
    kind: String,
    #[serde(default)]
    message: String,
}

impl From<WireError> for Report {
    fn from(error: WireError) -> Self {
        Self {
            kind: error.kind,
            code: String::new(),
            message: error.message,
        }
    }
}

/// Reads the body of a refusal. What is no JSON is the message itself.
pub(crate) fn read(body: &[u8]) -> Report {
    serde_json::from_slice::<Body>(body).map_or_else(
        |_| Report::saying(String::from_utf8_lossy(body)),
        |body| body.error.into(),
    )
}

/// The status that this failure has when it comes instead of an answer.
pub(super) fn status(report: &Report) -> u16 {
    match report.kind.as_str() {
        "invalid_request_error" => 400,
        "authentication_error" => 401,
        "billing_error" => 402,
        "permission_error" => 403,
        "not_found_error" => 404,
        "request_too_large" => 413,
        "rate_limit_error" => 429,
        "overloaded_error" => 529,
        _ => 500,
    }
}
