//! What a model is asked with. It follows from what it is asked for.

use std::borrow::Cow;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::definition::{Definition, LlmConfig};
use crate::message::Message;
use crate::pruning::{self, Fit};
use crate::quantity::Tokens;
use crate::state::State;
use crate::team;

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
    /// A coordinator's plan.
    Plan,
    /// What a coordinator thinks of its agents' results.
    Review,
    /// Which of several answers to the same holds.
    Judge,
    /// A coordinator's answer, made of its agents' results.
    Conclude,
}

impl Purpose {
    /// Whether it is an agent's ordinary turn, which journals leave unsaid.
    pub const fn is_turn(&self) -> bool {
        matches!(self, Self::Turn)
    }

    /// Whether the answer is for whoever gave the task, and not for the program.
    pub const fn is_said(&self) -> bool {
        matches!(self, Self::Turn | Self::Conclude)
    }

    /// The model that is asked.
    pub fn model(self, definition: &Definition) -> &LlmConfig {
        let config = definition.collaborative_config.as_ref();
        let planner = config.and_then(|config| config.planning_agent.as_ref());
        match self {
            Self::Plan => planner.unwrap_or(&definition.llm_config),
            Self::Turn | Self::Summary { .. } | Self::Review | Self::Judge | Self::Conclude => {
                &definition.llm_config
            }
        }
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
    pub output_schema: Option<Cow<'a, Value>>,
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
        match (purpose, &state.team) {
            (Purpose::Plan | Purpose::Review | Purpose::Judge | Purpose::Conclude, Some(team)) => {
                team::prompt(definition, state, team, purpose, fit)
            }
            (
                Purpose::Turn
                | Purpose::Plan
                | Purpose::Review
                | Purpose::Judge
                | Purpose::Conclude,
                _,
            ) => Self {
                system: definition.full_prompt(),
                messages: pruning::window(&state.transcript, state.own, fit),
                output_schema: definition.output_schema.as_ref().map(Cow::Borrowed),
                may_call: true,
            },
            (Purpose::Summary { covers }, _) => {
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
