//! Who may do what: scopes, lists of agents, and the keys that carry them.
//!
//! A route needs one [`Scope`]; a caller has [`Grants`]. A scope allows exactly what is written at it, and none contains
//! another, but for `admin`, which contains all: a key that may only submit can't read what others asked.

pub mod key;

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::AgentName;
pub use key::{ApiKey, KeyHash, KeyId, NotAKey};

/// The longest name of a key, in characters.
pub const MAX_NAME: usize = 100;
/// How many agents a list may name.
pub const MAX_AGENTS: usize = 100;

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scope {
    /// See: agents, tasks, journals, results, streams, schedules, configurations, usage, metrics, the inbox.
    Read,
    /// Give work: tasks, invocations, events, retries and forks. The answer of one's own request is part of it.
    Submit,
    /// Keep it going: cancel, answer for people, settle, schedules, dead letters, reload, what agents remember.
    Operate,
    /// Everything, and keys.
    Admin,
}

impl Scope {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Read, Self::Submit, Self::Operate, Self::Admin];

    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Submit => "submit",
            Self::Operate => "operate",
            Self::Admin => "admin",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Scope {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let known = Self::ALL.into_iter().find(|scope| scope.as_str() == s);
        known.ok_or_else(|| "it is read, submit, operate or admin".to_owned())
    }
}

/// What a caller has been granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grants {
    /// What may be done.
    pub scopes: BTreeSet<Scope>,
    /// With which agents, and with what belongs to them; all when `None`.
    pub agents: Option<BTreeSet<AgentName>>,
}

/// Why grants can't be given.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct BadGrants {
    /// Which part of them.
    pub field: &'static str,
    /// What is wrong with it, and what to do.
    pub message: String,
}

impl Grants {
    /// Everything, with all agents.
    pub fn all() -> Self {
        Self {
            scopes: BTreeSet::from([Scope::Admin]),
            agents: None,
        }
    }

    /// Checks that they make sense together.
    ///
    /// # Errors
    /// They allow nothing; or an administrator is limited to agents, who could make a key without that limit.
    pub fn new(
        scopes: BTreeSet<Scope>,
        agents: Option<BTreeSet<AgentName>>,
    ) -> Result<Self, BadGrants> {
        let bad = |field, message: &str| {
            let message = message.to_owned();
            Err(BadGrants { field, message })
        };
        if scopes.is_empty() {
            return bad(
                "scopes",
                "none is given; say read, submit, operate or admin",
            );
        }
        match &agents {
            Some(agents) if agents.is_empty() => bad(
                "agents",
                "the list is empty, which allows none; leave it out for all agents",
            ),
            Some(agents) if agents.len() > MAX_AGENTS => {
                bad("agents", "a list has at most 100 names")
            }
            Some(_) if scopes.contains(&Scope::Admin) => bad(
                "agents",
                "an administrator can make keys for all agents; leave the list or the scope admin out",
            ),
            _ => Ok(Self { scopes, agents }),
        }
    }

    /// Whether this may be done.
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.contains(&scope) || self.scopes.contains(&Scope::Admin)
    }

    /// Whether it may be done with this agent.
    pub fn covers(&self, agent: &AgentName) -> bool {
        self.agents
            .as_ref()
            .is_none_or(|agents| agents.contains(agent))
    }

    /// Whether it may be done with all agents.
    pub const fn is_unlimited(&self) -> bool {
        self.agents.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agents(names: &[&str]) -> Option<BTreeSet<AgentName>> {
        Some(names.iter().map(|name| name.parse().unwrap()).collect())
    }

    #[test]
    fn a_scope_allows_itself_and_admin_allows_all() {
        for given in Scope::ALL {
            let grants = Grants::new([given].into(), None).unwrap();
            for wanted in Scope::ALL {
                let expected = given == wanted || given == Scope::Admin;
                assert_eq!(grants.allows(wanted), expected, "{given} for {wanted}");
            }
        }
    }

    #[test]
    fn a_list_covers_its_agents_alone() {
        let limited = Grants::new([Scope::Read].into(), agents(&["a"])).unwrap();
        assert!(limited.covers(&"a".parse().unwrap()));
        assert!(!limited.covers(&"ab".parse().unwrap()));
        assert!(!limited.is_unlimited());
        assert!(Grants::all().covers(&"ab".parse().unwrap()));
    }

    #[test]
    fn grants_that_make_no_sense_are_refused() {
        let field = |scopes: &[Scope], agents| {
            let scopes = scopes.iter().copied().collect();
            Grants::new(scopes, agents).unwrap_err().field
        };
        assert_eq!(field(&[], None), "scopes");
        assert_eq!(field(&[Scope::Read], agents(&[])), "agents");
        assert_eq!(
            field(&[Scope::Read, Scope::Admin], agents(&["a"])),
            "agents"
        );
    }
}
