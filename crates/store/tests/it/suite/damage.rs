//! Rows that can't be read harm one execution.

use domain::{ExecutionId, Failure, FailureCode, Outcome, Seq, Status, StepBody};
use store::{Class, ExecutionFilter, Page, Store, Then};

use super::Fixture;
use super::given::{append, at, claim, commit, leased, notes, submit, task};

/// Claims everything; the damaged one must have ended in its place.
async fn ends_as_corrupt(store: &dyn Store, damaged: ExecutionId) {
    let healthy = submit(store, task("a")).await;
    let claimed = claim(store, 10, at(10)).await;
    let ids: Vec<_> = claimed.iter().map(|c| c.execution.id).collect();
    assert_eq!(ids, [healthy], "the others go on");
    let cancelled = store.cancel(damaged, "me", "", at(11)).await.unwrap();
    assert_eq!(cancelled, store::CancelAnswer::AlreadyOver(Status::Failed));
    assert!(claim(store, 10, at(19)).await.is_empty());
}

fn is_corrupt(outcome: &Outcome) -> bool {
    matches!(
        outcome,
        Outcome::Failed(Failure {
            code: FailureCode::Corrupt,
            ..
        })
    )
}

pub(crate) async fn an_unreadable_step_ends_its_execution_alone(f: &impl Fixture) {
    let store = f.store();
    let owner = leased(&*store, task("a")).await;
    let id = owner.execution.id;
    commit(
        &*store,
        append(&owner, at(1), notes(&owner, 1, 3), Then::Continue),
    )
    .await;
    f.damage_step(id, Seq::new(2)).await;
    let error = store.steps(id, None, 10).await.unwrap_err();
    assert_eq!(error.class(), Class::Corrupt);
    assert!(error.to_string().contains("step 2"), "{error}");
    ends_as_corrupt(&*store, id).await;
    let row = store.execution(id).await.unwrap().unwrap();
    assert!(is_corrupt(row.outcome.as_ref().unwrap()));
    assert_eq!((row.steps, row.due_at), (4, None));
    let last = store.steps(id, Some(Seq::new(3)), 10).await.unwrap();
    assert!(matches!(&last[0].body, StepBody::Finished { outcome } if is_corrupt(outcome)));
}

pub(crate) async fn a_missing_step_ends_its_execution(f: &impl Fixture) {
    for gone in [1, 3] {
        let store = f.store();
        let owner = leased(&*store, task("a")).await;
        let id = owner.execution.id;
        commit(
            &*store,
            append(&owner, at(1), notes(&owner, 1, 3), Then::Continue),
        )
        .await;
        f.remove_step(id, Seq::new(gone)).await;
        let mut wish = super::given::wish(1, at(10));
        wish.only = Some(id);
        assert!(store.claim(wish).await.unwrap().is_empty());
        let row = store.execution(id).await.unwrap().unwrap();
        assert_eq!(row.status, Status::Failed);
        assert!(row.status_reason.unwrap().contains("2 of its 3 steps"));
    }
}

pub(crate) async fn an_unreadable_task_ends_its_execution(f: &impl Fixture) {
    let store = f.store();
    let damaged = submit(&*store, task("a")).await;
    f.damage_task(damaged).await;
    ends_as_corrupt(&*store, damaged).await;
}

pub(crate) async fn an_unreadable_row_hides_no_other(f: &impl Fixture) {
    let store = f.store();
    let damaged = submit(&*store, task("a")).await;
    let healthy = submit(&*store, task("a")).await;
    f.damage_task(damaged).await;
    assert_eq!(
        store.execution(damaged).await.unwrap_err().class(),
        Class::Corrupt
    );
    let page = Page {
        limit: 10,
        after: None,
    };
    let (rows, total) = store
        .executions(ExecutionFilter::default(), page)
        .await
        .unwrap();
    let ids: Vec<_> = rows.iter().map(|row| row.execution.id).collect();
    assert_eq!((ids.as_slice(), total.count), ([healthy].as_slice(), 2));
}
