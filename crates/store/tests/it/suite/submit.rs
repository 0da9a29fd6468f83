//! Accepting work.

use domain::execution::{Origin, Totals};
use domain::{Epoch, Execution, ExecutionId, Status, Step};
use serde_json::{Value, json};
use store::{IdempotencyKey, InboxFilter, Submission, Submitted, Then};

use super::Fixture;
use super::given::{
    append, at, claim, claim_one, claim_this, commit, event, finish, leased, new_id, note,
    outgoing, park, question, submission, submit, task,
};

fn keyed(agent: &str, key: &str, body: &str) -> Submission {
    let mut submission = submission(task(agent));
    submission.idempotency = Some(IdempotencyKey {
        key: key.to_owned(),
        body_hash: body.to_owned(),
    });
    submission
}

pub(crate) async fn accepted_work_is_due_at_once(f: &impl Fixture) {
    let store = f.store();
    let mut submission = submission(task("a"));
    submission.events = vec![event("e1"), event("e2")];
    let execution = submission.execution.clone();
    assert_eq!(store.submit(submission).await.unwrap(), Submitted::New);
    let row = store.execution(execution.id).await.unwrap().unwrap();
    assert_eq!(row.execution, execution);
    assert_eq!((row.status, row.due_at), (Status::Queued, Some(at(0))));
    assert_eq!(outgoing(&*store).await, ["e1", "e2"]);
    assert_eq!(claim_one(&*store, at(0)).await.execution, execution);
}

pub(crate) async fn the_same_id_is_accepted_once(f: &impl Fixture) {
    let store = f.store();
    let first = task("a");
    let mut again = submission(first.clone());
    again.execution.input = json!("something else");
    again.events = vec![event("late")];
    submit(&*store, first.clone()).await;
    assert_eq!(
        store.submit(again).await.unwrap(),
        Submitted::Existing(first.id)
    );
    let row = store.execution(first.id).await.unwrap().unwrap();
    assert_eq!(row.execution, first);
    assert!(outgoing(&*store).await.is_empty());
}

pub(crate) async fn fifty_concurrent_duplicates_are_one(f: &impl Fixture) {
    let store = f.store();
    let calls: Vec<_> = (0..50)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move { store.submit(keyed("a", "k", "h")).await.unwrap() })
        })
        .collect();
    let mut new = 0;
    let mut existing = Vec::new();
    for call in calls {
        match call.await.unwrap() {
            Submitted::New => new += 1,
            Submitted::Existing(id) => existing.push(id),
            other => panic!("the body is the same: {other:?}"),
        }
    }
    assert_eq!((new, existing.len()), (1, 49));
    let claimed = claim(&*store, 100, at(0)).await;
    assert_eq!(claimed.len(), 1);
    assert!(existing.iter().all(|id| *id == claimed[0].execution.id));
}

pub(crate) async fn another_body_under_the_same_key_is_refused(f: &impl Fixture) {
    let store = f.store();
    assert_eq!(
        store.submit(keyed("a", "k", "h")).await.unwrap(),
        Submitted::New
    );
    assert_eq!(
        store.submit(keyed("a", "k", "other")).await.unwrap(),
        Submitted::KeyMismatch
    );
    assert_eq!(
        store.submit(keyed("a", "k2", "other")).await.unwrap(),
        Submitted::New
    );
    assert_eq!(claim(&*store, 100, at(0)).await.len(), 2);
}

pub(crate) async fn a_key_is_forgotten_after_a_day(f: &impl Fixture) {
    let store = f.store();
    let day = 24 * 60 * 60;
    assert_eq!(
        store.submit(keyed("a", "k", "h")).await.unwrap(),
        Submitted::New
    );
    for (seconds, expected_new) in [(day - 1, false), (day, true), (day + 5, false)] {
        let mut later = keyed("a", "k", "h");
        later.execution.created_at = at(seconds);
        let answer = store.submit(later).await.unwrap();
        assert_eq!(
            answer == Submitted::New,
            expected_new,
            "after {seconds} s: {answer:?}"
        );
    }
}

