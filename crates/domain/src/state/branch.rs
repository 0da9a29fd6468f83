//! Where a journal goes from another execution's steps to its own.

use super::{Call, ModelTurn, Progress, State, Turn};
use crate::execution::{Seam, Totals};
use crate::message::Message;
use crate::step::{Question, ToolOutcome};

impl State {
    /// Where the journal stops being another's. What that one consumed is not this one's; what it had asked people is
    /// asked again, and what it had given to other agents is theirs to tell.
    pub(super) fn branch_off(&mut self, after: u32) {
        let here = |seam: &&Seam| seam.after == after;
        let told: Vec<Option<String>> = self
            .seams
            .iter()
            .filter(here)
            .map(|seam| seam.message.clone())
            .collect();
        for message in told {
            self.go_on_as_another(message);
            self.close_turn();
        }
    }

    fn go_on_as_another(&mut self, told: Option<String>) {
        self.totals = Totals::default();
        self.delegated = Totals::default();
        self.summaries = 0;
        self.repairs = 0;
        if let Turn::Tools(calls) = &mut self.turn {
            calls.iter_mut().for_each(leave_behind);
        }
        if let Turn::Model(turn) = &mut self.turn {
            *turn = ModelTurn::default();
        }
        let is_between_turns = matches!(self.turn, Turn::Model(_) | Turn::Answered { .. });
        if is_between_turns && let Some(text) = told {
            self.transcript.push(Message::User { text });
            self.turn = Turn::Model(ModelTurn::default());
        }
    }
}

/// What becomes of a call where an execution branches off: an answer to the other one's question, and the end of its
/// child, will never come here.
fn leave_behind(call: &mut Call) {
    call.progress = match std::mem::replace(&mut call.progress, Progress::Proposed) {
        Progress::Asked {
            question: Question::UnknownOutcome { key, known, .. },
            ..
        } => Progress::Unknown {
            key,
            times: 1,
            known,
        },
        Progress::Asked { .. } => Progress::Proposed,
        Progress::Delegated { child, agent } => Progress::Settled(ToolOutcome::Unknown {
            message: format!(
                "agent {agent} was not waited for; what it did is in execution {child}"
            ),
        }),
        other => other,
    };
}
