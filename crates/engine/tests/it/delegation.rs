//! Agents that work for agents: budgets, depth, hand-over, and a person's word before it.

use domain::step::{Answer, StepBody};
use domain::{ExecutionId, Message, Outcome};
use serde_json::{Value, json};
use store::{ExecutionFilter, ExecutionRow, NewInput, Page};

use crate::rig::{Rig, Say, definition};

/// Agent `a` has `helper` for a tool, with `more` about that entry; both have `budget`.
async fn rig(
    more: Value,
    extra: Value,
    play: impl Fn(usize, &llm::ChatRequest<'_>) -> Say + Send + Sync + 'static,
) -> Rig {
    let mut tool = json!({ "name": "helper", "type": "agent" });
    tool.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    let mut all = json!({ "tools": [tool] });
    all.as_object_mut()
        .unwrap()
        .extend(extra.as_object().unwrap().clone());
    let rig = Rig::start(all, play).await;
    let look = crate::rig::tool("look", domain::definition::Effect::ReadOnly);
    let mut help = definition(json!({ "name": "helper", "tools": [look] }));
    help.system_prompt = "You help.".to_owned();
    rig.define(help).await;
    rig
}

async fn children(rig: &Rig, id: ExecutionId) -> Vec<ExecutionRow> {
    let filter = ExecutionFilter {
        parent: Some(id),
        ..ExecutionFilter::default()
    };
    let page = Page {
        limit: 10,
        after: None,
    };
    rig.store.executions(filter, page).await.unwrap().0
}

fn is_helper(request: &llm::ChatRequest<'_>) -> bool {
    request.system == "You help."
}

#[tokio::test(flavor = "multi_thread")]
async fn children_share_what_is_left_and_what_they_took_is_gone() {
    let budget = json!({ "budget": { "max_tool_calls": 6 } });
    let rig = rig(json!({}), budget, |turn, request| {
        let task = || ("helper", json!({ "task": "x" }));
        match (is_helper(request), turn) {
            (true, 0) => Say::Tools(vec![("look", json!({})), ("look", json!({}))]),
            (true, _) => Say::Text("helped"),
            (false, 0) => Say::Tools(vec![task(), task()]),
            // Two are its own, four theirs: nothing is left.
            (false, 1) => Say::Tools(vec![task()]),
            (false, _) => Say::Text("never"),
        }
    })
    .await;
    let id = rig.submit().await;
    let outcome = rig.outcome(id).await;
    assert!(
        matches!(&outcome, Outcome::Failed(failure) if failure.message.contains("max_tool_calls is 6 and 7")),
        "{outcome:?}"
    );
    let rows = children(&rig, id).await;
    assert_eq!(rows.len(), 2);
    let trace = rig
        .store
        .execution(id)
        .await
        .unwrap()
        .unwrap()
        .execution
        .trace_id;
    for row in rows {
        assert_eq!(row.execution.trace_id, trace, "one trace");
        // To begin them took two of six; each had half of the rest.
        assert_eq!(row.execution.budget.max_tool_calls, Some(2));
        assert_eq!(row.execution.parent.unwrap().depth, 1);
    }
    let steps = rig.store.steps(id, None, 100).await.unwrap();
    let spent: u32 = steps
        .iter()
        .map(|step| match &step.body {
            StepBody::ChildFinished { spent, .. } => spent.tool_calls,
            _ => 0,
        })
        .sum();
    assert_eq!(spent, 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answer_of_whom_it_was_handed_over_to_is_the_answer() {
    let rig = rig(json!({ "hand_over": true }), json!({}), |_, request| {
        if is_helper(request) {
            Say::Text("from the helper")
        } else {
            Say::Tools(vec![("helper", json!({ "task": "x" }))])
        }
    })
    .await;
    let id = rig.submit().await;
    let outcome = rig.outcome(id).await;
    assert!(
        matches!(&outcome, Outcome::Completed { output, .. } if output == "from the helper"),
        "{outcome:?}"
    );
    let asked = rig.model.asked.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!(asked, 2, "once each");
    assert_eq!(
        rig.kinds(id).await,
        ["model_call", "child_started", "child_finished", "finished"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_hand_over_is_told_to_the_model() {
    let rig = rig(
        json!({ "hand_over": true }),
        json!({}),
        |turn, request| match (is_helper(request), turn, request.messages.last()) {
            (true, ..) => Say::Panic,
            (false, 0, _) => Say::Tools(vec![("helper", json!({ "task": "x" }))]),
            (false, _, Some(Message::Tool { is_error: true, .. })) => Say::Text("on my own"),
            (_, _, other) => panic!("{other:?}"),
        },
    )
    .await;
    let id = rig.submit().await;
    let outcome = rig.outcome(id).await;
    assert!(
        matches!(&outcome, Outcome::Completed { output, .. } if output == "on my own"),
        "{outcome:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_is_given_nothing_before_a_person_says_so() {
    let more = json!({ "requires_approval": true });
    let rig = rig(more, json!({}), |turn, request| {
        match (is_helper(request), turn) {
            (true, _) => Say::Text("helped"),
            (false, 0) => Say::Tools(vec![("helper", json!({ "task": "x" }))]),
            (false, _) => Say::Text("done"),
        }
    })
    .await;
    let id = rig.submit().await;
    while rig.store.execution(id).await.unwrap().unwrap().status != domain::Status::WaitingForInput
    {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    assert_eq!(children(&rig, id).await.len(), 0);
    let input = NewInput {
        id,
        request: None,
        answer: Answer::Approve,
        by: "me".to_owned(),
        now: chrono::Utc::now(),
    };
    rig.engine.answer(input).await.unwrap();
    assert!(matches!(rig.outcome(id).await, Outcome::Completed { .. }));
    assert_eq!(children(&rig, id).await.len(), 1);
}
