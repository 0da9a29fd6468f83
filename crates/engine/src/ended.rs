//! What the world is told when an execution ends. Kept apart from the run: an execution that can't be performed ends
//! too, and whoever subscribes must hear of that as well.

use domain::event::topics;
use domain::team::Contribution;
use domain::{
    AgentName, Event, Execution, ExecutionId, ExecutionMode, Outcome, Team, Time, Topic, TraceId,
    Upstream,
};
use serde_json::{Value, json};

/// Whose end it is, as far as events tell.
pub(crate) struct Subject {
    pub(crate) id: ExecutionId,
    pub(crate) agent: AgentName,
    pub(crate) trace_id: TraceId,
    pub(crate) upstream: Option<Upstream>,
    hops: u8,
    pub(crate) mode: ExecutionMode,
    pub(crate) created_at: Time,
    /// Who did what for it, when it is a coordinator's.
    contributions: Vec<Contribution>,
}

impl Subject {
    pub(crate) fn new(execution: &Execution) -> Self {
        Self {
            id: execution.id,
            agent: execution.agent.clone(),
            trace_id: execution.trace_id.clone(),
            upstream: execution.upstream,
            hops: execution.hops,
            mode: execution.mode,
            created_at: execution.created_at,
            contributions: Vec::new(),
        }
    }

    /// The same, with what is known of its team.
    pub(crate) fn with_team(mut self, team: Option<&Team>) -> Self {
        self.contributions = team
            .map(|team| team.contributions.clone())
            .unwrap_or_default();
        self
    }

    /// The events that go out with the end: that it ended, and what the agent said.
    pub(crate) fn events(&self, outcome: &Outcome, now: Time) -> Vec<Event> {
        let status = outcome.status();
        let (topic, output) = match outcome {
            Outcome::Completed { output, .. } => (topics::EXECUTION_COMPLETED, Some(output)),
            Outcome::Failed(_) | Outcome::Timeout { .. } | Outcome::Cancelled { .. } => {
                (topics::EXECUTION_FAILED, None)
            }
        };
        let data = json!({
            "execution_id": self.id,
            "agent_name": self.agent,
            "status": status,
            "output": output,
            "reason": outcome.reason(),
        });
        let event = |id: String, topic: Topic| {
            Some(Event {
                id: id.parse().ok()?,
                topic,
                source: format!("agentrunner/{}", self.agent),
                time: now,
                trace_id: self.trace_id.clone(),
                hops: self.hops.saturating_add(1),
                data: data.clone(),
            })
        };
        let ended = topic
            .parse()
            .ok()
            .and_then(|topic| event(format!("ended-{}", self.id), topic));
        let spoken = output
            .and_then(|_| topics::output(&self.agent))
            .and_then(|topic| event(format!("output-{}", self.id), topic));
        let together = self.collaboration(&data, now);
        ended.into_iter().chain(spoken).chain(together).collect()
    }

    /// What is told to whoever waits for one collaborative task: its end, and who did what at which cost.
    fn collaboration(&self, ended: &Value, now: Time) -> Option<Event> {
        if self.mode != ExecutionMode::Collaborative {
            return None;
        }
        let mut data = ended.clone();
        if let Value::Object(fields) = &mut data {
            let id = fields.get("execution_id").cloned().unwrap_or_default();
            fields.insert("task_id".to_owned(), id);
            let done = serde_json::to_value(&self.contributions).unwrap_or_default();
            fields.insert("contributions".to_owned(), done);
        }
        Some(Event {
            id: format!("collaboration-{}", self.id).parse().ok()?,
            topic: topics::collaboration_completed(self.id)?,
            source: format!("agentrunner/{}", self.agent),
            time: now,
            trace_id: self.trace_id.clone(),
            hops: self.hops.saturating_add(1),
            data,
        })
    }
}
