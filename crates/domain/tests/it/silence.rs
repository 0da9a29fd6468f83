//! What becomes of a coordinator's questions that nobody answers: what its agent says, and the journal tells it.

use std::time::Duration;

use agentrunner_domain::budget::BudgetLimits;
use agentrunner_domain::execution::FailureCode;
use agentrunner_domain::step::{Answer, InputReceived, InputRequest};
use agentrunner_domain::{Action, Outcome, Purpose, StepBody, Time, decide};
use serde_json::{Value, json};

use crate::simulation::{Lots, Walk, definition, start};

/// A coordinator that has asked something: whether its plan may be carried out, or, where its `lots` say so, what its
/// planner wants to know.
fn asking(config: Value, extra: Value, lots: Vec<u8>) -> Walk {
    let mut all =
        json!({ "execution_mode": "collaborative", "tools": [], "collaborative_config": config });
    all.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    let mut walk = Walk::new(definition(all), BudgetLimits::default(), Vec::new());
    walk.lots = Lots(lots.into_iter());
    while let Some(next) = act(&mut walk) {
        assert!(matches!(next, Action::CallModel(_) | Action::Record(_)));
    }
    walk
}

fn next(walk: &Walk) -> Action {
    decide(&walk.definition, &walk.execution, &walk.state, &walk.facts)
}

/// Performs the next thing, unless it is to wait.
fn act(walk: &mut Walk) -> Option<Action> {
    let action = next(walk);
    match &action {
        Action::Record(bodies) => bodies.iter().for_each(|body| walk.record(body.clone())),
        Action::CallModel(run) => walk.coordinate(run.purpose),
        Action::Park { .. } => return None,
        other => panic!("{other:?}"),
    }
    Some(action)
}

fn asked(walk: &Walk) -> &InputRequest {
    let last = walk.journal.last().map(|step| &step.body);
    match last {
        Some(StepBody::InputRequested(request)) => request,
        other => panic!("{other:?}"),
    }
}

fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// What is journaled when nobody has answered by then.
fn silence(walk: &mut Walk, until: Time) -> Vec<StepBody> {
    walk.facts.now = until;
    assert_eq!(act(walk), None, "an answer may be on its way");
    walk.facts.now = until + seconds(1);
    match act(walk) {
        Some(Action::Record(bodies)) => bodies,
        other => panic!("{other:?}"),
    }
}

fn is_by_time_out(body: &StepBody, wanted: &Answer) -> bool {
    matches!(body, StepBody::InputReceived(InputReceived { answer, by, .. }) if answer == wanted && by == "time-out")
}

fn failed(body: Option<&StepBody>) -> (FailureCode, &str) {
    match body {
        Some(StepBody::Finished {
            outcome: Outcome::Failed(failure),
        }) => (failure.code, &failure.message),
        other => panic!("{other:?}"),
    }
}

fn approval(extra: Value) -> Walk {
    asking(json!({ "require_plan_approval": true }), extra, Vec::new())
}

#[test]
fn a_plan_waits_for_its_approval_as_long_as_the_agent_says_and_is_denied_then() {
    let mut walk = approval(json!({ "approval_timeout_seconds": 60 }));
    assert_eq!(asked(&walk).until, start() + seconds(60));
    let otherwise = asked(&walk).otherwise.as_deref();
    assert_eq!(
        otherwise,
        Some("the plan is not carried out, and the task fails")
    );
    let bodies = silence(&mut walk, start() + seconds(60));
    assert!(
        bodies.len() == 1 && is_by_time_out(&bodies[0], &Answer::Expired),
        "{bodies:?}"
    );
    let Some(Action::Record(bodies)) = act(&mut walk) else {
        panic!()
    };
    let (code, message) = failed(bodies.last());
    assert_eq!(code, FailureCode::PlanRejected);
    assert!(message.contains("nobody approved the plan"), "{message}");
    // Without a limit it waits as long as the task may take.
    let walk = approval(json!({}));
    assert_eq!(asked(&walk).until, walk.execution.deadline);
}

#[test]
fn silence_about_a_plan_may_be_consent_or_the_end() {
    let extra = |on: &str| json!({ "approval_timeout_seconds": 60, "on_approval_timeout": on });
    let mut walk = approval(extra("approve"));
    let bodies = silence(&mut walk, start() + seconds(60));
    assert!(is_by_time_out(&bodies[0], &Answer::Approve), "{bodies:?}");
    let Action::Record(bodies) = next(&walk) else {
        panic!()
    };
    assert!(matches!(bodies[0], StepBody::ChildStarted { .. }));

    let mut walk = approval(extra("fail"));
    let bodies = silence(&mut walk, start() + seconds(60));
    assert!(is_by_time_out(&bodies[0], &Answer::Expired), "{bodies:?}");
    let (code, message) = failed(bodies.last());
    assert_eq!(code, FailureCode::NobodyAnswered);
    assert!(
        message.contains("nobody answered the plan of the coordinator"),
        "{message}"
    );
}

#[test]
fn silence_about_a_planners_question_is_what_the_agent_says_too() {
    // The planner's first word is a question.
    let lots = || vec![4];
    let config = || json!({ "clarification_timeout_seconds": 5 });
    let mut walk = asking(config(), json!({}), lots());
    assert_eq!(asked(&walk).until, start() + seconds(5));
    let bodies = silence(&mut walk, start() + seconds(5));
    assert!(
        bodies.len() == 1 && is_by_time_out(&bodies[0], &Answer::Expired),
        "{bodies:?}"
    );
    assert!(matches!(next(&walk), Action::CallModel(run) if run.purpose == Purpose::Plan));

    let extra = json!({ "on_clarification_timeout": "fail" });
    let mut walk = asking(config(), extra, lots());
    assert_eq!(
        asked(&walk).otherwise.as_deref(),
        Some("the execution fails")
    );
    let bodies = silence(&mut walk, start() + seconds(5));
    assert!(is_by_time_out(&bodies[0], &Answer::Expired), "{bodies:?}");
    let (code, message) = failed(bodies.last());
    assert_eq!(code, FailureCode::NobodyAnswered);
    assert!(message.contains("clarification"), "{message}");
}
