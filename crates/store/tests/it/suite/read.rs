//! Executions as they stand.

use domain::{Epoch, ExecutionId, Status};
use store::{AgentStats, Certainty, Class, ExecutionFilter, Page, Total};

use super::Fixture;
use super::given::{
    append, at, child, claim_this, commit, event, finish, leased, new_id, notes, park, submission,
    submit, task, worker,
};

fn page(limit: usize) -> Page {
    Page { limit, after: None }
}

pub(crate) async fn executions_are_listed_newest_first_page_by_page(f: &impl Fixture) {
    let store = f.store();
    let mut expected = Vec::new();
    for n in 0..25 {
        let mut task = task("a");
        // Several of one moment: the id decides.
        task.created_at = at(n / 4);
        expected.push((task.created_at, task.id));
        submit(&*store, task).await;
    }
    expected.sort_by(|a, b| b.cmp(a));
    let mut found = Vec::new();
    let mut next = page(7);
    loop {
        let (rows, total) = store
            .executions(ExecutionFilter::default(), next.clone())
            .await
            .unwrap();
        assert_eq!(total, Total::exactly(25));
        let Some(last) = rows.last() else { break };
        next.after = Some((last.execution.created_at, last.execution.id.to_string()));
        found.extend(
            rows.iter()
                .map(|row| (row.execution.created_at, row.execution.id)),
        );
    }
    assert_eq!(found, expected);
}

pub(crate) async fn filters_select_and_count(f: &impl Fixture) {
    let store = f.store();
    let plain = submit(&*store, task("a")).await;
    let mut talk = task("a");
    talk.conversation = Some("c".parse().unwrap());
    talk.created_at = at(5);
    let (talk, trace) = (talk.clone(), talk.trace_id.clone());
    let talk = leased(&*store, talk).await.execution.id;
    let mut delegated = child(plain, "b");
    delegated.created_at = at(9);
    let delegated = submit(&*store, delegated).await;
    let check = async |filter: ExecutionFilter, expected: &[ExecutionId]| {
        let (rows, total) = store.executions(filter.clone(), page(10)).await.unwrap();
        let ids: Vec<_> = rows.iter().map(|row| row.execution.id).collect();
        assert_eq!(
            (ids.as_slice(), total),
            (expected, Total::exactly(expected.len() as u64)),
            "{filter:?}"
        );
    };
    // What is not said is as it is in a filter that lets everything through.
    let filter = |set: &dyn Fn(&mut ExecutionFilter)| {
        let mut filter = ExecutionFilter::default();
        set(&mut filter);
        filter
    };
    check(filter(&|_| {}), &[delegated, talk, plain]).await;
    check(
        filter(&|f| f.agent = Some("a".parse().unwrap())),
        &[talk, plain],
    )
    .await;
    check(
        filter(&|f| f.status = vec![Status::Queued]),
        &[delegated, plain],
    )
    .await;
    let queued_of_a = |f: &mut ExecutionFilter| {
        f.agent = Some("a".parse().unwrap());
        f.status = vec![Status::Queued];
    };
    check(filter(&queued_of_a), &[plain]).await;
    let both = vec![Status::Queued, Status::Running];
    check(
        filter(&|f| f.status = both.clone()),
        &[delegated, talk, plain],
    )
    .await;
    check(filter(&|f| f.trace_id = Some(trace.clone())), &[talk]).await;
    check(
        filter(&|f| f.conversation = Some("c".parse().unwrap())),
        &[talk],
    )
    .await;
    check(filter(&|f| f.parent = Some(plain)), &[delegated]).await;
    check(
        filter(&|f| f.created_after = Some(at(5))),
        &[delegated, talk],
    )
    .await;
    check(filter(&|f| f.created_before = Some(at(9))), &[talk, plain]).await;
    let between = |f: &mut ExecutionFilter| {
        f.created_after = Some(at(5));
        f.created_before = Some(at(9));
    };
    check(filter(&between), &[talk]).await;
}

