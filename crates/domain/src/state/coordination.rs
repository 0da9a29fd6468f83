//! What a coordinator's journal tells of its plan and its model.

use super::{ModelTurn, State, Turn};
use crate::id::Seq;
use crate::message::{Message, Reply};
use crate::prompt::Purpose;
use crate::step::ModelCall;
use crate::team::{Planning, Team};

impl State {
    /// Takes what happened to the plan.
    pub(super) fn planned(&mut self, seq: Seq, planning: &Planning) -> Result<(), String> {
        let Turn::Model(_) = self.turn else {
            return Err("there is nothing to plan now".to_owned());
        };
        match (planning, &mut self.team) {
            (Planning::Team { members, terms }, None) if self.totals.model_calls == 0 => {
                self.team = Some(Box::new(Team::new(members.clone(), terms.clone())));
                Ok(())
            }
            (_, Some(team)) => team.apply(seq, planning),
            (_, None) => Err("there is no team".to_owned()),
        }
    }

    /// A coordinator's model has answered.
    pub(super) fn coordinated(&mut self, call: &ModelCall) -> Result<(), String> {
        let Some(team) = &mut self.team else {
            return Err("there is no team".to_owned());
        };
        if call.purpose != Purpose::Conclude {
            team.heard(call.purpose, &call.reply)?;
            self.consumed(call);
            self.turn = Turn::Model(ModelTurn::default());
            return Ok(());
        }
        self.consumed(call);
        self.transcript.push(Message::Assistant(Reply {
            tool_calls: Vec::new(),
            ..call.reply.clone()
        }));
        self.turn = Turn::Answered {
            output: call.reply.text.clone(),
            structured: call.structured.clone(),
            stop: call.reply.stop,
            violations: call.violations.clone(),
        };
        Ok(())
    }
}
