//! What must hold in every walk. The ids are those of the invariants in `docs/architecture.md`.

use agentrunner_domain::budget::BudgetLimits;
use agentrunner_domain::decide::{Cancel, Facts};
use agentrunner_domain::definition::Effect;
use agentrunner_domain::execution::FailureCode;
use agentrunner_domain::step::CallTarget;
use agentrunner_domain::{
    Action, Epoch, Outcome, Seq, State, Step, StepBody, Tokens, ToolOutcome, decide,
};
use proptest::prelude::*;
use serde_json::json;

use crate::simulation::{Walk, definition, execution, start};

fn lots() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..400)
}

fn walk(lots: Vec<u8>) -> Walk {
    let mut walk = Walk::new(definition(json!({})), BudgetLimits::default(), lots);
    walk.go_to_the_end();
    walk
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    /// I8: replaying any prefix of a journal gives the state that was reached, also after a trip through JSON.
    #[test]
    fn i8_replay_gives_the_state_that_was_reached(lots in lots()) {
        let walk = walk(lots);
        let text = serde_json::to_string(&walk.journal).unwrap();
        let journal: Vec<Step> = serde_json::from_str(&text).unwrap();
        for (length, reached) in (1..).zip(&walk.states) {
            let replayed = State::replay(&walk.execution, journal.iter().take(length)).unwrap();
            prop_assert_eq!(&replayed, reached);
        }
    }

    /// I1, R6: a call without a known effect is made at most once, and once more for every time that a person said so.
    #[test]
    fn i1_an_unsafe_call_is_never_silently_doubled(lots in lots()) {
        let walk = walk(lots);
        for step in &walk.journal {
            let StepBody::ModelCall(call) = &step.body else { continue };
            for (index, target) in (0u16..).zip(&call.targets) {
                let call = agentrunner_domain::CallRef { turn: step.seq, index };
                let made = walk.made.get(&call).copied().unwrap_or(0);
                let allowed = 1 + walk.repeats_allowed.get(&call).copied().unwrap_or(0);
                match target {
                    CallTarget::Tool { effect: Effect::Unsafe, .. } => prop_assert!(made <= allowed, "{made} > {allowed}"),
                    CallTarget::Tool { .. } => {}
                    CallTarget::Agent { .. } | CallTarget::Person | CallTarget::Refused { .. } => prop_assert_eq!(made, 0),
                }
            }
        }
    }

    /// R18: of work that came back from a backup, an unsafe call is made only as often as a person said so, and it is made
    /// when he did.
    #[test]
    fn r18_restored_work_makes_no_unsafe_call_without_a_persons_word(lots in lots()) {
        let mut walk = Walk::new(definition(json!({})), BudgetLimits::default(), lots);
        walk.execution.restored = Some(start());
        walk.go_to_the_end();
        for step in &walk.journal {
            let StepBody::ModelCall(call) = &step.body else { continue };
            for (index, target) in (0u16..).zip(&call.targets) {
                let call = agentrunner_domain::CallRef { turn: step.seq, index };
                let made = walk.made.get(&call).copied().unwrap_or(0);
                let allowed = walk.repeats_allowed.get(&call).copied().unwrap_or(0);
                if matches!(target, CallTarget::Tool { effect: Effect::Unsafe, .. }) {
                    prop_assert!(made <= allowed, "{made} > {allowed}");
                }
            }
        }
        prop_assert!(walk.is_over());
    }

    /// S16: a call that needs a person's word is made only with it.
    #[test]
    fn s16_what_needs_approval_waits_for_it(lots in lots()) {
        let walk = walk(lots);
        for step in &walk.journal {
            let StepBody::ModelCall(call) = &step.body else { continue };
            for (index, target) in (0u16..).zip(&call.targets) {
                let call = agentrunner_domain::CallRef { turn: step.seq, index };
                if matches!(target, CallTarget::Tool { approval: true, .. }) && walk.made.contains_key(&call) {
                    prop_assert!(walk.approved.contains(&call));
                }
            }
        }
    }

    /// I7: after a cancellation nothing new is begun.
    #[test]
    fn i7_cancel_is_final(lots in lots()) {
        let walk = walk(lots);
        prop_assert_eq!(walk.begun_after_cancel, 0);
        prop_assert!(walk.is_over());
    }

    /// I3, R3: every walk ends, by exactly one last step, and nothing can follow it.
    #[test]
    fn i3_there_is_one_end(lots in lots()) {
        let mut walk = walk(lots);
        let ends = walk.journal.iter().filter(|step| matches!(step.body, StepBody::Finished { .. })).count();
        prop_assert_eq!(ends, 1);
        let before = walk.state.clone();
        for step in walk.journal.clone() {
            let step = Step { seq: walk.state.next_seq, ..step };
            prop_assert!(walk.state.apply(&step).is_err());
        }
        prop_assert_eq!(walk.state, before);
    }

    /// I6: a limit on tool calls is never passed.
    #[test]
    fn i6_the_budget_of_tool_calls_holds(lots in lots(), limit in 0u32..6) {
        let budget = BudgetLimits { max_tool_calls: Some(limit), ..BudgetLimits::default() };
        let mut walk = Walk::new(definition(json!({})), budget, lots);
        walk.go_to_the_end();
        // A call repeated on a person's word was reserved when it was begun first.
        let repeated: u32 = walk.repeats_allowed.values().sum();
        let approved = u32::try_from(walk.approved.len()).unwrap();
        prop_assert!(walk.state.totals.tool_calls <= limit + repeated + approved);
    }

    /// A step that cannot follow changes nothing.
    #[test]
    fn an_illegal_step_changes_nothing(one in lots(), other in lots(), at in any::<prop::sample::Index>(), from in any::<prop::sample::Index>()) {
        let (one, other) = (walk(one), walk(other));
        let mut state = one.states[at.index(one.states.len())].clone();
        let mut step = other.journal[from.index(other.journal.len())].clone();
        step.seq = state.next_seq;
        let before = state.clone();
        if state.apply(&step).is_err() {
            prop_assert_eq!(state, before);
        } else {
            prop_assert_eq!(state.next_seq, Seq::new(before.next_seq.get() + 1));
        }
    }
}