pub(crate) async fn stats_count_each_state(f: &impl Fixture) {
    let store = f.store();
    submit(&*store, task("b")).await;
    submit(&*store, task("a")).await;
    leased(&*store, task("a")).await;
    let parked = leased(&*store, task("a")).await;
    commit(
        &*store,
        append(&parked, at(1), Vec::new(), park(at(900), 0)),
    )
    .await;
    let done = leased(&*store, task("a")).await;
    commit(&*store, append(&done, at(1), Vec::new(), finish())).await;
    let late = leased(&*store, task("a")).await;
    let then = store::Then::Finish {
        outcome: domain::Outcome::Timeout {
            message: "late".to_owned(),
        },
        messages: Vec::new(),
        digest: None,
    };
    commit(&*store, append(&late, at(1), Vec::new(), then)).await;
    let unwanted = submit(&*store, task("a")).await;
    store.cancel(unwanted, "me", "", at(1)).await.unwrap();
    let expected = |agent: &str, active, queued, total, completed, failed| AgentStats {
        agent: agent.parse().unwrap(),
        active,
        queued,
        total,
        completed,
        failed,
    };
    let (a, b) = (expected("a", 2, 1, 6, 1, 1), expected("b", 0, 1, 1, 0, 0));
    assert_eq!(store.agent_stats(None).await.unwrap(), [a.clone(), b]);
    assert_eq!(store.agent_stats(Some(&a.agent)).await.unwrap(), [a]);
    let nobody = "nobody".parse().unwrap();
    assert!(store.agent_stats(Some(&nobody)).await.unwrap().is_empty());
}

pub(crate) async fn a_row_tells_how_it_stands(f: &impl Fixture) {
    let store = f.store();
    let owner = leased(&*store, task("a")).await;
    let id = owner.execution.id;
    commit(
        &*store,
        append(&owner, at(4), notes(&owner, 1, 2), store::Then::Continue),
    )
    .await;
    store.cancel(id, "me", "why not", at(5)).await.unwrap();
    let row = store.execution(id).await.unwrap().unwrap();
    assert_eq!(
        (row.status, row.steps, row.crashes),
        (Status::Running, 2, 0)
    );
    assert_eq!((row.worker, row.epoch), (Some(worker("w1")), Epoch::new(1)));
    assert_eq!(
        (row.started_at, row.heartbeat_at),
        (Some(at(0)), Some(at(4)))
    );
    assert_eq!(
        (row.finished_at, row.outcome, row.due_at),
        (None, None, Some(at(10)))
    );
    assert_eq!(row.cancel.unwrap().reason, "why not");
}

pub(crate) async fn nothing_is_found_in_an_empty_store(f: &impl Fixture) {
    let store = f.store();
    store.check().await.unwrap();
    assert!(store.execution(new_id()).await.unwrap().is_none());
    assert!(store.steps(new_id(), None, 10).await.unwrap().is_empty());
    assert!(claim_this(&*store, new_id(), at(0)).await.is_none());
    let waiting = store.waiting(new_id()).await.unwrap();
    assert_eq!((waiting.wakes, waiting.inputs.len()), (0, 0));
    let (rows, total) = store
        .executions(ExecutionFilter::default(), page(10))
        .await
        .unwrap();
    assert_eq!((rows.len(), total), (0, Total::exactly(0)));
    assert!(store.outbox(10).await.unwrap().is_empty());
}

pub(crate) async fn a_closed_store_refuses(f: &impl Fixture) {
    let store = f.store();
    submit(&*store, task("a")).await;
    store.close().await.unwrap();
    store.close().await.unwrap();
    let error = store.submit(submission(task("a"))).await.unwrap_err();
    assert_eq!(
        (error.class(), error.certainty()),
        (Class::Unavailable, Certainty::NotApplied)
    );
    assert!(store.publish(&[event("e")]).await.is_err());
    assert!(store.execution(new_id()).await.is_err());
    assert!(store.check().await.is_err());
}
