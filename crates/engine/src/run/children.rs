//! What agents that work for another one may consume, and what they did.

use domain::budget::BudgetLimits;
use domain::execution::Totals;
use domain::state::{Call, Progress};
use domain::step::{CallTarget, StepBody};
use domain::{ExecutionId, Step};

use super::{Run, Stop};

/// How many steps are read at once.
const PAGE: usize = 500;

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

    /// What a child that is over has consumed, with all that worked for it.
    pub(super) async fn spent_by(&self, child: ExecutionId) -> Result<Totals, Stop> {
        let store = &self.core.ports.store;
        let Some(row) = store.execution(child).await? else {
            return Ok(Totals::default());
        };
        let mut spent = row.totals;
        // To start an agent is to call a tool: without calls there is nobody to ask about.
        if spent.tool_calls == 0 {
            return Ok(spent);
        }
        let mut after = None;
        loop {
            let steps: Vec<Step> = match store.steps(child, after, PAGE).await {
                Ok(steps) => steps,
                // What can't be read can't be counted; the child has ended because of it.
                Err(error) if error.class() == store::Class::Corrupt => return Ok(spent),
                Err(error) => return Err(error.into()),
            };
            after = steps.last().map(|step| step.seq);
            for step in &steps {
                if let StepBody::ChildFinished { spent: below, .. } = &step.body {
                    spent += *below;
                }
            }
            if steps.len() < PAGE {
                return Ok(spent);
            }
        }
    }
}
