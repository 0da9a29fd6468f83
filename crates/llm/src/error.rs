//! Why a model call failed, in one shape for all providers.

use std::time::Duration;

use domain::retry::ModelErrorClass;

/// Why a model call failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What kind.
    pub class: ModelErrorClass,
    /// What the provider said, or what happened, and what to do. Holds no key.
    pub message: String,
    /// How long the provider wants us to wait.
    pub retry_after: Option<Duration>,
    /// What is behind it.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl Error {
    /// A failure of this class, with what happened and what to do.
    pub fn new(class: ModelErrorClass, message: impl Into<String>) -> Self {
        Self {
            class,
            message: message.into(),
            retry_after: None,
            source: None,
        }
    }

    /// The same, with the time that the provider wants us to wait.
    #[must_use]
    pub fn after(mut self, wait: Option<Duration>) -> Self {
        self.retry_after = wait;
        self
    }

    /// The same, with what is behind it.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new(ModelErrorClass::InvalidRequest, message)
    }

    pub(crate) fn garbled(message: impl Into<String>) -> Self {
        Self::new(ModelErrorClass::Garbled, message)
    }

    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new(ModelErrorClass::Unavailable, message)
    }
}

/// The longest piece of a provider's own words in a message, in characters.
const LONGEST_QUOTE: usize = 500;

/// Somebody else's words for a message of ours: in quotation marks, shortened, control characters escaped.
pub(crate) fn quote(text: &str) -> String {
    let mut quoted = String::with_capacity(text.len().min(LONGEST_QUOTE) + 2);
    quoted.push('"');
    for (count, character) in text.trim().chars().enumerate() {
        if count == LONGEST_QUOTE {
            quoted.push('…');
            break;
        }
        if is_unprintable(character) {
            quoted.extend(character.escape_default());
        } else {
            quoted.push(character);
        }
    }
    quoted.push('"');
    quoted
}

/// Control characters, and those that turn the direction of text around.
fn is_unprintable(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quote_is_short_and_on_one_line() {
        assert_eq!(quote(" a\nb\u{1b}[31m "), r#""a\nb\u{1b}[31m""#);
        assert_eq!(quote("é"), "\"é\"");
        assert_eq!(quote(&"x".repeat(10_000)).chars().count(), 503);
    }
}
