//! What is kept under the name of a conversation, or of an agent.

use domain::{AgentName, ConversationId, ExecutionId, Time};
use serde_json::Value;
use store::{AgentState, Change, StateChange, StateChanged};

use super::Tables;

impl Tables {
    pub(crate) fn agent_state(
        &self,
        agent: AgentName,
        conversation: Option<ConversationId>,
        messages: usize,
    ) -> Option<AgentState> {
        let name = (agent.clone(), conversation.clone());
        let turn = self.turn(&name);
        let mut state = self.states.get(&name).cloned()?;
        if let Some(conversation) = conversation {
            state.messages = self.conversation(agent, conversation, messages);
        }
        state.turn = turn;
        Some(state)
    }

    fn turn(
        &self,
        (agent, conversation): &(AgentName, Option<ConversationId>),
    ) -> Option<ExecutionId> {
        let name = (agent.clone(), conversation.clone()?);
        self.lines.get(&name)?.first().copied()
    }

    /// The state is there from the moment that the first execution of its conversation is accepted.
    pub(super) fn touch(
        &mut self,
        name: (AgentName, Option<ConversationId>),
        now: Time,
    ) -> &mut AgentState {
        let state = self.states.entry(name).or_insert(AgentState {
            state_data: Value::Null,
            metadata: Value::Null,
            messages: Vec::new(),
            version: 0,
            created_at: now,
            updated_at: now,
            turn: None,
        });
        state.updated_at = state.updated_at.max(now);
        state
    }

    pub(super) fn count_change(&mut self, id: ExecutionId, now: Time) {
        let execution = &self.row(id).execution;
        let name = (execution.agent.clone(), execution.conversation.clone());
        self.touch(name, now).version += 1;
    }

    pub(crate) fn change_state(&mut self, given: StateChange) -> StateChanged {
        let name = (given.agent, given.conversation);
        let version = self.states.get(&name).map_or(0, |state| state.version);
        if given.expected.is_some_and(|expected| expected != version) {
            return StateChanged::Conflict { version };
        }
        let keeps_messages = matches!(given.change, Change::Write { messages: None, .. });
        if let Some(turn) = self.turn(&name).filter(|_| !keeps_messages) {
            return StateChanged::Busy(turn);
        }
        let said = name.1.clone().map(|conversation| {
            let key = (name.0.clone(), conversation);
            self.conversations.entry(key).or_default()
        });
        match given.change {
            Change::Remove => {
                if let Some(said) = said {
                    said.clear();
                }
                self.states.remove(&name);
                return StateChanged::Done { version: 0 };
            }
            Change::Append { messages, keep } => {
                if let Some(said) = said {
                    said.extend(messages.clone());
                    let too_many = keep.map_or(0, |keep| said.len().saturating_sub(keep as usize));
                    said.drain(..too_many);
                }
                self.touch(name, given.now).version += 1;
            }
            Change::Write {
                state_data,
                metadata,
                messages,
            } => {
                if let (Some(said), Some(messages)) = (said, messages) {
                    *said = messages;
                }
                let state = self.touch(name, given.now);
                state.version += 1;
                state.state_data = state_data.unwrap_or(state.state_data.take());
                state.metadata = metadata.unwrap_or(state.metadata.take());
            }
        }
        StateChanged::Done {
            version: version + 1,
        }
    }
}
