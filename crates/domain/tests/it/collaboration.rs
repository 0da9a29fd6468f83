//! What must hold in every walk of a coordinator.

use agentrunner_domain::budget::BudgetLimits;
use agentrunner_domain::definition::Provider;
use agentrunner_domain::execution::FailureCode;
use agentrunner_domain::step::{Answer, ModelCall, Question};
use agentrunner_domain::team::{Member, Standing};
use agentrunner_domain::{
    Outcome, PlanStepId, Planning, Purpose, Reply, State, Step, StepBody, StopReason, Tokens, Usage,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::simulation::{Walk, definition};

/// The agents of every walk, the coordinator among them.
pub(crate) fn colleagues() -> Vec<Member> {
    let member = |name: &str| Member {
        agent: name.parse().unwrap(),
        description: format!("It is {name}."),
    };
    ["a", "b", "c", "d"].map(member).to_vec()
}

impl Walk {
    /// The coordinator's model says something that fits, more or less.
    pub(crate) fn coordinate(&mut self, purpose: Purpose) {
        let text = match (purpose, self.lots.draw(6)) {
            (Purpose::Conclude, _) => "the answer".to_owned(),
            (_, 5) => "hm".to_owned(),
            (Purpose::Plan, 4) => json!({ "question": "which one?" }).to_string(),
            (Purpose::Plan, _) => self.plan().to_string(),
            (Purpose::Review, _) => self.review().to_string(),
            _ => self.judgement().to_string(),
        };
        let violations = match (purpose, self.lots.draw(4)) {
            (Purpose::Conclude, 3) => vec!["no".to_owned()],
            _ => Vec::new(),
        };
        self.record(StepBody::ModelCall(Box::new(ModelCall {
            purpose,
            provider: Provider::Scripted,
            model: "m".to_owned(),
            reply: Reply {
                text,
                tool_calls: Vec::new(),
                stop: StopReason::EndTurn,
                provider_data: None,
            },
            targets: Vec::new(),
            violations,
            structured: None,
            usage: Usage {
                output_tokens: Tokens(10),
                ..Usage::default()
            },
            cost_usd: None,
            took_ms: 1,
            first_token_ms: None,
        })));
    }

    fn plan(&mut self) -> Value {
        let round = self.journal.len();
        let steps = (0..=self.lots.draw(5)).map(|n| {
            let agent = ["b", "c", "d", "b", "c", "d", "d", "a"][usize::from(self.lots.draw(8))];
            // Usually one before; now and then a later one.
            let waits = match (self.lots.draw(4), self.lots.draw(5)) {
                (0 | 1, _) => Vec::new(),
                (2, _) if n > 0 => vec![format!("{round}.{}", n - 1)],
                (_, other) => vec![format!("{round}.{}", other % (n + 1).max(1))],
            };
            let waits: Vec<String> =
                waits.into_iter().filter(|id| *id != format!("{round}.{n}")).collect();
            json!({ "id": format!("{round}.{n}"), "agent": agent, "instruction": "go", "depends_on": waits })
        });
        json!({ "question": "", "steps": steps.collect::<Vec<_>>() })
    }

    fn review(&mut self) -> Value {
        let team = self.state.team.clone().unwrap();
        let new = |part: &&agentrunner_domain::team::Part| {
            matches!(part.standing, Standing::Delivered { .. })
        };
        let verdicts = team.parts.iter().filter(new).map(|part| {
            let word =
                ["accept", "accept", "accept", "retry", "replan"][usize::from(self.lots.draw(5))];
            json!({ "step": part.step.id, "verdict": word, "feedback": "hm" })
        });
        json!({ "verdicts": verdicts.collect::<Vec<_>>() })
    }

    fn judgement(&mut self) -> Value {
        let team = self.state.team.clone().unwrap();
        let lot = usize::from(self.lots.draw(4));
        let one = &team.parts[lot % team.parts.len()];
        json!({ "chosen": [one.step.id], "reason": "it is best" })
    }
}

fn configs() -> impl Strategy<Value = Value> {
    let strategy = prop::sample::select(vec!["hierarchical", "sequential", "consensus"]);
    let failure = prop::sample::select(vec!["retry", "replan", "fail"]);
    (strategy, failure, any::<bool>(), 1u32..4, 0u32..3, 0u32..3).prop_map(
        |(strategy, failure, approval, parallel, retries, replans)| {
            json!({
                "planning_strategy": strategy, "on_step_failure": failure, "require_plan_approval": approval,
                "max_parallel_steps": parallel, "max_step_retries": retries, "max_replans": replans,
            })
        },
    )
}

fn walk(config: Value, budget: BudgetLimits, lots: Vec<u8>) -> Walk {
    let extra = json!({
        "execution_mode": "collaborative", "max_steps": 40, "tools": [], "collaborative_config": config,
    });
    let mut walk = Walk::new(definition(extra), budget, lots);
    walk.go_to_the_end();
    walk
}

fn lots() -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(any::<u8>(), 0..600)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// I8 and I3: replay gives the state that was reached, after a trip through JSON; there is one end.
    #[test]
    fn replay_gives_the_team_that_was_reached(config in configs(), lots in lots()) {
        let walk = walk(config, BudgetLimits::default(), lots);
        let text = serde_json::to_string(&walk.journal).unwrap();
        let journal: Vec<Step> = serde_json::from_str(&text).unwrap();
        for (length, reached) in (1..).zip(&walk.states) {
            let replayed = State::replay(&walk.execution, journal.iter().take(length)).unwrap();
            prop_assert_eq!(&replayed, reached);
        }
        prop_assert!(walk.is_over());
        prop_assert_eq!(walk.begun_after_cancel, 0);
    }

    /// A step begins after everything that it waits for, with a word of approval where one is needed, and never with more
    /// beside it than may run.
    #[test]
    fn steps_begin_when_they_may(config in configs(), lots in lots()) {
        let walk = walk(config, BudgetLimits::default(), lots);
        let before = std::iter::once(State::new(&walk.execution)).chain(walk.states.iter().cloned());
        for (before, step) in before.zip(&walk.journal) {
            let StepBody::ChildStarted { call, agent, .. } = &step.body else { continue };
            let team = before.team.unwrap();
            let part = team.part(*call).unwrap();
            let is_done = |id: &PlanStepId| team.parts.iter().any(|p| p.step.id == *id && p.is_accepted());
            prop_assert!(part.step.depends_on.iter().all(is_done));
            prop_assert!(*agent != walk.execution.agent);
            prop_assert!(part.attempts <= team.terms.max_retries);
            prop_assert!((team.running().count() as u32) < team.terms.max_parallel);
            let plan = team.plan.as_ref().unwrap();
            prop_assert!(plan.is_approved);
            prop_assert!(team.replans <= team.terms.max_replans);
        }
    }

    /// I6: what is granted to the children that run, and what is spent, never exceeds the limit.
    #[test]
    fn grants_stay_within_the_budget(config in configs(), lots in lots(), limit in 100u64..5000) {
        let budget = BudgetLimits { max_tokens: Some(Tokens(limit)), ..BudgetLimits::default() };
        let walk = walk(config, budget, lots);
        for state in &walk.states {
            let Some(team) = &state.team else { continue };
            let granted = team.granted().max_tokens.unwrap_or_default();
            prop_assert!(granted.0 + state.spent().usage.total().0 <= limit.max(state.spent().usage.total().0));
        }
    }

    /// A step that cannot follow changes nothing.
    #[test]
    fn an_odd_step_changes_nothing(config in configs(), lots in lots(), at in any::<prop::sample::Index>(), from in any::<prop::sample::Index>()) {
        let walk = walk(config, BudgetLimits::default(), lots);
        let mut state = walk.states[at.index(walk.states.len())].clone();
        let odd = Step { seq: state.next_seq, ..walk.journal[from.index(walk.journal.len())].clone() };
        let before = state.clone();
        if state.apply(&odd).is_err() {
            prop_assert_eq!(state, before);
        }
    }
}

