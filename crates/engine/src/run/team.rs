//! A coordinator's side of a run: who may take part, and what each agent of its team is given to do.

use std::collections::BTreeSet;

use domain::decide::wants_team;
use domain::execution::TEAM;
use domain::step::{CallTarget, StepBody};
use domain::{CallRef, Member, Planning};
use serde_json::{Value, json};

use super::{Run, Stop};

impl Run {
    /// The agents that take work, when the decision depends on them.
    pub(super) fn colleagues(&self) -> Vec<Member> {
        if !wants_team(&self.execution, &self.state) {
            return Vec::new();
        }
        let agents = self.core.agents.all().into_iter();
        let working = agents.filter(crate::Agent::takes_work);
        let member = |agent: crate::Agent| Member {
            agent: agent.definition.name.clone(),
            description: agent.definition.description.clone(),
        };
        working.map(member).collect()
    }

    /// What the execution under a call is given to do, and the notes that go with it.
    pub(super) fn task_of(&self, call: CallRef) -> (Value, Value) {
        let team = self.state.team.as_ref();
        if let Some((team, part)) = team.and_then(|team| Some((team, team.part(call)?))) {
            let brief = team.brief(part, &self.execution.prompt(), &self.shared);
            let notes = json!({ TEAM: self.execution.id, "step": part.step.id });
            return (json!({ "prompt": brief }), notes);
        }
        let wish = self
            .state
            .calls()
            .iter()
            .find(|wish| wish.call == call && matches!(wish.target, CallTarget::Agent { .. }));
        let input = wish.and_then(|wish| serde_json::from_str(&wish.wish.arguments).ok());
        let notes = match self.execution.team() {
            Some(team) => json!({ TEAM: team }),
            None => Value::Null,
        };
        (input.unwrap_or_default(), notes)
    }

    /// Reads what of the shared state the steps are given that are about to begin. Their tasks are written down with
    /// their beginning, so it does not matter that a later reading might find something else.
    pub(super) async fn load_shared(&mut self, bodies: &[StepBody]) -> Result<(), Stop> {
        let Some(team) = &self.state.team else {
            return Ok(());
        };
        let wanted = bodies.iter().filter_map(|body| match body {
            StepBody::ChildStarted { call, .. } => team.part(*call),
            _ => None,
        });
        let keys: BTreeSet<String> = wanted.flat_map(|part| part.step.inputs.clone()).collect();
        if keys.is_empty() {
            return Ok(());
        }
        let keys: Vec<String> = keys.into_iter().collect();
        let values = self
            .core
            .ports
            .store
            .shared(self.execution.id, &keys)
            .await?;
        self.shared = values.into_iter().map(|v| (v.key, v.value)).collect();
        Ok(())
    }

    /// A step of the plan that nobody can begin.
    pub(super) fn not_started(&mut self, call: CallRef, why: String) -> Result<(), Stop> {
        let planning = Planning::NotStarted { call, why };
        self.record(StepBody::Plan(Box::new(planning)))
    }

    /// What the team waits for, if it is the team that waits and not the coordinator's own model.
    pub(super) fn team_waits_for(&self) -> Option<String> {
        let team = self.state.team.as_ref()?;
        let waits = team.open_request().is_some() || team.running().next().is_some();
        waits.then(|| format!("waits for {}", team.waits_for()))
    }
}
