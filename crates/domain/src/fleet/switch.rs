//! What a person said of an agent, over its file.

use crate::{AgentName, Time};

/// What a person said of an agent: that it is to take no work, and how often it was restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Switch {
    /// Of which.
    pub agent: AgentName,
    /// Who disabled it, and when; it takes work, if its file says so, when `None`.
    pub off: Option<SwitchedOff>,
    /// How often it was restarted.
    pub restarts: u64,
}

/// By whom an agent was disabled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SwitchedOff {
    /// The name of the caller.
    pub by: String,
    /// When.
    pub at: Time,
}
