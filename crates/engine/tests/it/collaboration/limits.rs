//! What ends a team, what it may consume, and what a lost worker costs.

use super::*;

/// What a fault at one commit leads to: the same end, and nothing that was committed done again.
async fn faulty(fault: Fault, at: u32) -> bool {
    let config = json!({ "require_plan_approval": true });
    let rig = team_on(
        config,
        json!({}),
        |role, request| match role {
            Role::Planner => plan(&[
                step("x", "b", &[]),
                step("y", "c", &[]),
                step("z", "d", &["x", "y"]),
            ]),
            role => simple(role, request),
        },
        |inner| {
            let appends = AtomicU32::new(0);
            Arc::new(Intercepted::new(inner, Faulty { at, fault, appends }))
        },
    )
    .await;
    let id = submit(&rig, json!({})).await;
    let context = format!("{fault:?} at append {at}");
    let work = async {
        loop {
            let row = rig.store.execution(id).await.unwrap().unwrap();
            if let Some(outcome) = row.outcome {
                return outcome;
            }
            if row.status == Status::WaitingForInput {
                let input = NewInput {
                    id,
                    request: None,
                    answer: Answer::Approve,
                    by: "ada".to_owned(),
                    now: Utc::now(),
                };
                rig.engine.answer(input).await.unwrap();
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(30), work)
        .await
        .unwrap_or_else(|_| panic!("{context}: it does not end"));
    assert_eq!(output(&outcome), "done", "{context}");
    let team = folded(&rig, id).await;
    assert_eq!(team.contributions.len(), 3, "{context}: each step once");
    let filter = store::ExecutionFilter {
        parent: Some(id),
        ..Default::default()
    };
    let page = store::Page {
        limit: 100,
        after: None,
    };
    let (children, _) = rig.store.executions(filter, page).await.unwrap();
    assert_eq!(children.len(), 3, "{context}: a child was started twice");
    let steps = rig.store.steps(id, None, 1000).await.unwrap();
    steps.iter().any(|step| step.epoch.get() > 1) || children.iter().any(|c| c.crashes > 0)
}

#[tokio::test(flavor = "multi_thread")]
async fn cancellation_and_deadline_reach_every_child() {
    for is_cancelled in [true, false] {
        let rig = team(json!({}), |role, request| match role {
            Role::Planner => plan(&[step("x", "b", &[]), step("y", "c", &[])]),
            Role::Agent(_) => Say::Hang,
            role => simple(role, request),
        })
        .await;
        let task = NewTask {
            timeout: (!is_cancelled).then(|| Duration::from_millis(800)),
            ..NewTask::new("a", json!("go"), "1".repeat(32).parse().unwrap())
        };
        let id = rig.engine.submit(task).await.unwrap().id;
        until(async || rig.model.open.load(Ordering::SeqCst) == 2).await;
        if is_cancelled {
            rig.engine.cancel(id, "me", "").await.unwrap();
        }
        let end = rig.outcome(id).await.status();
        let wanted = [Status::Timeout, Status::Cancelled][usize::from(is_cancelled)];
        assert_eq!(end, wanted);
        until(async || rig.model.open.load(Ordering::SeqCst) == 0).await;
        for (_, child) in folded(&rig, id).await.running() {
            until(async || {
                let row = rig.store.execution(child).await.unwrap().unwrap();
                row.status.is_terminal()
            })
            .await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_budget_is_shared_out_and_holds_for_all_together() {
    let config = json!({ "max_parallel_steps": 4 });
    let extra = json!({ "budget": { "max_tokens": 60_000, "max_tool_calls": 9 } });
    let rig = team_on(
        config,
        extra,
        |role, request| match role {
            Role::Planner => plan(&["1", "2", "3", "4"].map(|id| step(id, "b", &[]))),
            role => simple(role, request),
        },
        |store| store,
    )
    .await;
    let id = submit(&rig, json!({})).await;
    assert_eq!(output(&rig.outcome(id).await), "done");
    let mut granted = 0;
    for done in folded(&rig, id).await.contributions {
        let row = rig
            .store
            .execution(done.execution_id)
            .await
            .unwrap()
            .unwrap();
        let budget = row.execution.budget;
        granted += budget.max_tokens.unwrap().0;
        assert_eq!(budget.max_tool_calls, Some(1));
    }
    assert!(granted > 30_000 && granted <= 60_000 * 4 / 5, "{granted}");

    // A fifth start would be a tenth call.
    let extra = json!({ "budget": { "max_tool_calls": 3 } });
    let rig = team_on(
        json!({}),
        extra,
        |role, request| match role {
            Role::Planner => plan(&["1", "2", "3", "4"].map(|id| step(id, "b", &[]))),
            role => simple(role, request),
        },
        |store| store,
    )
    .await;
    let id = submit(&rig, json!({})).await;
    let outcome = rig.outcome(id).await;
    assert_eq!(failure(&outcome).0, FailureCode::BudgetExceeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_goes_wrong_at_any_commit_each_step_is_done_once() {
    let runs = [Fault::Before, Fault::After, Fault::LoseLease]
        .into_iter()
        .flat_map(|fault| (0..12).map(move |at| tokio::spawn(faulty(fault, at))));
    for run in runs.collect::<Vec<_>>() {
        run.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn another_goes_on_with_a_plan_that_was_begun() {
    let rig = team(json!({}), |role, request| match role {
        Role::Planner => plan(&[step("x", "b", &[]), step("y", "c", &["x"])]),
        Role::Agent(name) if name == "b" => Say::Late(Duration::from_millis(300), "b did it"),
        role => simple(role, request),
    })
    .await;
    let id = submit(&rig, json!({})).await;
    until(async || rig.model.asked.load(Ordering::SeqCst) >= 2).await;
    rig.engine.shutdown(Duration::from_millis(10)).await;
    let second = rig.another("w2");
    second.start();
    assert_eq!(output(&crate::rig::outcome(&second, id).await), "done");
    let team = folded(&rig, id).await;
    assert_eq!(team.contributions.len(), 2);
}
