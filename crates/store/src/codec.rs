//! What is stored as JSON or as a word.

mod ending;
mod packing;

use std::borrow::Cow;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub(crate) use ending::Ending;
pub(crate) use packing::Packing;

use crate::Result;
use crate::error::corrupt;

/// The deepest nesting of JSON that `serde_json` reads back, less a little for what a reader may wrap around it.
const MAX_DEPTH: usize = 120;

/// A value as JSON, made sure that it can be read again: a writer takes any depth, the reader does not.
pub(crate) fn encode<T: Serialize>(what: &str, value: &T) -> Result<String> {
    let json = serde_json::to_string(value).map_err(|error| corrupt(what, error))?;
    if json.len() > 2 * MAX_DEPTH && depth(&json) > MAX_DEPTH {
        let message = format!("it is nested deeper than {MAX_DEPTH} levels");
        return Err(corrupt(what, message));
    }
    Ok(json)
}

impl Packing {
    /// A value as JSON, as [`encode`] makes it, packed when it is long.
    pub(crate) fn encode<T: Serialize>(self, what: &str, value: &T) -> Result<String> {
        Ok(self.pack(encode(what, value)?))
    }
}

/// A value from JSON, packed or not.
pub(crate) fn decode<T: DeserializeOwned>(what: impl FnOnce() -> String, json: &str) -> Result<T> {
    let json = match packing::unpack(json) {
        Ok(json) => json,
        Err(message) => return Err(corrupt(what(), message)),
    };
    serde_json::from_str(&json).map_err(|error| corrupt(what(), error))
}

/// A value from the word that stands for it.
pub(crate) fn parse<T: std::str::FromStr>(what: &str, word: &str) -> Result<T>
where
    T::Err: std::fmt::Display,
{
    word.parse().map_err(|error: T::Err| corrupt(what, error))
}

/// As [`parse`], of rows that are counted: one that somebody wrote by hand must not hide the others.
pub(crate) fn readable<T: std::str::FromStr>(word: &str) -> Option<T> {
    word.parse().ok()
}

/// Free text as it is stored: PostgreSQL's has no zero character, and tools of SQLite's stop at
/// one. (JSON is safe: it is escaped there.)
pub(crate) fn text(text: &str) -> Cow<'_, str> {
    if text.contains('\0') {
        Cow::Owned(text.replace('\0', "\u{fffd}"))
    } else {
        Cow::Borrowed(text)
    }
}

fn depth(json: &str) -> usize {
    let (mut depth, mut deepest) = (0usize, 0usize);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_text => escaped = true,
            b'"' => in_text = !in_text,
            _ if in_text => {}
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn text_has_no_zero_character() {
        assert_eq!(text("a\0b"), "a\u{fffd}b");
        assert_eq!(text("ab"), "ab");
    }

    #[test]
    fn what_could_not_be_read_again_is_not_written() {
        let nested = |levels: usize| (0..levels).fold(Value::Null, |inner, _| json!([inner]));
        let good = encode("it", &nested(MAX_DEPTH)).unwrap();
        assert_eq!(
            decode::<Value>(String::new, &good).unwrap(),
            nested(MAX_DEPTH)
        );
        assert!(encode("it", &nested(MAX_DEPTH + 1)).is_err());
        let braces_in_text = json!("[{\\\"".repeat(500));
        assert!(encode("it", &braces_in_text).is_ok());
    }
}
