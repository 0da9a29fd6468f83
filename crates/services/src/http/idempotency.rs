//! The caller's key that makes repeating a request harmless.

use http::HeaderMap;

use super::{Answer, ApiError, Code};

/// The `Idempotency-Key`, bare or quoted.
pub(crate) fn idempotency_key(headers: &HeaderMap) -> Answer<Option<String>> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default();
    let quoted = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    let key = quoted.unwrap_or(text);
    if is_key(key) {
        Ok(Some(key.to_owned()))
    } else {
        let message = "Idempotency-Key: it is 1 to 255 visible ASCII characters without quotes, such as a UUID";
        Err(ApiError::new(Code::InvalidRequest, message))
    }
}

/// Whether a text may be such a key.
pub(crate) fn is_key(text: &str) -> bool {
    !text.is_empty() && text.len() <= 255 && text.bytes().all(|b| b.is_ascii_graphic() && b != b'"')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idempotency_keys_are_taken_bare_and_quoted() {
        let key = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("idempotency-key", text.parse().unwrap());
            idempotency_key(&headers)
        };
        assert_eq!(key("abc").unwrap().as_deref(), Some("abc"));
        assert_eq!(key("\"abc\"").unwrap().as_deref(), Some("abc"));
        for bad in ["", "\"\"", "a b", "\"a", &"x".repeat(256)] {
            assert!(key(bad).is_err(), "{bad:?}");
        }
        assert_eq!(idempotency_key(&HeaderMap::new()).unwrap(), None);
    }
}
