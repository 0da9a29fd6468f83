//! What else than a request starts a coordinator.

use agentrunner_engine::NewSchedule;
use domain::{Event, ExecutionMode};
use store::{ExecutionFilter, ExecutionRow, Page};

use super::*;

/// The first execution of the coordinator, when there is one.
async fn begun(rig: &Rig) -> ExecutionRow {
    let first = async || {
        let filter = ExecutionFilter {
            agent: Some("a".parse().unwrap()),
            ..Default::default()
        };
        let one = Page {
            limit: 1,
            after: None,
        };
        rig.store.executions(filter, one).await.unwrap().0.pop()
    };
    until(async || first().await.is_some()).await;
    first().await.unwrap()
}

/// It plans, has the plan carried out, and answers.
async fn works(rig: &Rig, row: &ExecutionRow) {
    assert_eq!(row.execution.mode, ExecutionMode::Collaborative);
    assert_eq!(output(&rig.outcome(row.execution.id).await), "done");
    let team = folded(rig, row.execution.id).await;
    assert_eq!(team.contributions.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_starts_a_coordinator_and_is_what_it_plans_for() {
    let wants = json!({ "event_subscriptions": ["orders.*"] });
    let play = |role: Role, request: &ChatRequest<'_>| {
        if role == Role::Planner {
            let text = words(request);
            assert!(text.contains("an odd order"), "{text}");
        }
        simple(role, request)
    };
    let rig = team_on(json!({}), wants, play, |store| store).await;
    let event = Event {
        id: "e1".parse().unwrap(),
        topic: "orders.new".parse().unwrap(),
        source: "test".to_owned(),
        time: Utc::now(),
        trace_id: "1".repeat(32).parse().unwrap(),
        hops: 0,
        data: json!({ "what": "an odd order" }),
    };
    rig.engine.publish(event).await.unwrap();
    let row = begun(&rig).await;
    assert_eq!(row.execution.event_id, Some("e1".parse().unwrap()));
    works(&rig, &row).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_schedule_starts_a_coordinator_with_its_task() {
    let play = |role: Role, request: &ChatRequest<'_>| {
        if role == Role::Planner {
            let text = words(request);
            assert!(text.contains("count the stars"), "{text}");
        }
        simple(role, request)
    };
    let rig = team(json!({}), play).await;
    let at = Utc::now() + Duration::from_secs(1);
    let config = json!({
        "type": "once", "at": at.to_rfc3339(), "task_data": { "task_description": "count the stars" },
    });
    let new = NewSchedule {
        agent: "a".to_owned(),
        config: serde_json::from_value(config).unwrap(),
    };
    rig.engine
        .schedules()
        .create("nightly", new, false)
        .await
        .unwrap();
    rig.engine.start_scheduler();
    let row = begun(&rig).await;
    assert_eq!(row.execution.metadata["schedule"], "nightly");
    works(&rig, &row).await;
}
