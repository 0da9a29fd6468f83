//! What a trace tells of any walk.

use std::collections::BTreeSet;

use agentrunner_domain::budget::BudgetLimits;
use agentrunner_domain::span::{Attribute, spans};
use agentrunner_domain::{
    Epoch, Execution, Outcome, Sampling, Span, SpanId, Step, StepBody, TimeDelta, TraceId, Upstream,
};
use proptest::prelude::*;
use serde_json::json;
use uuid::Uuid;

use crate::simulation::{Walk, definition, start};

fn lots() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..400)
}

fn walk(lots: Vec<u8>) -> Walk {
    let mut walk = Walk::new(definition(json!({})), BudgetLimits::default(), lots);
    walk.execution.upstream = Some(Upstream {
        span: SpanId::from_uuid(Uuid::from_u128(1)),
        sampled: true,
    });
    walk.go_to_the_end();
    walk
}

fn told(execution: &Execution, steps: &[Step]) -> Vec<Span> {
    spans(execution, start(), steps, None)
}

fn text<'a>(span: &'a Span, name: &str) -> Option<&'a str> {
    span.attributes
        .iter()
        .find_map(|(known, value)| match value {
            Attribute::Text(text) if *known == name => Some(text.as_str()),
            _ => None,
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    /// One tree, whose parts lie within the whole, each under a name of its own.
    #[test]
    fn spans_make_one_tree(lots in lots(), back in 0_i64..5000) {
        let mut walk = walk(lots);
        // A takeover by a clock that is behind.
        for step in walk.journal.iter_mut().step_by(3) {
            step.at -= TimeDelta::milliseconds(back);
        }
        let spans = told(&walk.execution, &walk.journal);
        let root = spans.first().unwrap();
        prop_assert_eq!(root.parent, walk.execution.upstream.map(|above| above.span));
        let ids: BTreeSet<_> = spans.iter().map(|span| span.id).collect();
        prop_assert_eq!(ids.len(), spans.len());
        for span in &spans {
            prop_assert!(span.start <= span.end);
            prop_assert!(root.start <= span.start && span.end <= root.end);
            prop_assert_eq!(&span.trace_id, &walk.execution.trace_id);
            if span.id != root.id {
                prop_assert_eq!(span.parent, Some(root.id));
            }
            prop_assert_eq!(span.failed, text(span, "error.type").is_some());
        }
    }

    /// Everything that was done is told, and nothing else: a model call, a tool's call however often it was tried, a
    /// delegation, a question.
    #[test]
    fn each_thing_that_was_done_is_one_span(lots in lots()) {
        let walk = walk(lots);
        let spans = told(&walk.execution, &walk.journal);
        let count = |name: &str| spans.iter().filter(|span| span.name.starts_with(name)).count();
        let steps = |is: fn(&StepBody) -> bool| walk.journal.iter().filter(|step| is(&step.body)).count();
        prop_assert_eq!(count("chat m"), steps(|body| matches!(body, StepBody::ModelCall(_))));
        prop_assert_eq!(count("wait_for_person"), steps(|body| matches!(body, StepBody::InputRequested(_))));
        prop_assert_eq!(count("wait_for_model"), steps(|body| matches!(body, StepBody::Timer { .. })));
        let mut keys = BTreeSet::new();
        for step in &walk.journal {
            match &step.body {
                StepBody::ToolIntent(intent) => {
                    keys.insert(SpanId::of_key(&intent.key));
                }
                StepBody::ChildStarted { .. } => {
                    keys.insert(SpanId::of_step(walk.execution.id, step.seq));
                }
                _ => {}
            }
        }
        let made: BTreeSet<_> = spans
            .iter()
            .filter(|span| span.name.starts_with("execute_tool") && text(span, "error.type") != Some("refused"))
            .map(|span| span.id)
            .collect();
        let refused: BTreeSet<_> = spans
            .iter()
            .filter(|span| text(span, "error.type") == Some("refused"))
            .map(|span| span.id)
            .collect();
        prop_assert!(made.is_subset(&keys));
        prop_assert!(keys.is_subset(&made.union(&refused).copied().collect()));
    }

    /// Whoever ends it, after whatever crashes, tells the same.
    #[test]
    fn a_takeover_tells_the_same_spans(lots in lots()) {
        let walk = walk(lots);
        let calm: Vec<Step> = walk.journal.iter().cloned().map(|step| Step { epoch: Epoch::new(1), ..step }).collect();
        prop_assert_eq!(told(&walk.execution, &walk.journal), told(&walk.execution, &calm));
    }

    /// What was told of a beginning is told of the whole under the same names.
    #[test]
    fn a_beginning_tells_a_part_of_the_whole(lots in lots(), cut in 0_usize..40) {
        let walk = walk(lots);
        let whole: BTreeSet<_> = told(&walk.execution, &walk.journal).iter().map(|span| span.id).collect();
        let begun = walk.journal.get(..cut.min(walk.journal.len())).unwrap();
        for span in told(&walk.execution, begun) {
            prop_assert!(whole.contains(&span.id), "{span:?}");
        }
    }

    /// A fork tells what it did itself.
    #[test]
    fn shared_steps_are_told_by_whom_they_belong_to(lots in lots(), more in lots(), cut in 0_usize..40) {
        let walk = walk(lots);
        let turns: Vec<usize> = walk.journal.iter().zip(0..).filter(|(step, _)| matches!(step.body, StepBody::ModelCall(_))).map(|(_, at)| at).collect();
        let shared = turns.get(cut.min(turns.len().saturating_sub(1))).copied().unwrap_or(0);
        let mut fork = walk.branch(shared, None, more);
        fork.facts.now = walk.facts.now;
        fork.go_to_the_end();
        let ids = |spans: Vec<Span>| spans.into_iter().map(|span| span.id).collect::<BTreeSet<_>>();
        let own = ids(told(&fork.execution, &fork.journal));
        let other = ids(told(&walk.execution, &walk.journal));
        prop_assert!(own.is_disjoint(&other));
    }

    /// A share of traces is about that share, and a trace in a smaller share is in every larger one.
    #[test]
    fn a_larger_share_holds_a_smaller_one(trace in any::<u128>(), small in 0.0..1.0_f64, more in 0.0..1.0_f64) {
        let trace = TraceId::from_uuid(Uuid::from_u128(trace.max(1)));
        let large = small + (1.0 - small) * more;
        let (small, large) = (Sampling::share(small).unwrap(), Sampling::share(large).unwrap());
        prop_assert!(!small.takes(&trace, None) || large.takes(&trace, None));
        prop_assert!(small.takes(&trace, Some(true)) && !large.takes(&trace, Some(false)));
        prop_assert!(Sampling::ALL.takes(&trace, None));
        prop_assert!(!Sampling::share(0.0).unwrap().takes(&trace, None));
    }
}

#[test]
fn half_of_our_own_ids_are_half_of_the_traces() {
    let half = Sampling::share(0.5).unwrap();
    let own = (0..2000).map(|_| TraceId::from_uuid(Uuid::now_v7()));
    let taken = own.filter(|trace| half.takes(trace, None)).count();
    // 500 are more than 20 standard deviations.
    assert!((500..1500).contains(&taken), "{taken}");
}

#[test]
fn no_share_is_beyond_all_or_below_none() {
    for strange in [-0.1, 1.1, f64::NAN, f64::INFINITY] {
        assert_eq!(Sampling::share(strange), None);
    }
}

#[test]
fn what_was_said_is_told_only_when_it_may_be_and_as_it_may_be() {
    let walk = walk(vec![0, 0, 3, 0, 0, 0]);
    let quiet = format!("{:?}", told(&walk.execution, &walk.journal));
    assert!(
        !quiet.contains("words") && !quiet.contains("\"go\""),
        "{quiet}"
    );
    let show = |text: &str| text.replace("words", "[masked]");
    let loud = spans(&walk.execution, start(), &walk.journal, Some(&show));
    let loud = format!("{loud:?}");
    assert!(
        loud.contains("[masked]") && !loud.contains("words"),
        "{loud}"
    );
    assert!(matches!(
        walk.journal.last().unwrap().body,
        StepBody::Finished {
            outcome: Outcome::Completed { .. }
        }
    ));
}

#[test]
fn a_call_that_is_made_again_is_one_span() {
    use agentrunner_domain::definition::Effect;
    let mut walk = Walk::new(definition(json!({})), BudgetLimits::default(), Vec::new());
    walk.ask_for(&[("put", Effect::Idempotent)]);
    walk.go_to_the_end();
    let spans = told(&walk.execution, &walk.journal);
    let calls: Vec<_> = spans
        .iter()
        .filter(|span| span.name == "execute_tool put")
        .collect();
    assert_eq!(calls.len(), 1);
    assert_eq!(text(calls[0], "gen_ai.tool.call.id"), Some("1"));
}