fn told(outcome: &Outcome) -> (FailureCode, &str) {
    match outcome {
        Outcome::Failed(failure) => (failure.code, &failure.message),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_coordinator_without_agents_says_so() {
    let extra = json!({
        "execution_mode": "collaborative",
        "collaborative_config": { "preferred_collaborators": ["bb"], "min_collaborators": 1 },
    });
    let mut walk = Walk::new(definition(extra), BudgetLimits::default(), Vec::new());
    walk.facts.agents = ["a", "b"]
        .map(|name| Member {
            agent: name.parse().unwrap(),
            description: String::new(),
        })
        .to_vec();
    walk.facts.agents[1].agent = "bbb".parse().unwrap();
    let outcome = walk.go_to_the_end();
    let (code, message) = told(&outcome);
    assert_eq!(code, FailureCode::PlanInvalid);
    assert!(message.contains("bb (did you mean bbb?)"), "{message}");
}

#[test]
fn an_edited_plan_must_be_one_that_can_be_carried_out() {
    let rules = json!({ "coordinator": "a", "agents": ["b"], "max_steps": 3, "min_agents": 1, "max_agents": 3 });
    let question = Question::Plan {
        plan: serde_json::from_value(json!({ "steps": [] })).unwrap(),
        rules: serde_json::from_value(rules).unwrap(),
    };
    let edit = |agent: &str| Answer::EditPlan {
        plan: json!({ "steps": [{ "id": "x", "agent": agent, "instruction": "go" }] }),
    };
    assert!(question.accepts(&edit("b")));
    assert_eq!(question.objection(&edit("b")), None);
    let why = question.objection(&edit("nobody")).unwrap();
    assert!(why.contains("there is no agent"), "{why}");
}

#[test]
fn a_journal_that_a_plain_loop_began_goes_on_as_one() {
    // A collaborative agent's execution of a program that knew no plans.
    let journal = json!([{
        "seq": 1, "at": "2026-01-01T00:00:00Z", "epoch": 1, "kind": "model_call", "provider": "scripted", "model": "m",
        "reply": { "text": "done", "stop": "end_turn" },
        "usage": { "input_tokens": 1, "output_tokens": 1 }, "took_ms": 1,
    }]);
    let journal: Vec<Step> = serde_json::from_value(journal).unwrap();
    let extra = json!({ "execution_mode": "collaborative" });
    let mut walk = Walk::new(definition(extra), BudgetLimits::default(), Vec::new());
    walk.state = State::replay(&walk.execution, &journal).unwrap();
    assert!(matches!(walk.go_to_the_end(), Outcome::Completed { output, .. } if output == "done"));
    let planned = |step: &Step| matches!(&step.body, StepBody::Plan(p) if matches!(**p, Planning::Team { .. }));
    assert!(!walk.journal.iter().any(planned));
}
