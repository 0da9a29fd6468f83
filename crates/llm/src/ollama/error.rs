//! Reads a refusal: `{"error": "…"}`.

use serde::Deserialize;

use crate::failure::Report;

#[derive(Deserialize)]
struct Body {
    error: String,
}

/// Reads the body of a refusal. What is no JSON is the message itself.
pub(crate) fn read(body: &[u8]) -> Report {
    serde_json::from_slice::<Body>(body).map_or_else(
        |_| Report::saying(String::from_utf8_lossy(body)),
        |body| Report::saying(body.error),
    )
}
