//! Bounds for text that others wrote, and the outcome that fits a failure.

use domain::ToolOutcome;
use domain::definition::Effect;

/// The longest text of a failure, in bytes.
pub(crate) const MAX_MESSAGE_BYTES: usize = 4096;

/// Cuts a text to `max` bytes, at a character's border, and tells whether it was longer.
pub(crate) fn cut(mut text: String, max: usize) -> (String, bool) {
    if text.len() <= max {
        return (text, false);
    }
    text.truncate(text.floor_char_boundary(max));
    (text, true)
}

/// Cuts a borrowed text to `max` bytes, with an ellipsis where something is missing.
pub(crate) fn short(text: &str, max: usize) -> String {
    if text.len() <= max {
        return text.to_owned();
    }
    let end = text.floor_char_boundary(max);
    format!("{}…", text.get(..end).unwrap_or_default())
}

/// A text from outside as a log line may hold it: one line, no control characters, at most 500 bytes.
pub(crate) fn for_log(text: &str) -> String {
    short(text, 500).escape_debug().to_string()
}

/// A result, cut to `max` bytes.
pub(crate) fn succeeded(content: String, cut_before: bool, max: usize) -> ToolOutcome {
    let (content, cut_now) = cut(content, max);
    ToolOutcome::Succeeded {
        content,
        truncated: cut_before || cut_now,
    }
}

/// The call was answered with a failure, or certainly did not happen.
pub(crate) fn failed(message: impl Into<String>) -> ToolOutcome {
    ToolOutcome::Failed {
        message: cut(message.into(), MAX_MESSAGE_BYTES).0,
    }
}

/// The call was not made.
pub(crate) fn refused(message: impl Into<String>) -> ToolOutcome {
    ToolOutcome::Refused {
        message: cut(message.into(), MAX_MESSAGE_BYTES).0,
    }
}

/// The call went out and no answer came back. A read that nobody answered is a failure like any other: nothing can
/// have happened twice.
pub(crate) fn lost(effect: Effect, message: impl Into<String>) -> ToolOutcome {
    match effect {
        Effect::ReadOnly => failed(message),
        Effect::Idempotent | Effect::Checkable | Effect::Unsafe => ToolOutcome::Unknown {
            message: cut(message.into(), MAX_MESSAGE_BYTES).0,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("aé".to_owned(), 2), ("a".to_owned(), true));
        assert_eq!(cut("aé".to_owned(), 3), ("aé".to_owned(), false));
        assert_eq!(short("aé", 2), "a…");
    }

    #[test]
    fn a_log_line_cannot_be_forged() {
        assert_eq!(
            for_log("a\r\nb\u{1b}[31mc\u{202e}"),
            "a\\r\\nb\\u{1b}[31mc\\u{202e}"
        );
    }
}
