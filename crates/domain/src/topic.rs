//! Topics and the patterns that match them, by the rules of AMQP topic exchanges: words joined by dots,
//! `*` stands for exactly one word, `#` for any number of words, none included.

mod tree;

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use tree::TopicTree;

/// The longest topic or pattern, in bytes: the limit of an AMQP routing key.
pub const MAX_BYTES: usize = 255;

/// Why a text is not a topic or pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTopic {
    /// It is empty, or one of its words is.
    #[error("topic {0:?} has an empty word; words are joined by single dots")]
    EmptyWord(String),
    /// It is longer than [`MAX_BYTES`].
    #[error("a topic has at most {MAX_BYTES} bytes, this one has {0}")]
    TooLong(usize),
    /// A word has a character that no topic may have.
    #[error("topic {0:?}: a word is made of letters, digits, '-', '_', ':' and '@'")]
    BadCharacter(String),
    /// A pattern where a plain topic is needed, or a wildcard that is not a whole word.
    #[error("topic {0:?}: '*' and '#' are whole words of a subscription's pattern, nothing else")]
    Wildcard(String),
}

fn check(text: &str, wildcards: bool) -> Result<(), InvalidTopic> {
    if text.len() > MAX_BYTES {
        return Err(InvalidTopic::TooLong(text.len()));
    }
    for word in text.split('.') {
        match word {
            "" => return Err(InvalidTopic::EmptyWord(text.to_owned())),
            "*" | "#" if wildcards => {}
            _ if word.contains(['*', '#']) => return Err(InvalidTopic::Wildcard(text.to_owned())),
            _ if !word
                .chars()
                .all(|c| c.is_alphanumeric() || "-_:@".contains(c)) =>
            {
                return Err(InvalidTopic::BadCharacter(text.to_owned()));
            }
            _ => {}
        }
    }
    Ok(())
}

macro_rules! topic_type {
    ($(#[$doc:meta])* $name:ident, $wildcards:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidTopic;
            fn try_from(text: String) -> Result<Self, InvalidTopic> {
                check(&text, $wildcards)?;
                Ok(Self(text))
            }
        }

        impl FromStr for $name {
            type Err = InvalidTopic;
            fn from_str(s: &str) -> Result<Self, InvalidTopic> {
                Self::try_from(s.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(topic: $name) -> String {
                topic.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

topic_type! {
    /// What an event is about, such as `agent.execution.completed`.
    Topic, false
}

topic_type! {
    /// Which topics a subscriber wants, such as `agent.output.*` or `orders.#`.
    TopicPattern, true
}

impl TopicPattern {
    /// Tells whether `topic` is wanted. Linear in the product of the word counts, whatever the pattern:
    /// a pattern comes from a user, so matching must not blow up.
    pub fn matches(&self, topic: &Topic) -> bool {
        let words: Vec<&str> = topic.0.split('.').collect();
        // reach[i]: the pattern so far can consume exactly the first i words.
        let mut reach = vec![false; words.len() + 1];
        if let Some(first) = reach.first_mut() {
            *first = true;
        }
        for part in self.0.split('.') {
            reach = match part {
                "#" => reach
                    .iter()
                    .scan(false, |open, &here| {
                        *open |= here;
                        Some(*open)
                    })
                    .collect(),
                _ => std::iter::once(false)
                    .chain(
                        words
                            .iter()
                            .zip(&reach)
                            .map(|(word, &here)| here && (part == "*" || part == *word)),
                    )
                    .collect(),
            };
        }
        reach.last().copied().unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, topic: &str) -> bool {
        pattern
            .parse::<TopicPattern>()
            .unwrap()
            .matches(&topic.parse().unwrap())
    }

    /// The rule of the AMQP specification, written down as naively as possible.
    fn oracle(pattern: &[&str], topic: &[&str]) -> bool {
        match (pattern, topic) {
            ([], []) => true,
            (["#", rest @ ..], _) => (0..=topic.len()).any(|n| oracle(rest, &topic[n..])),
            ([p, ps @ ..], [t, ts @ ..]) => (*p == "*" || p == t) && oracle(ps, ts),
            _ => false,
        }
    }

    #[test]
    fn known_cases() {
        assert!(matches("agent.output.*", "agent.output.writer"));
        assert!(!matches("agent.output.*", "agent.output"));
        assert!(matches("agent.#", "agent"));
        assert!(matches("#", "a.b.c"));
        assert!(matches("a.#.z", "a.z"));
        assert!(matches("a.#.z", "a.b.c.z"));
        assert!(!matches("a.#.z", "a.b.c"));
    }

    #[test]
    fn malformed_topics_are_refused() {
        for bad in ["", ".", "a..b", "a.", "a b", "a.*", "a.b*"] {
            assert!(bad.parse::<Topic>().is_err(), "{bad}");
        }
        assert!("a.b*".parse::<TopicPattern>().is_err());
        assert!("x".repeat(256).parse::<Topic>().is_err());
    }

    proptest! {
        #[test]
        fn agrees_with_the_specification(
            pattern in prop::collection::vec(prop::sample::select(vec!["a", "b", "*", "#"]), 1..6),
            topic in prop::collection::vec(prop::sample::select(vec!["a", "b"]), 1..6),
        ) {
            prop_assert_eq!(matches(&pattern.join("."), &topic.join(".")), oracle(&pattern, &topic));
        }
    }
}
