//! Whatever is proposed: what passes the rules can be carried out, and what does not is told why.

use std::collections::BTreeSet;

use agentrunner_domain::PlanStepId;
use agentrunner_domain::plan::{Draft, DraftStep, Drafted, Rules, read};
use proptest::prelude::*;
use serde_json::json;

fn rules() -> Rules {
    serde_json::from_value(json!({
        "coordinator": "lead", "agents": ["researcher", "writer", "critic"],
        "max_steps": 8, "min_agents": 1, "max_agents": 3, "done": ["old"],
    }))
    .unwrap()
}

fn step(id: &str, agent: &str, waits: &[&str]) -> DraftStep {
    DraftStep {
        id: id.to_owned(),
        agent: agent.to_owned(),
        instruction: "do it".to_owned(),
        inputs: Vec::new(),
        depends_on: waits.iter().map(|id| (*id).to_owned()).collect(),
    }
}

fn refused(rules: &Rules, steps: Vec<DraftStep>) -> String {
    rules.check(&Draft { steps }).unwrap_err().join("; ")
}

fn drafts() -> impl Strategy<Value = Draft> {
    let id = prop::sample::select(vec!["a", "b", "c", "d", "e", "old", "", "ghost", "sp ace"]);
    let agent = prop::sample::select(vec!["researcher", "writer", "critic", "lead", "Nobody"]);
    let waits = prop::collection::vec(id.clone(), 0..3);
    let any_step =
        (id, agent, waits, any::<bool>()).prop_map(|(id, agent, waits, says)| DraftStep {
            instruction: if says {
                "do it".to_owned()
            } else {
                String::new()
            },
            ..step(id, agent, &waits)
        });
    // Mostly sound ones, so that many pass.
    let sound = prop::collection::vec((0usize..3, prop::collection::vec(0usize..8, 0..3)), 1..8)
        .prop_map(|steps| {
            let name = |n: usize| format!("s{n}");
            let steps = steps.into_iter().enumerate().map(|(n, (agent, waits))| {
                let waits: Vec<String> = waits.into_iter().filter(|w| *w != n).map(name).collect();
                let waits: Vec<&str> = waits.iter().map(String::as_str).collect();
                step(&name(n), ["researcher", "writer", "critic"][agent], &waits)
            });
            steps.collect::<Vec<_>>()
        });
    prop_oneof![prop::collection::vec(any_step, 0..12), sound].prop_map(|steps| Draft { steps })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, ..ProptestConfig::default() })]

    /// A plan that passes can be walked through: each time, something is ready, until nothing is left.
    #[test]
    fn what_passes_can_be_carried_out(draft in drafts(), in_order in any::<bool>()) {
        let rules = Rules { in_order, ..rules() };
        let Ok(plan) = rules.check(&draft) else { return Ok(()) };
        prop_assert!(!plan.steps.is_empty() && plan.steps.len() <= 8);
        let mut done: BTreeSet<PlanStepId> = rules.done.iter().cloned().collect();
        let mut left = plan.steps.clone();
        while !left.is_empty() {
            let ready = left.iter().position(|step| step.depends_on.iter().all(|id| done.contains(id)));
            let Some(ready) = ready else { return Err(TestCaseError::fail("it is stuck")) };
            let step = left.remove(ready);
            prop_assert!(rules.agents.contains(&step.agent) && step.agent != rules.coordinator);
            prop_assert!(done.insert(step.id), "two steps of one name");
        }
    }

    /// What passed passes again, after a trip through JSON: a person who edits nothing is not refused.
    #[test]
    fn a_plan_reads_back(draft in drafts()) {
        let Ok(plan) = rules().check(&draft) else { return Ok(()) };
        let Ok(Drafted::Plan(again)) = read(&serde_json::to_string(&plan).unwrap()) else {
            return Err(TestCaseError::fail("it is no plan"));
        };
        prop_assert_eq!(rules().check(&again), Ok(plan));
    }

    /// Whatever a model writes, reading it ends in a plan, a question or words.
    #[test]
    fn no_text_is_too_strange(text in ".{0,400}", json in "[\\[\\]{}\":,a-z0-9 ]{0,200}") {
        for text in [text, json] {
            if let Ok(Drafted::Plan(draft)) = read(&text) {
                drop(rules().check(&draft));
            }
        }
    }
}

#[test]
fn every_refusal_says_what_is_wrong() {
    let rules = rules();
    for (steps, told) in [
        (vec![], "empty"),
        (
            (0..9)
                .map(|n| step(&n.to_string(), "writer", &[]))
                .collect(),
            "9 steps, at most 8",
        ),
        (
            vec![step("a", "reseacher", &[])],
            "did you mean \"researcher\"?",
        ),
        (
            vec![step("a", "zzz", &[])],
            "there are researcher, writer, critic",
        ),
        (vec![step("a", "lead", &[])], "is yourself"),
        (
            vec![step("a", "writer", &[]), step("a", "critic", &[])],
            "two steps \"a\"",
        ),
        (vec![step("old", "writer", &[])], "done already"),
        (vec![step("a", "writer", &["a"])], "depends on itself"),
        (
            vec![
                step("first", "writer", &[]),
                step("b", "writer", &["frist"]),
            ],
            "did you mean \"first\"?",
        ),
        (
            vec![
                step("a", "writer", &["c"]),
                step("b", "writer", &["a"]),
                step("c", "writer", &["b"]),
            ],
            "a → c → b → a",
        ),
        (vec![step("a b", "writer", &[])], "plan step id"),
    ] {
        let why = refused(&rules, steps);
        assert!(why.contains(told), "{why} does not say {told}");
    }
    let mut early = step("b", "writer", &[]);
    early.inputs = vec!["a".to_owned()];
    let why = refused(&rules, vec![step("a", "writer", &[]), early]);
    assert!(why.contains("add it to depends_on"), "{why}");
    let few = Rules {
        min_agents: 2,
        max_agents: 2,
        done: Vec::new(),
        ..rules.clone()
    };
    assert!(refused(&few, vec![step("a", "writer", &[])]).contains("at least 2"));
    let all = ["researcher", "writer", "critic"];
    let many = all.iter().map(|name| step(name, name, &[])).collect();
    assert!(refused(&few, many).contains("at most 2"));
}

#[test]
fn steps_in_order_wait_for_the_one_before() {
    let rules = Rules {
        in_order: true,
        ..rules()
    };
    let steps = ["a", "b", "c"].map(|id| step(id, "writer", &[])).to_vec();
    let plan = rules.check(&Draft { steps }).unwrap();
    let waits: Vec<usize> = plan.steps.iter().map(|s| s.depends_on.len()).collect();
    assert_eq!(waits, [0, 1, 1]);
}
