//! What a tool of another's server was when it was approved, and what it is now.
//!
//! A server says by itself what its tools do and what they take, and may say something else tomorrow: a tool that was harmless
//! when somebody looked at it becomes one that asks the model for a secret. So what an agent is offered first is what was
//! approved; a tool that changes afterwards is withheld until a person approves it as it is then, also if it changes back.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};

use crate::{AgentName, Time};

/// Tells one definition of a tool from another: SHA-256 over all of it, in hexadecimal.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Fingerprint(String);

impl Fingerprint {
    /// Of a definition; the order in which a server happens to write its fields is no difference.
    pub fn of(definition: &Value) -> Self {
        let hash = Sha256::digest(sorted(definition).to_string().as_bytes());
        Self(hash.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// As it was written down.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// As it is written down.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.get(..12).unwrap_or(&self.0))
    }
}

/// The same with the fields of objects in order. What servers send is bounded in depth by whoever reads it.
fn sorted(value: &Value) -> Value {
    match value {
        Value::Array(items) => Value::Array(items.iter().map(sorted).collect()),
        Value::Object(fields) => {
            let mut names: Vec<&String> = fields.keys().collect();
            names.sort();
            let fields = names
                .into_iter()
                .filter_map(|name| Some((name.clone(), sorted(fields.get(name)?))));
            Value::Object(Map::from_iter(fields))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.clone(),
    }
}

/// A tool of a server, as an agent would be offered it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sight {
    /// Which server: the entry's name and where it leads. An entry that leads elsewhere names another server.
    pub server: String,
    /// The name that the model knows the tool by.
    pub tool: String,
    /// All that the server says of it.
    pub definition: Value,
    /// Of that.
    pub fingerprint: Fingerprint,
}

/// What is known of a tool of a server, for one agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pin {
    /// Whose tool it is.
    pub agent: AgentName,
    /// As [`Sight::server`].
    pub server: String,
    /// As [`Sight::tool`].
    pub tool: String,
    /// What was approved.
    pub approved: Fingerprint,
    /// All that the server said of it then.
    pub definition: Value,
    /// When.
    pub approved_at: Time,
    /// By whom; nobody, when it is what was seen first.
    pub approved_by: Option<String>,
    /// What it became since, which nobody approved.
    pub change: Option<Change>,
}

/// A tool that is not what was approved.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// What it is.
    pub fingerprint: Fingerprint,
    /// All that the server says of it.
    pub definition: Value,
    /// Since when that is known.
    pub seen_at: Time,
}

/// How a tool stands that was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seen {
    /// It was not seen before: what it is now is what is approved.
    First,
    /// It is what was approved.
    Approved,
    /// It is not, and that is news.
    Changed,
    /// It was changed before, and became something else again.
    ChangedAgain,
    /// It was changed before.
    Withheld,
}

impl Seen {
    /// Whether an agent may have it.
    pub const fn is_granted(self) -> bool {
        matches!(self, Self::First | Self::Approved)
    }
}

/// How a tool stands that is seen as this, of which that is known: what was approved, and what it became.
pub fn judge(known: Option<(&Fingerprint, Option<&Fingerprint>)>, seen: &Fingerprint) -> Seen {
    match known {
        None => Seen::First,
        Some((approved, None)) if approved == seen => Seen::Approved,
        Some((_, None)) => Seen::Changed,
        // One that changes back may change again: it stays withheld, and what it was last stays to be looked at.
        Some((approved, Some(change))) if change == seen || approved == seen => Seen::Withheld,
        Some((_, Some(_))) => Seen::ChangedAgain,
    }
}

/// Why a tool is not called, and what to do: for its agent, and for people.
pub fn withheld(agent: &AgentName, tool: &str) -> String {
    format!(
        "the tool {tool:?} is withheld: its server changed what it says or takes, and nobody has approved that; \
         a person can, with `agentrunner agents approve-tools {agent} {tool}`"
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn of(definition: Value) -> Fingerprint {
        Fingerprint::of(&definition)
    }

    #[test]
    fn any_difference_is_one_but_the_order_of_fields() {
        let one = json!({ "name": "pay", "schema": { "a": 1, "b": [1, 2] } });
        assert_eq!(
            of(one.clone()),
            of(serde_json::from_str(r#"{"schema":{"b":[1,2],"a":1},"name":"pay"}"#).unwrap())
        );
        for other in [
            json!({ "name": "pay", "schema": { "a": 1, "b": [2, 1] } }),
            json!({ "name": "pay ", "schema": { "a": 1, "b": [1, 2] } }),
            json!({ "name": "pay", "schema": { "a": "1", "b": [1, 2] } }),
            json!({ "name": "pay", "schema": { "a": 1, "b": [1, 2] }, "more": null }),
        ] {
            assert_ne!(of(one.clone()), of(other));
        }
        assert_eq!(of(one).as_str().len(), 64);
    }

    /// What a store does with what is seen; the stores' own suite says that they do the same.
    #[derive(Default)]
    struct Kept(Option<(Fingerprint, Option<Fingerprint>)>);

    impl Kept {
        fn see(&mut self, seen: &Fingerprint) -> Seen {
            let known = self
                .0
                .as_ref()
                .map(|(approved, change)| (approved, change.as_ref()));
            let stands = judge(known, seen);
            match (stands, &mut self.0) {
                (Seen::First, kept) => *kept = Some((seen.clone(), None)),
                (Seen::Changed | Seen::ChangedAgain, Some((_, change))) => {
                    *change = Some(seen.clone())
                }
                _ => {}
            }
            stands
        }
    }

    proptest! {
        /// Whatever a server says in whatever order: only what was approved is granted, and nothing after the first change.
        #[test]
        fn only_what_was_approved_is_granted_until_the_first_change(said in prop::collection::vec(0u8..4, 1..20)) {
            let mut kept = Kept::default();
            let mut is_changed = false;
            for number in &said {
                let stands = kept.see(&of(json!({ "n": number })));
                is_changed |= number != &said[0];
                prop_assert_eq!(stands.is_granted(), !is_changed);
            }
            let changes = said.windows(2).take_while(|pair| pair[0] == pair[1]).count();
            let news = if changes + 1 < said.len() { 1 } else { 0 };
            let mut kept = Kept::default();
            let told = said.iter().filter(|n| kept.see(&of(json!({ "n": n }))) == Seen::Changed).count();
            prop_assert_eq!(told, news);
        }
    }
}
