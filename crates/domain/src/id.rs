//! Names and numbers that identify things, each a type of its own so that none is taken for another.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Why a text is not a valid identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} {value:?} is not valid: {rule}")]
pub struct InvalidId {
    what: &'static str,
    value: String,
    rule: &'static str,
}

impl InvalidId {
    pub(crate) fn new(what: &'static str, value: &str, rule: &'static str) -> Self {
        let value = value.chars().take(80).collect();
        Self { what, value, rule }
    }
}

/// Identifies one execution. New ones are UUID version 7, so that they sort by the time of their making;
/// a child's is version 8, computed from its parent, so that starting it twice makes one.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct ExecutionId(Uuid);

impl ExecutionId {
    /// Wraps a UUID that the caller made or read.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The id of the child that `parent` starts by its step `seq`. It begins with the parent's time, so that a store
    /// that keeps executions apart by the time in their ids keeps a family together.
    pub fn child_of(parent: Self, seq: Seq) -> Self {
        let mut bytes = Uuid::new_v5(&parent.0, &seq.get().to_be_bytes()).into_bytes();
        for (byte, time) in bytes.iter_mut().zip(parent.0.as_bytes()).take(6) {
            *byte = *time;
        }
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }

    /// The UUID inside.
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for ExecutionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for ExecutionId {
    type Err = InvalidId;
    fn from_str(s: &str) -> Result<Self, InvalidId> {
        Uuid::parse_str(s)
            .map(Self)
            .map_err(|_| InvalidId::new("execution id", s, "it is a UUID"))
    }
}

/// Makes a text id with a rule: parsed on every way in, so that a value of the type is always valid.
macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $rule:literal, $valid:expr) => {
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
            type Error = InvalidId;
            fn try_from(value: String) -> Result<Self, InvalidId> {
                let valid: fn(&str) -> bool = $valid;
                if valid(&value) {
                    Ok(Self(value))
                } else {
                    Err(InvalidId::new($what, &value, $rule))
                }
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(s: &str) -> Result<Self, InvalidId> {
                Self::try_from(s.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

text_id! {
    /// The name of an agent: lowercase letters, digits, `-` and `_`, at most 63.
    AgentName, "agent name",
    "it is 1 to 63 lowercase letters, digits, '-' or '_', and begins with a letter or digit",
    |s| {
        s.len() <= 63
            && s.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
            && s.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'_')
    }
}

text_id! {
    /// The name of a schedule, by the same rule as an agent's: a schedule in an agent's file has the agent's name.
    ScheduleName, "schedule name",
    "it is 1 to 63 lowercase letters, digits, '-' or '_', and begins with a letter or digit",
    |s| s.parse::<AgentName>().is_ok()
}

impl From<&AgentName> for ScheduleName {
    fn from(agent: &AgentName) -> Self {
        Self(agent.as_str().to_owned())
    }
}

text_id! {
    /// Names a conversation with one agent; chosen by the caller.
    ConversationId, "conversation id", "it is 1 to 255 bytes without control characters",
    |s| !s.is_empty() && s.len() <= 255 && !s.chars().any(char::is_control)
}

text_id! {
    /// Identifies an event. One (agent, event id) starts one execution, however often it is delivered.
    EventId, "event id", "it is 1 to 255 bytes without control characters",
    |s| !s.is_empty() && s.len() <= 255 && !s.chars().any(char::is_control)
}

text_id! {
    /// Names a running process that performs executions: host, process id and a random part.
    WorkerId, "worker id", "it is 1 to 255 bytes without control characters",
    |s| !s.is_empty() && s.len() <= 255 && !s.chars().any(char::is_control)
}

text_id! {
    /// Names a step of a plan; chosen by whoever plans.
    PlanStepId, "plan step id", "it is 1 to 64 letters, digits, '-', '_' or '.'",
    |s| {
        !s.is_empty()
            && s.len() <= 64
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_' || b == b'.')
    }
}

text_id! {
    /// The content hash of an agent definition: equal definitions have equal versions, everywhere.
    ConfigVersion, "config version", "it is 16 lowercase hex digits",
    |s| s.len() == 16 && s.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

/// A trace id as W3C Trace Context spells it: 32 lowercase hex digits. A UUID is accepted and its dashes dropped.
#[derive(
    Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct TraceId(String);

impl TraceId {
    /// A trace id made of the 128 bits of a UUID.
    pub fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid.simple().to_string())
    }

    /// The 32 digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for TraceId {
    type Error = InvalidId;
    fn try_from(value: String) -> Result<Self, InvalidId> {
        match Uuid::parse_str(&value) {
            Ok(uuid) if !uuid.is_nil() => Ok(Self::from_uuid(uuid)),
            _ => Err(InvalidId::new(
                "trace id",
                &value,
                "it is 32 hex digits (or a UUID), not all zero",
            )),
        }
    }
}

impl FromStr for TraceId {
    type Err = InvalidId;
    fn from_str(s: &str) -> Result<Self, InvalidId> {
        Self::try_from(s.to_owned())
    }
}

impl From<TraceId> for String {
    fn from(id: TraceId) -> String {
        id.0
    }
}

impl fmt::Display for TraceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The position of a step in its journal, from 1, without gaps.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Seq(u32);

impl Seq {
    /// The first step's.
    pub const FIRST: Self = Self(1);

    /// Wraps a number that the store read.
    pub const fn new(n: u32) -> Self {
        Self(n)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The one `n` positions on.
    pub const fn plus(self, n: u32) -> Self {
        Self(self.0.saturating_add(n))
    }
}

impl fmt::Display for Seq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Counts the owners that an execution has had. A write that carries an older epoch is refused: this is the
/// fencing token that keeps a paused and resumed worker from writing.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(transparent)]
pub struct Epoch(u32);

impl Epoch {
    /// Before anyone owned it.
    pub const NONE: Self = Self(0);

    /// Wraps a number that the store read.
    pub const fn new(n: u32) -> Self {
        Self(n)
    }

    /// The number.
    pub const fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn agent_names_are_lowercase_and_bounded() {
        for good in ["a", "a-b_c9", "9lives", &"x".repeat(63)] {
            assert!(good.parse::<AgentName>().is_ok(), "{good}");
        }
        for bad in [
            "",
            "A",
            "-a",
            "_a",
            "a b",
            "../x",
            "a.b",
            &"x".repeat(64),
            "é",
        ] {
            assert!(bad.parse::<AgentName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn a_uuid_serves_as_trace_id_and_zero_does_not() {
        let id: TraceId = "0af76519-16cd-43dd-8448-eb211c80319c".parse().unwrap();
        assert_eq!(id.as_str(), "0af7651916cd43dd8448eb211c80319c");
        assert!(
            "00000000000000000000000000000000"
                .parse::<TraceId>()
                .is_err()
        );
    }

    #[test]
    fn a_child_started_twice_by_the_same_step_is_one() {
        let parent = ExecutionId::from_uuid(Uuid::from_u128(7));
        assert_eq!(
            ExecutionId::child_of(parent, Seq::new(3)),
            ExecutionId::child_of(parent, Seq::new(3))
        );
        assert_ne!(
            ExecutionId::child_of(parent, Seq::new(3)),
            ExecutionId::child_of(parent, Seq::new(4))
        );
    }
}
