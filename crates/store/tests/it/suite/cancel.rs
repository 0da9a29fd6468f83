//! Asking for the end.

use domain::execution::Totals;
use domain::{Outcome, Status, StepBody};
use store::{CancelAnswer, Renewal, Signal, Then};

use super::Fixture;
use super::given::{
    append, at, child, claim, claim_one, claim_this, commit, ended, finish, leased, new_id, notes,
    park, submission, submit, task, worker,
};

fn cancelled(by: &str, reason: &str) -> Outcome {
    Outcome::Cancelled {
        by: by.to_owned(),
        reason: reason.to_owned(),
    }
}

pub(crate) async fn unbegun_work_ends_at_once(f: &impl Fixture) {
    let store = f.store();
    let id = submit(&*store, task("a")).await;
    let answer = store.cancel(id, "me", "not needed", at(2)).await.unwrap();
    assert_eq!(answer, CancelAnswer::Accepted);
    let row = store.execution(id).await.unwrap().unwrap();
    assert_eq!((row.status, row.due_at), (Status::Cancelled, None));
    assert_eq!(row.outcome, Some(cancelled("me", "not needed")));
    assert_eq!((row.finished_at, row.steps), (Some(at(2)), 1));
    let steps = store.steps(id, None, 10).await.unwrap();
    assert_eq!(
        steps
            .iter()
            .map(|s| (s.seq.get(), s.body.clone()))
            .collect::<Vec<_>>(),
        [(
            1,
            StepBody::Finished {
                outcome: cancelled("me", "not needed")
            }
        )]
    );
    assert!(claim(&*store, 10, at(9999)).await.is_empty());
}

pub(crate) async fn a_parked_execution_is_woken(f: &impl Fixture) {
    let store = f.store();
    let owner = leased(&*store, task("a")).await;
    let id = owner.execution.id;
    commit(
        &*store,
        append(&owner, at(1), notes(&owner, 1, 1), park(at(900), 0)),
    )
    .await;
    assert_eq!(
        store.cancel(id, "me", "r", at(2)).await.unwrap(),
        CancelAnswer::Accepted
    );
    let woken = claim_one(&*store, at(2)).await;
    let wish = woken.waiting.cancel.unwrap();
    assert_eq!((wish.by.as_str(), wish.reason.as_str()), ("me", "r"));
    assert_eq!((woken.waiting.wakes, woken.crashes), (1, 0));
}

pub(crate) async fn a_leased_execution_is_told_at_renewal(f: &impl Fixture) {
    let store = f.store();
    let owner = leased(&*store, task("a")).await;
    let id = owner.execution.id;
    assert_eq!(
        store.cancel(id, "me", "r", at(2)).await.unwrap(),
        CancelAnswer::Accepted
    );
    let row = store.execution(id).await.unwrap().unwrap();
    assert_eq!(
        (row.status, row.due_at),
        (Status::Running, Some(at(10))),
        "the lease is left alone"
    );
    assert_eq!(row.cancel.unwrap().by, "me");
    let renewal = Renewal {
        worker: worker("w1"),
        leases: vec![(id, owner.epoch)],
        now: at(3),
        until: at(13),
    };
    assert_eq!(
        store.renew(renewal).await.unwrap(),
        [Signal::Woken { id, wakes: 1 }]
    );
    assert_eq!(store.waiting(id).await.unwrap().cancel.unwrap().reason, "r");
}

pub(crate) async fn what_is_over_stays_over(f: &impl Fixture) {
    let store = f.store();
    let owner = leased(&*store, task("a")).await;
    let id = owner.execution.id;
    commit(&*store, append(&owner, at(1), Vec::new(), finish())).await;
    let over = CancelAnswer::AlreadyOver(Status::Completed);
    assert_eq!(store.cancel(id, "me", "", at(2)).await.unwrap(), over);
    let unknown = store.cancel(new_id(), "me", "", at(2)).await.unwrap();
    assert_eq!(unknown, CancelAnswer::NotFound);
    let unbegun = submit(&*store, task("a")).await;
    store.cancel(unbegun, "me", "", at(2)).await.unwrap();
    let over = CancelAnswer::AlreadyOver(Status::Cancelled);
    assert_eq!(store.cancel(unbegun, "you", "", at(3)).await.unwrap(), over);
}

pub(crate) async fn the_first_wish_counts(f: &impl Fixture) {
    let store = f.store();
    let owner = leased(&*store, task("a")).await;
    let id = owner.execution.id;
    for by in ["first", "second"] {
        assert_eq!(
            store.cancel(id, by, "", at(2)).await.unwrap(),
            CancelAnswer::Accepted
        );
    }
    let waiting = store.waiting(id).await.unwrap();
    assert_eq!(
        (waiting.cancel.unwrap().by.as_str(), waiting.wakes),
        ("first", 1)
    );
}

pub(crate) async fn an_unbegun_child_that_ends_wakes_its_parent(f: &impl Fixture) {
    let store = f.store();
    let parent = leased(&*store, task("a")).await;
    let id = parent.execution.id;
    let child = child(id, "b");
    let mut start = append(&parent, at(1), notes(&parent, 1, 1), park(at(900), 0));
    start.children = vec![submission(child.clone())];
    commit(&*store, start).await;
    store.cancel(child.id, "me", "r", at(2)).await.unwrap();
    let woken = claim_this(&*store, id, at(2)).await.unwrap();
    assert_eq!(
        woken.waiting.children,
        [ended(child.id, cancelled("me", "r"), Totals::default())]
    );
}

/// Also when the one that they work for does not come to its own end: its worker may be dead.
pub(crate) async fn a_wish_reaches_all_that_work_for_it(f: &impl Fixture) {
    let store = f.store();
    let parent = leased(&*store, task("a")).await;
    let id = parent.execution.id;
    let working = child(id, "b");
    let mut start = append(&parent, at(1), notes(&parent, 1, 1), Then::Continue);
    start.children = vec![submission(working.clone())];
    commit(&*store, start).await;
    let working = claim_this(&*store, working.id, at(1)).await.unwrap();
    let parked = child(working.execution.id, "c");
    let mut start = append(&working, at(1), notes(&working, 1, 1), Then::Continue);
    start.children = vec![submission(parked.clone())];
    commit(&*store, start).await;
    let parked = claim_this(&*store, parked.id, at(1)).await.unwrap();
    let unbegun = child(parked.execution.id, "d");
    let mut start = append(&parked, at(1), notes(&parked, 1, 1), park(at(900), 0));
    start.children = vec![submission(unbegun.clone())];
    commit(&*store, start).await;

    store.cancel(id, "me", "r", at(2)).await.unwrap();
    // To ask again wakes nobody again.
    store.cancel(id, "you", "", at(3)).await.unwrap();
    for one in [working.execution.id, parked.execution.id, unbegun.id] {
        let waiting = store.waiting(one).await.unwrap();
        let wish = waiting.cancel.expect("a wish");
        let told = ("its parent", cancelled("me", "r").reason());
        assert_eq!((wish.by.as_str(), wish.reason), told);
        assert_eq!(waiting.wakes, 1);
    }
    let row = store.execution(parked.execution.id).await.unwrap().unwrap();
    assert_eq!(row.due_at, Some(at(2)), "what was parked is due at once");
}
