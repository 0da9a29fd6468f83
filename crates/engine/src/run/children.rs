//! Agents that work for another one: how they begin, what they may consume, who is told.

use domain::budget::BudgetLimits;
use domain::execution::Parent;
use domain::state::{Call, Progress};
use domain::step::{CallRef, CallTarget, StepBody};
use domain::{AgentName, Execution, ExecutionId, Seq, Step, ToolOutcome};
use store::{Submission, WhenBusy};

use super::{Run, Stop};
use crate::task::submitted_event;

impl Run {
    /// What is left of the budget, in equal parts for all that work at once: together they can't pass it.
    pub(super) fn budget_of_child(&self) -> BudgetLimits {
        let open: Vec<&Call> = self
            .state
            .calls()
            .iter()
            .filter(|call| matches!(call.target, CallTarget::Agent { .. }) && !call.is_settled())
            .collect();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let is_begun = |call: &&&Call| matches!(call.progress, Progress::Delegated { .. });
        let mut used = self.state.spent();
        // To begin one is a call itself, also for those whose turn to begin is yet to come.
        let begun = open.iter().filter(is_begun).count();
        used.tool_calls = used.tool_calls.saturating_add(count(open.len() - begun));
        domain::decide::limits(&self.definition, &self.execution)
            .remaining(&used)
            .part_of(count(open.len()))
    }

    /// The submission of an agent that is to work for this one.
    ///
    /// # Errors
    /// The message for the model: there is none that takes work.
    pub(super) fn child(
        &self,
        (call, id): (CallRef, ExecutionId),
        name: &AgentName,
        budget: Option<BudgetLimits>,
        seq: Seq,
    ) -> Result<Submission, String> {
        let agent = self.core.agents.get(name).filter(crate::Agent::takes_work);
        let agent = agent.ok_or_else(|| format!("there is no agent {name} that takes work"))?;
        let now = self.core.now();
        let budget = budget.unwrap_or_else(|| self.budget_of_child());
        let (input, metadata) = self.task_of(call);
        let parent = Parent {
            id: self.execution.id,
            seq,
            depth: self.execution.depth() + 1,
            deepest: self.execution.deepest(self.definition.max_delegation_depth),
        };
        let execution = Execution {
            id,
            agent: name.clone(),
            version: agent.version,
            mode: agent.definition.execution_mode,
            input,
            history: Vec::new(),
            conversation: None,
            priority: self.execution.priority,
            created_at: now,
            deadline: (now + std::time::Duration::from_secs(agent.definition.longest_seconds()))
                .min(self.execution.deadline),
            budget,
            trace_id: self.execution.trace_id.clone(),
            upstream: self.execution.upstream.map(|above| above.below(&parent)),
            parent: Some(parent),
            origin: None,
            event_id: None,
            hops: self.execution.hops,
            restored: self.execution.restored,
            callback_url: None,
            metadata,
        };
        let events = submitted_event(&execution).into_iter().collect();
        Ok(Submission {
            execution,
            idempotency: None,
            events,
            when_busy: WhenBusy::default(),
        })
    }

    /// Settles the call that can't begin.
    pub(super) fn refuse_child(&mut self, step: &Step, message: String) -> Result<(), Stop> {
        let StepBody::ChildStarted { call, .. } = &step.body else {
            return Ok(());
        };
        if self.state.team.is_some() {
            return self.not_started(*call, message);
        }
        let outcome = ToolOutcome::Refused { message };
        self.record(StepBody::ToolResult(domain::step::ToolResult {
            call: *call,
            outcome,
            took_ms: 0,
        }))
    }

    /// Parent and children are woken by the store; those in this process need not wait for their leases' renewal.
    pub(super) fn tell_relatives(&self) {
        if let Some(parent) = self.execution.parent {
            self.core.leases.tell_news(parent.id);
        }
        for child in &self.delegated {
            self.core.leases.tell_news(*child);
        }
    }
}
