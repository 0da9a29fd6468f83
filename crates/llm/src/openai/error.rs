//! Reads a refusal: OpenAI's own shape, and those of servers that only almost speak it.

use serde_json::Value;

use crate::failure::Report;

/// Reads the body of a refusal. What is no JSON is the message itself.
pub(crate) fn read(body: &[u8]) -> Report {
    match serde_json::from_slice::<Value>(body) {
        Ok(Value::Array(errors)) => errors.first().map(report).unwrap_or_default(),
        Ok(value) => report(&value),
        Err(_) => Report::saying(String::from_utf8_lossy(body)),
    }
}

/// Reads `{"error": {…}}`, `{"error": "…"}`, `{"message": "…"}` or `{"detail": "…"}`.
pub(super) fn report(value: &Value) -> Report {
    let error = value.get("error").unwrap_or(value);
    let text = |name: &str| match error.get(name) {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Number(number)) => number.to_string(),
        _ => String::new(),
    };
    let message = match error {
        Value::String(text) => text.clone(),
        _ => [text("message"), text("detail")]
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or_else(|| error.to_string()),
    };
    Report {
        kind: text("type"),
        code: text("code"),
        message,
    }
}

/// The status that this failure has when it comes instead of an answer.
pub(super) fn status(report: &Report) -> u16 {
    if let Ok(status @ 400..=599) = report.code.parse() {
        return status;
    }
    let words = [report.code.as_str(), report.kind.as_str()];
    let is = |names: &[&str]| words.iter().any(|word| names.contains(word));
    if is(&["invalid_api_key", "authentication_error"]) {
        401
    } else if is(&[
        "rate_limit_exceeded",
        "rate_limit_error",
        "insufficient_quota",
        "requests",
        "tokens",
    ]) {
        429
    } else if is(&["invalid_request_error", "context_length_exceeded"]) {
        400
    } else {
        500
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_come_in_many_shapes() {
        let message = |body: &str| read(body.as_bytes()).message;
        assert_eq!(message(r#"{"error":{"message":"m","code":null}}"#), "m");
        assert_eq!(message(r#"{"error":"m"}"#), "m");
        assert_eq!(message(r#"{"detail":"m"}"#), "m");
        assert_eq!(message(r#"[{"error":{"message":"m","code":400}}]"#), "m");
        assert_eq!(message("Bad Gateway"), "Bad Gateway");
        assert_eq!(message("[]"), "");
        assert_eq!(message(r#"{"a":1}"#), r#"{"a":1}"#);
        let numbered = read(br#"{"error":{"message":"m","code":502}}"#);
        assert_eq!(status(&numbered), 502);
    }
}
