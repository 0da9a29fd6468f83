//! What a model is asked with. It follows from what it is asked for.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::definition::Definition;
use crate::message::Message;
use crate::pruning::{self, Fit};
use crate::quantity::Tokens;
use crate::state::State;

/// What a model is asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// The next thing that the agent says or does.
    #[default]
    Turn,
    /// A text that takes the place of the oldest messages.
    Summary {
        /// How many.
        covers: u32,
    },
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
    /// About how many tokens it has, at most.
    pub fn estimate(&self) -> Tokens {
        let messages: usize = self.messages.iter().map(Message::bytes).sum();
        Tokens::estimate(self.system.len() + messages)
    }

    /// What to ask with, for that purpose and within these bounds.
    pub fn new(definition: &'a Definition, state: &'a State, purpose: Purpose, fit: Fit) -> Self {
        match purpose {
            Purpose::Turn => Self {
                system: definition.full_prompt(),
                messages: pruning::window(&state.transcript, state.own, fit),
                output_schema: definition.output_schema.as_ref(),
                may_call: true,
            },
            Purpose::Summary { covers } => {
                let covered = state.transcript.get(..covers as usize).unwrap_or_default();
                Self {
                    system: Cow::Borrowed(pruning::SUMMARISER),
                    messages: Cow::Owned(vec![Message::User {
                        text: pruning::as_text(covered, fit),
                    }]),
                    output_schema: None,
                    may_call: false,
                }
            }
        }
    }
}
