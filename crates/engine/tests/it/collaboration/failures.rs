//! Steps that fail, reviewers that want more, plans that are made anew.

use super::*;

fn refusal() -> Say {
    Say::Fail(llm::Error {
        class: domain::retry::ModelErrorClass::Refused,
        message: "I will not".to_owned(),
        retry_after: None,
        source: None,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_step_is_done_again_with_the_reason_and_then_ends_the_task() {
    let rig = team(
        json!({ "max_step_retries": 1 }),
        |role, request| match role {
            Role::Agent(_) if words(request).contains("not enough: ") => Say::Text("now"),
            Role::Agent(_) => refusal(),
            role => simple(role, request),
        },
    )
    .await;
    let id = submit(&rig, json!({})).await;
    assert_eq!(output(&rig.outcome(id).await), "done");
    let team = folded(&rig, id).await;
    assert_eq!((team.parts[0].attempts, team.contributions.len()), (2, 2));
    assert_eq!(team.contributions[0].status, Status::Failed);

    let never = json!({ "max_step_retries": 1 });
    let rig = self::team(never, |role, request| match role {
        Role::Agent(_) => refusal(),
        role => simple(role, request),
    })
    .await;
    let id = submit(&rig, json!({})).await;
    let outcome = rig.outcome(id).await;
    let (code, message) = failure(&outcome);
    assert_eq!(code, FailureCode::StepFailed);
    assert!(
        message.contains("step x of the plan (b) failed after 2 attempts"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_may_lead_to_another_plan_that_builds_on_what_is_done() {
    let config = json!({ "on_step_failure": "replan", "max_replans": 1 });
    let rig = team(config, |role, request| match role {
        Role::Planner if words(request).contains("The plan before was given up") => {
            let text = words(request);
            assert!(
                text.contains("step y (c) failed") && text.contains("b did it"),
                "{text}"
            );
            plan(&[step("z", "d", &["x"])])
        }
        Role::Planner => plan(&[step("x", "b", &[]), step("y", "c", &["x"])]),
        Role::Agent(name) if name == "c" => refusal(),
        Role::Agent(name) if name == "d" => Say::Text(if words(request).contains("b did it") {
            "built on it"
        } else {
            "?"
        }),
        Role::Agent(_) => Say::Text("b did it"),
        Role::Author => {
            assert!(words(request).contains("built on it"));
            Say::Text("done")
        }
        role => simple(role, request),
    })
    .await;
    let id = submit(&rig, json!({})).await;
    assert_eq!(output(&rig.outcome(id).await), "done");
    let done = folded(&rig, id).await;
    assert_eq!((done.replans, done.parts.len()), (1, 2));

    let rig = team(
        json!({ "on_step_failure": "fail" }),
        |role, request| match role {
            Role::Agent(_) => refusal(),
            role => simple(role, request),
        },
    )
    .await;
    let id = submit(&rig, json!({})).await;
    let outcome = rig.outcome(id).await;
    assert_eq!(failure(&outcome).0, FailureCode::StepFailed);
    assert_eq!(folded(&rig, id).await.contributions.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reviewer_has_work_done_again_and_plans_anew_within_its_limits() {
    let asked = Arc::new(AtomicU32::new(0));
    let reviews = asked.clone();
    let config = json!({ "max_step_retries": 1, "max_replans": 1 });
    let rig = team(config, move |role, request| match role {
        Role::Reviewer => match reviews.fetch_add(1, Ordering::SeqCst) {
            0 => verdicts(request, |_| ("retry", "say more")),
            1 => verdicts(request, |_| ("replan", "ask somebody else")),
            // The limit is reached: it is told so, and its insistence is in vain.
            _ => verdicts(request, |_| ("replan", "once more")),
        },
        Role::Planner if words(request).contains("ask somebody else") => {
            plan(&[step("other", "c", &[])])
        }
        role => simple(role, request),
    })
    .await;
    let id = submit(&rig, json!({})).await;
    assert_eq!(output(&rig.outcome(id).await), "done");
    let team = folded(&rig, id).await;
    let done: Vec<&str> = team.contributions.iter().map(|c| c.step.as_str()).collect();
    assert_eq!(done, ["x", "x", "other"]);
    assert_eq!(
        asked.load(Ordering::SeqCst),
        5,
        "two, and three about the last"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_gone_fails_its_step() {
    let rig = team(json!({ "max_step_retries": 0 }), simple).await;
    let id = {
        let config = json!({ "require_plan_approval": true });
        submit(&rig, config).await
    };
    until(async || {
        rig.store.execution(id).await.unwrap().unwrap().status == Status::WaitingForInput
    })
    .await;
    let gone = json!({ "name": "b", "enabled": false });
    rig.define(definition(gone)).await;
    answer(&rig, id, Answer::Approve).await;
    let outcome = rig.outcome(id).await;
    let (code, message) = failure(&outcome);
    assert_eq!(code, FailureCode::StepFailed);
    assert!(message.contains("no agent b"), "{message}");
}
