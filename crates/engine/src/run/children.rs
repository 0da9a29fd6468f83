//! What agents that work for another one may consume.

use domain::budget::BudgetLimits;
use domain::state::{Call, Progress};
use domain::step::CallTarget;

use super::Run;

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
}
