//! What people say to plans and planners.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn nothing_runs_before_a_person_approves_the_plan() {
    let rig = team(json!({ "require_plan_approval": true }), simple).await;
    let id = submit(&rig, json!({})).await;
    let odd = answer(&rig, id, Answer::Repeat).await;
    assert!(matches!(odd, InputAnswer::DoesNotFit(_)), "{odd:?}");
    let row = rig.store.execution(id).await.unwrap().unwrap();
    assert_eq!(row.worker, None, "waiting holds no lease");
    assert!(row.status_reason.unwrap().contains("approval of the plan"));
    assert!(folded(&rig, id).await.contributions.is_empty());
    answer(&rig, id, Answer::Approve).await;
    assert_eq!(output(&rig.outcome(id).await), "done");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_may_ask_for_approval_and_a_person_may_edit() {
    let rig = team(json!({}), simple).await;
    let id = submit(&rig, json!({ "require_plan_approval": true })).await;
    let edit = |agent: &str| Answer::EditPlan {
        plan: json!({ "steps": [step("mine", agent, &[])] }),
    };
    let bad = answer(&rig, id, edit("nobody")).await;
    assert!(matches!(bad, InputAnswer::DoesNotFit(_)), "{bad:?}");
    let good = answer(&rig, id, edit("c")).await;
    assert!(matches!(good, InputAnswer::Accepted { .. }), "{good:?}");
    assert_eq!(output(&rig.outcome(id).await), "done");
    let team = folded(&rig, id).await;
    assert_eq!(team.plan.unwrap().by.as_deref(), Some("ada"));
    let done: Vec<&str> = team.contributions.iter().map(|c| c.step.as_str()).collect();
    assert_eq!(done, ["mine"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_plan_is_made_again_with_the_reason_and_not_for_ever() {
    let config = json!({ "require_plan_approval": true, "max_replans": 1 });
    let rig = team(config, |role, request| match role {
        Role::Planner if words(request).contains("rejected this plan: too small") => {
            plan(&[step("x", "b", &[]), step("y", "c", &[])])
        }
        role => simple(role, request),
    })
    .await;
    let id = submit(&rig, json!({})).await;
    let no = || Answer::Reject {
        reason: "too small".to_owned(),
    };
    answer(&rig, id, no()).await;
    until(async || folded(&rig, id).await.parts.len() == 2).await;
    answer(&rig, id, no()).await;
    let outcome = rig.outcome(id).await;
    let (code, message) = failure(&outcome);
    assert_eq!(code, FailureCode::PlanRejected);
    assert!(
        message.contains("ada rejected the plan: too small"),
        "{message}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_planner_may_ask_a_person_and_plans_without_an_answer_too() {
    let config = json!({ "clarification_timeout_seconds": 1 });
    let rig = team(config, |role, request| match role {
        Role::Planner => match words(request) {
            text if text.contains("Nobody answered") => plan(&[step("x", "c", &[])]),
            text if text.contains("answers your question: 1066") => plan(&[step("x", "b", &[])]),
            _ => Say::Json(json!({ "question": "Which year?", "steps": [] })),
        },
        role => simple(role, request),
    })
    .await;
    let (told, silent) = (submit(&rig, json!({})).await, submit(&rig, json!({})).await);
    let year = "1066".to_owned();
    answer(&rig, told, Answer::Text { text: year }).await;
    for (id, agent) in [(told, "b"), (silent, "c")] {
        assert_eq!(output(&rig.outcome(id).await), "done");
        let team = folded(&rig, id).await;
        assert_eq!(team.contributions[0].agent.as_str(), agent);
    }
    // Where nobody may be asked, the planner is told so.
    let rig = team(json!({}), |role, request| match role {
        Role::Planner if words(request).contains("nobody can be asked") => {
            plan(&[step("x", "b", &[])])
        }
        Role::Planner => Say::Json(json!({ "question": "Which year?", "steps": [] })),
        role => simple(role, request),
    })
    .await;
    let id = submit(&rig, json!({ "allow_human_clarification": false })).await;
    assert_eq!(output(&rig.outcome(id).await), "done");
}