#[test]
fn a_gap_or_a_repetition_in_the_journal_is_refused() {
    let walk = walk((0..200u8).collect());
    let mut state = State::new(&walk.execution);
    let (first, second) = (&walk.journal[0], &walk.journal[1]);
    assert!(state.apply(second).is_err(), "a gap");
    state.apply(first).unwrap();
    let again = Step {
        body: StepBody::Note {
            text: String::new(),
        },
        ..first.clone()
    };
    assert!(state.apply(&again).is_err(), "a repetition");
}

fn facts() -> Facts {
    Facts {
        now: start(),
        epoch: Epoch::new(1),
        cancel: None,
        in_flight: Default::default(),
        spent_today: Default::default(),
        context_window: None,
        agents: Vec::new(),
    }
}

fn only_outcome(action: Action) -> Outcome {
    match action {
        Action::Record(mut bodies) => match bodies.pop() {
            Some(StepBody::Finished { outcome }) => outcome,
            other => panic!("{other:?}"),
        },
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_cancelled_execution_ends_and_names_who() {
    let facts = Facts {
        cancel: Some(Cancel {
            by: "ops".into(),
            reason: "wrong task".into(),
        }),
        ..facts()
    };
    let outcome = only_outcome(decide(
        &definition(json!({})),
        &execution(),
        &State::new(&execution()),
        &facts,
    ));
    assert_eq!(outcome.reason(), "cancelled by ops: wrong task");
}

#[test]
fn a_deadline_ends_it_and_says_what_it_was_at() {
    let facts = Facts {
        now: execution().deadline,
        ..facts()
    };
    let outcome = only_outcome(decide(
        &definition(json!({})),
        &execution(),
        &State::new(&execution()),
        &facts,
    ));
    assert!(
        matches!(&outcome, Outcome::Timeout { message } if message.contains("the model's turn")),
        "{outcome:?}"
    );
}

#[test]
fn a_budget_without_room_ends_it_before_the_call() {
    let definition = definition(json!({ "budget": { "max_tokens": 5 } }));
    let outcome = only_outcome(decide(
        &definition,
        &execution(),
        &State::new(&execution()),
        &facts(),
    ));
    assert!(
        matches!(&outcome, Outcome::Failed(f) if f.code == FailureCode::BudgetExceeded),
        "{outcome:?}"
    );
}

#[test]
fn the_answers_length_is_bounded_by_what_the_budget_leaves() {
    let definition = definition(json!({ "budget": { "max_tokens": 100 } }));
    match decide(
        &definition,
        &execution(),
        &State::new(&execution()),
        &facts(),
    ) {
        Action::CallModel(run) => {
            let Some(Tokens(room)) = run.max_tokens else {
                panic!("no bound");
            };
            assert!(room > 0 && room < 100, "{room}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn restored_work_asks_before_an_unsafe_call_and_checks_a_checkable_one() {
    let mut walk = Walk::new(definition(json!({})), BudgetLimits::default(), Vec::new());
    walk.execution.restored = Some(start());
    walk.ask_for(&[
        ("read", Effect::ReadOnly),
        ("order", Effect::Checkable),
        ("charge", Effect::Unsafe),
    ]);
    let Action::Record(bodies) = decide(&walk.definition, &walk.execution, &walk.state, &facts())
    else {
        panic!("it goes on");
    };
    let unknown: Vec<u16> = bodies.iter().filter_map(unknown_call).collect();
    assert_eq!(unknown, [2], "the unsafe one, and only that");
    bodies.into_iter().for_each(|body| walk.record(body));
    let Action::Record(bodies) = decide(&walk.definition, &walk.execution, &walk.state, &facts())
    else {
        panic!("it goes on");
    };
    assert!(
        matches!(bodies.as_slice(), [StepBody::InputRequested(request)] if request.call.index == 2),
        "{bodies:?}"
    );
    bodies.into_iter().for_each(|body| walk.record(body));
    let Action::RunTools(runs) = decide(&walk.definition, &walk.execution, &walk.state, &facts())
    else {
        panic!("it waits for the person alone");
    };
    let runs: Vec<_> = runs
        .iter()
        .map(|run| (run.call.index, run.check_first))
        .collect();
    assert_eq!(runs, [(0, false), (1, true)]);
}

#[test]
fn a_call_that_the_end_interrupts_is_recorded_as_unknown() {
    let mut walk = Walk::new(definition(json!({})), BudgetLimits::default(), Vec::new());
    walk.ask_for(&[("read", Effect::ReadOnly), ("charge", Effect::Unsafe)]);
    let cancel = Some(Cancel {
        by: "ops".into(),
        reason: String::new(),
    });
    let facts = Facts { cancel, ..facts() };
    let Action::Record(bodies) = decide(&walk.definition, &walk.execution, &walk.state, &facts)
    else {
        panic!("it goes on");
    };
    let unknown: Vec<u16> = bodies.iter().filter_map(unknown_call).collect();
    assert_eq!(unknown, [1], "the unsafe one, and only that");
    assert!(matches!(bodies.last(), Some(StepBody::Finished { .. })));
}

fn unknown_call(body: &StepBody) -> Option<u16> {
    match body {
        StepBody::ToolResult(result) if matches!(result.outcome, ToolOutcome::Unknown { .. }) => {
            Some(result.call.index)
        }
        _ => None,
    }
}
