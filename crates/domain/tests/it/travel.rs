//! What begins where another one was.

use agentrunner_domain::budget::BudgetLimits;
use agentrunner_domain::definition::Effect;
use agentrunner_domain::execution::Totals;
use agentrunner_domain::state::Turn;
use agentrunner_domain::step::CallTarget;
use agentrunner_domain::{CallRef, Message, State, StepBody};
use proptest::prelude::*;
use serde_json::json;

use crate::simulation::{Walk, definition};

fn lots() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..400)
}

fn walk(lots: Vec<u8>) -> Walk {
    let mut walk = Walk::new(definition(json!({})), BudgetLimits::default(), lots);
    walk.go_to_the_end();
    walk
}

/// The calls that the first steps ask for, with whether they may have an effect that nothing guards.
fn calls(walk: &Walk, steps: usize) -> Vec<(CallRef, bool)> {
    let mut calls = Vec::new();
    for step in walk.journal.iter().take(steps) {
        let StepBody::ModelCall(call) = &step.body else {
            continue;
        };
        for (index, target) in (0u16..).zip(&call.targets) {
            let turn = step.seq;
            let is_unsafe = matches!(
                target,
                CallTarget::Tool {
                    effect: Effect::Unsafe,
                    ..
                }
            );
            calls.push((CallRef { turn, index }, is_unsafe));
        }
    }
    calls
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// A retry goes on where the other one ended: an unsafe call is made once in both together, and once more for every
    /// time that a person said so.
    #[test]
    fn a_retry_never_makes_an_unsafe_call_again(one in lots(), other in lots()) {
        let first = walk(one);
        let shared = first.journal.len() - 1;
        let mut second = first.branch(shared, None, other);
        second.go_to_the_end();
        for (call, is_unsafe) in calls(&first, shared) {
            let count = |made: &std::collections::BTreeMap<CallRef, u32>| made.get(&call).copied().unwrap_or(0);
            let made = count(&first.made) + count(&second.made);
            let allowed = 1 + count(&first.repeats_allowed) + count(&second.repeats_allowed);
            prop_assert!(!is_unsafe || made <= allowed, "{call}: {made} > {allowed}");
        }
        let replayed = State::replay(&second.execution, &second.journal).unwrap();
        prop_assert_eq!(replayed, second.state);
    }

    /// A fork begins between two turns: nothing that the other one asked for is done by it.
    #[test]
    fn a_fork_makes_no_call_of_the_other_one(one in lots(), other in lots(), at in any::<prop::sample::Index>()) {
        let first = walk(one);
        let mut cut = at.index(first.journal.len());
        while cut > 0 && matches!(first.states[cut - 1].turn, Turn::Tools(_) | Turn::Done(_)) {
            cut -= 1;
        }
        let mut second = first.branch(cut, Some("and now?"), other);
        prop_assert_eq!(second.state.totals, Totals::default());
        prop_assert!(matches!(second.state.turn, Turn::Model(_)));
        let told = Some(&Message::User { text: "and now?".to_owned() });
        prop_assert_eq!(second.state.transcript.last(), told);
        second.go_to_the_end();
        for (call, _) in calls(&first, cut) {
            prop_assert!(!second.made.contains_key(&call));
        }
    }
}

#[test]
fn what_the_other_one_consumed_is_not_counted_again() {
    let mut first = Walk::new(definition(json!({})), BudgetLimits::default(), Vec::new());
    first.ask_for(&[("read", Effect::ReadOnly)]);
    assert_eq!(
        (
            first.state.totals.model_calls,
            first.state.totals.tool_calls
        ),
        (1, 1)
    );
    let second = first.branch(first.journal.len(), None, Vec::new());
    assert_eq!(second.state.totals, Totals::default());
}
