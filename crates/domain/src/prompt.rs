//! What a model is asked with. It follows from what it is asked for.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::definition::Definition;
use crate::message::Message;
use crate::state::State;

/// What a model is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The next thing that the agent says or does.
    #[default]
    Turn,
}

impl Purpose {
    /// Whether it is an agent's ordinary turn, which journals leave unsaid.
    pub const fn is_turn(&self) -> bool {
        matches!(self, Self::Turn)
    }
}

/// Everything that a model is told, without the choice of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct Prompt<'a> {
    /// Who it is.
    pub system: Cow<'a, str>,
    /// What was said so far, oldest first.
    pub messages: Cow<'a, [Message]>,
    /// The JSON Schema that the answer must meet.
    pub output_schema: Option<&'a Value>,
    /// Whether it may call the agent's tools.
    pub may_call: bool,
}

impl<'a> Prompt<'a> {
    /// What to ask with, for that purpose.
    pub fn new(definition: &'a Definition, state: &'a State, purpose: Purpose) -> Self {
        match purpose {
            Purpose::Turn => Self {
                system: definition.full_prompt(),
                messages: Cow::Borrowed(&state.transcript),
                output_schema: definition.output_schema.as_ref(),
                may_call: true,
            },
        }
    }
}
