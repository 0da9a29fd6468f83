//! What was over long ago goes, and nothing else does.

use domain::{Execution, ExecutionId, Seq, Time};
use store::{Append, Cleaned, Cleanup, Page, Store, Submitted, Then, UsageFilter};
use uuid::{NoContext, Timestamp, Uuid};

use super::Fixture;
use super::given::{
    append, at, child, claim_this, commit, finish, leased, model_call, note, park, question,
    submission, submit, task,
};

/// A time long ago, in seconds after a beginning.
pub(crate) fn once(seconds: i64) -> Time {
    Time::from_timestamp(1_578_000_000 + seconds, 0).unwrap()
}

/// A task from that time.
pub(crate) fn old_task(agent: &str) -> Execution {
    let seconds = u64::try_from(once(0).timestamp()).unwrap();
    let made = Timestamp::from_unix(NoContext, seconds, 0);
    Execution {
        id: ExecutionId::from_uuid(Uuid::new_v7(made)),
        created_at: once(0),
        deadline: once(3600),
        ..task(agent)
    }
}

/// Performs a task of then to its end.
pub(crate) async fn over(store: &dyn Store, execution: Execution) -> ExecutionId {
    let owner = leased(store, execution).await;
    let steps = vec![
        model_call(&owner, 1, "gpt"),
        question(&owner, 2),
        note(&owner, 3),
    ];
    commit(store, append(&owner, once(1), steps, finish())).await;
    owner.execution.id
}

pub(crate) async fn cleanup(store: &dyn Store, dry_run: bool) -> Cleaned {
    let before = once(24 * 3600);
    store.cleanup(Cleanup { before, dry_run }).await.unwrap()
}

async fn total(store: &dyn Store) -> u64 {
    let stats = store.agent_stats(None).await.unwrap();
    stats.iter().map(|agent| agent.total).sum()
}

pub(crate) async fn what_was_over_long_ago_goes_with_all_that_is_its(f: &impl Fixture) {
    let store = f.store();
    let mut started = old_task("a");
    started.event_id = Some("e-1".parse().unwrap());
    let by_event = over(&*store, started.clone()).await;
    let plain = over(&*store, old_task("a")).await;
    let waits = leased(&*store, old_task("a")).await;
    commit(
        &*store,
        append(&waits, once(1), vec![note(&waits, 1)], park(once(9), 0)),
    )
    .await;
    let young = over(&*store, task("a")).await;
    let usage = store.usage(UsageFilter::default()).await.unwrap();

    assert_eq!(cleanup(&*store, true).await.executions, 2);
    assert_eq!(total(&*store).await, 4, "nothing is gone yet");
    let cleaned = cleanup(&*store, false).await;
    assert_eq!((cleaned.executions, cleaned.has_more), (2, false));
    assert_eq!(cleanup(&*store, false).await.executions, 0);

    for gone in [by_event, plain] {
        assert!(store.execution(gone).await.unwrap().is_none());
        assert!(store.steps(gone, None, 10).await.unwrap().is_empty());
    }
    assert_eq!(total(&*store).await, 2);
    assert_eq!(store.usage(UsageFilter::default()).await.unwrap(), usage);
    let kept = store.execution(waits.execution.id).await.unwrap().unwrap();
    assert_eq!((kept.steps, kept.outcome), (1, None));
    assert!(store.execution(young).await.unwrap().is_some());
    let page = Page {
        limit: 10,
        after: None,
    };
    let (rows, counted) = store.executions(Default::default(), page).await.unwrap();
    assert_eq!((rows.len(), counted.count), (2, 2));
    // The event is forgotten with what it started.
    started.id = super::given::new_id();
    let again = store.submit(submission(started)).await.unwrap();
    assert_eq!(again, Submitted::New);
}

pub(crate) async fn what_goes_on_keeps_its_children(f: &impl Fixture) {
    let store = f.store();
    let parent = leased(&*store, old_task("a")).await;
    let id = parent.execution.id;
    let mut first = child(id, "b");
    first.created_at = once(0);
    let step = super::given::step(
        &parent,
        1,
        domain::StepBody::Note {
            text: "delegated".to_owned(),
        },
    );
    commit(
        &*store,
        Append {
            children: vec![submission(first.clone())],
            ..append(&parent, once(1), vec![step], Then::Continue)
        },
    )
    .await;
    let owner = claim_this(&*store, first.id, once(2)).await.unwrap();
    commit(
        &*store,
        append(&owner, once(2), vec![note(&owner, 1)], finish()),
    )
    .await;
    assert_eq!(cleanup(&*store, true).await.executions, 0);
    assert_eq!(cleanup(&*store, false).await.executions, 0);
    let waiting = store.waiting(id).await.unwrap();
    assert_eq!(waiting.children.len(), 1, "its end is still to be told");
    commit(
        &*store,
        append(&parent, once(3), vec![note(&parent, 2)], finish()),
    )
    .await;
    assert_eq!(cleanup(&*store, false).await.executions, 2);
    assert!(
        store
            .steps(first.id, Some(Seq::new(0)), 1)
            .await
            .unwrap()
            .is_empty()
    );
    submit(&*store, task("a")).await;
    assert_eq!(super::given::claim(&*store, 10, at(1)).await.len(), 1);
}

pub(crate) async fn much_goes_a_little_at_a_time(f: &impl Fixture) {
    let store = f.store();
    for _ in 0..230 {
        let id = submit(&*store, old_task("a")).await;
        store.cancel(id, "me", "", once(1)).await.unwrap();
    }
    assert_eq!(cleanup(&*store, true).await.executions, 230);
    assert_eq!(cleanup(&*store, false).await.executions, 230);
    assert!(store.agent_stats(None).await.unwrap().is_empty());
}