pub(crate) async fn one_agent_and_event_start_one_execution(f: &impl Fixture) {
    let store = f.store();
    let from_event = |agent: &str, event: &str| {
        let mut submission = submission(task(agent));
        submission.execution.event_id = Some(event.parse().unwrap());
        submission
    };
    let first = from_event("a", "e");
    let id = first.execution.id;
    assert_eq!(store.submit(first).await.unwrap(), Submitted::New);
    assert_eq!(
        store.submit(from_event("a", "e")).await.unwrap(),
        Submitted::Existing(id)
    );
    assert_eq!(
        store.submit(from_event("b", "e")).await.unwrap(),
        Submitted::New
    );
    assert_eq!(
        store.submit(from_event("a", "e2")).await.unwrap(),
        Submitted::New
    );
    // Also when the execution is over.
    for owner in claim(&*store, 10, at(0)).await {
        commit(&*store, append(&owner, at(1), Vec::new(), finish())).await;
    }
    assert_eq!(
        store.submit(from_event("a", "e")).await.unwrap(),
        Submitted::Existing(id)
    );
}

pub(crate) async fn what_can_not_be_read_again_is_refused(f: &impl Fixture) {
    let store = f.store();
    let mut deep = task("a");
    deep.id = new_id();
    deep.input = (0..500).fold(Value::Null, |inner, _| json!([inner]));
    let id = deep.id;
    let error = store.submit(submission(deep)).await.unwrap_err();
    assert!(error.to_string().contains("nested"), "{error}");
    assert!(store.execution(id).await.unwrap().is_none());
}

pub(crate) async fn the_steps_of_an_origin_are_shared_in_the_same_transaction(f: &impl Fixture) {
    let store = f.store();
    let first = leased(&*store, task("a")).await;
    let steps = vec![note(&first, 1), question(&first, 2), note(&first, 3)];
    commit(&*store, append(&first, at(1), steps, park(at(600), 0))).await;
    let id = submit(&*store, from(first.execution.id, 2)).await;
    let shared: Vec<Step> = store
        .steps(first.execution.id, None, 2)
        .await
        .unwrap()
        .into_iter()
        .map(|step| Step {
            epoch: Epoch::NONE,
            ..step
        })
        .collect();
    assert_eq!(store.steps(id, None, 10).await.unwrap(), shared);
    let row = store.execution(id).await.unwrap().unwrap();
    assert_eq!((row.steps, row.totals), (2, Totals::default()));
    // The other one's question is nobody's question here, and its own steps follow.
    let owner = claim_this(&*store, id, at(1)).await.unwrap();
    assert_eq!(owner.steps, shared);
    let filter = InboxFilter {
        agents: Vec::new(),
        execution: Some(id),
        kind: None,
        now: at(1),
        after: None,
        limit: 10,
    };
    assert_eq!(store.inbox(filter).await.unwrap().1, 0);
    commit(
        &*store,
        append(&owner, at(2), vec![note(&owner, 3)], finish()),
    )
    .await;
    // The other one is as it was.
    let row = store.execution(first.execution.id).await.unwrap().unwrap();
    assert_eq!((row.steps, row.status), (3, Status::Running));
}

pub(crate) async fn what_is_not_there_is_not_shared(f: &impl Fixture) {
    let store = f.store();
    let first = leased(&*store, task("a")).await;
    commit(
        &*store,
        append(&first, at(1), vec![note(&first, 1)], Then::Continue),
    )
    .await;
    for origin in [from(new_id(), 1), from(first.execution.id, 2)] {
        let id = origin.id;
        let mut wanted = submission(origin);
        wanted.idempotency = Some(IdempotencyKey {
            key: "k".to_owned(),
            body_hash: "h".to_owned(),
        });
        assert_eq!(store.submit(wanted).await.unwrap(), Submitted::NoOrigin);
        assert!(store.execution(id).await.unwrap().is_none());
    }
    // The key is free still.
    let mut wanted = submission(from(first.execution.id, 1));
    wanted.idempotency = Some(IdempotencyKey {
        key: "k".to_owned(),
        body_hash: "h".to_owned(),
    });
    assert_eq!(store.submit(wanted).await.unwrap(), Submitted::New);
}

/// A task that begins where another one was.
fn from(id: ExecutionId, steps: u32) -> Execution {
    let mut execution = task("a");
    execution.origin = Some(Origin {
        id,
        steps,
        message: None,
        seams: Vec::new(),
    });
    execution
}
