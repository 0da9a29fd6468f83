//! Who does what, in which order: what a coordinator's model or a person proposes, and what of it can be carried out.
//!
//! A [`Draft`] is anybody's word: [`read()`] takes it out of a text, and [`Rules::check`] makes a [`Plan`] of it or says
//! what is wrong, in words for whoever wrote it. A [`Plan`] is sound: every step has somebody to do it, depends on steps
//! that there are, and none waits for itself.

mod check;
mod read;

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::id::{AgentName, PlanStepId};

pub use check::Rules;
pub(crate) use read::json_in;
pub use read::{Draft, DraftStep, Drafted, read};

/// The longest plan that any definition may allow.
pub const MOST_STEPS: u32 = 200;

/// Steps for agents, in the order in which they were thought of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Plan {
    /// At least one.
    pub steps: Vec<PlanStep>,
}

/// A piece of work for one agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct PlanStep {
    /// Its name, unique in its task.
    pub id: PlanStepId,
    /// Who does it.
    pub agent: AgentName,
    /// What is to be done.
    pub instruction: String,
    /// The keys of the shared state that it is given.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inputs: Vec<String>,
    /// The steps whose results it is given, and which it waits for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub depends_on: Vec<PlanStepId>,
}

impl Plan {
    /// The agents that take part, each once.
    pub fn agents(&self) -> BTreeSet<&AgentName> {
        self.steps.iter().map(|step| &step.agent).collect()
    }
}
