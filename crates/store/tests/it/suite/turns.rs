//! Conversations: their executions are performed in order, one at a time.

use std::collections::BTreeSet;

use domain::{Execution, ExecutionId, Failure, FailureCode, Outcome, Status};
use store::{
    CancelAnswer, Claimed, Digest, IdempotencyKey, Store, Submission, Submitted, Then, WhenBusy,
};

use super::Fixture;
use super::given::{
    append, at, claim, claim_one, claim_this, commit, done, finish, park, said, submission, submit,
    task,
};

/// A message of conversation `c` with agent `a`.
fn message() -> Execution {
    let mut message = task("a");
    message.conversation = Some("c".parse().unwrap());
    message
}

fn refusing() -> Submission {
    Submission {
        when_busy: WhenBusy::Refuse,
        ..submission(message())
    }
}

async fn say(store: &dyn Store, n: usize) -> Vec<ExecutionId> {
    let mut ids = Vec::new();
    for _ in 0..n {
        ids.push(submit(store, message()).await);
    }
    ids
}

async fn end(store: &dyn Store, owner: &Claimed) {
    commit(store, append(owner, at(5), Vec::new(), finish())).await;
}

pub(crate) async fn one_conversation_is_performed_in_order(f: &impl Fixture) {
    let store = f.store();
    let ids = say(&*store, 3).await;
    for id in &ids {
        let owner = claim_one(&*store, at(5)).await;
        assert_eq!(owner.execution.id, *id);
        assert!(!owner.waits_turn);
        assert!(claim(&*store, 10, at(5)).await.is_empty(), "one at a time");
        // Nor while it is parked, nor by a hint.
        commit(&*store, append(&owner, at(5), Vec::new(), park(at(60), 0))).await;
        assert!(claim(&*store, 10, at(5)).await.is_empty());
        if let Some(last) = ids.last().filter(|last| *last != id) {
            assert!(claim_this(&*store, *last, at(5)).await.is_none());
            let row = store.execution(*last).await.unwrap().unwrap();
            assert_eq!(row.status, Status::Queued);
        }
        let owner = claim_this(&*store, *id, at(60)).await.unwrap();
        end(&*store, &owner).await;
    }
    assert!(claim(&*store, 10, at(60)).await.is_empty());
    // Idle again: the next one need not wait.
    let next = say(&*store, 1).await;
    assert_eq!(claim_one(&*store, at(60)).await.execution.id, next[0]);
}

pub(crate) async fn other_conversations_do_not_wait(f: &impl Fixture) {
    let store = f.store();
    let mut messages = vec![message(), message(), message(), task("a"), task("a")];
    messages[1].agent = "b".parse().unwrap();
    messages[2].conversation = Some("d".parse().unwrap());
    for message in messages {
        submit(&*store, message).await;
    }
    assert_eq!(claim(&*store, 10, at(5)).await.len(), 5);
}

pub(crate) async fn whatever_ends_one_gives_the_turn_to_the_next(f: &impl Fixture) {
    let store = f.store();
    let ids = say(&*store, 6).await;
    let ends = [
        done(),
        Outcome::Failed(Failure {
            code: FailureCode::Poison,
            message: "no".to_owned(),
        }),
        Outcome::Timeout {
            message: "late".to_owned(),
        },
        Outcome::Cancelled {
            by: "me".to_owned(),
            reason: String::new(),
        },
    ];
    for (id, outcome) in ids.iter().zip(ends) {
        let owner = claim_one(&*store, at(5)).await;
        assert_eq!(owner.execution.id, *id);
        let then = Then::Finish {
            outcome,
            messages: Vec::new(),
            digest: None,
        };
        commit(&*store, append(&owner, at(5), Vec::new(), then)).await;
    }
    // Before anyone has begun it.
    let cancelled = store.cancel(ids[4], "me", "", at(5)).await.unwrap();
    assert_eq!(cancelled, CancelAnswer::Accepted);
    assert_eq!(claim_one(&*store, at(5)).await.execution.id, ids[5]);
}

pub(crate) async fn one_that_is_cancelled_while_it_waits_leaves_the_line_whole(f: &impl Fixture) {
    let store = f.store();
    let ids = say(&*store, 4).await;
    let first = claim_one(&*store, at(5)).await;
    for id in [ids[1], ids[3]] {
        let answer = store.cancel(id, "me", "", at(5)).await.unwrap();
        assert_eq!(answer, CancelAnswer::Accepted);
    }
    assert!(claim(&*store, 10, at(5)).await.is_empty());
    end(&*store, &first).await;
    let third = claim_one(&*store, at(5)).await;
    assert_eq!(third.execution.id, ids[2]);
    let last = say(&*store, 1).await;
    assert!(claim(&*store, 10, at(5)).await.is_empty());
    end(&*store, &third).await;
    assert_eq!(claim_one(&*store, at(5)).await.execution.id, last[0]);
}

pub(crate) async fn the_deadline_of_one_that_waits_still_fires(f: &impl Fixture) {
    let store = f.store();
    let ids = say(&*store, 1).await;
    let first = claim_one(&*store, at(5)).await;
    let mut hasty = message();
    hasty.deadline = at(100);
    let hasty = submit(&*store, hasty).await;
    let last = say(&*store, 1).await;
    assert!(claim_this(&*store, hasty, at(99)).await.is_none());
    let late = claim_this(&*store, hasty, at(100)).await.unwrap();
    assert!(late.waits_turn, "it must not begin");
    end(&*store, &late).await;
    assert!(claim_this(&*store, last[0], at(100)).await.is_none());
    assert_eq!(store.ahead(last[0]).await.unwrap(), ids);
    // The first goes on, and gives its turn to the one that is left.
    end(&*store, &first).await;
    let last_one = claim_this(&*store, last[0], at(100)).await.unwrap();
    assert!(!last_one.waits_turn);
}

pub(crate) async fn many_submit_at_once_and_each_has_its_turn(f: &impl Fixture) {
    const N: usize = 40;
    let store = f.store();
    let mut work = tokio::task::JoinSet::new();
    for _ in 0..N {
        let store = store.clone();
        work.spawn(async move { submit(&*store, message()).await });
    }
    let all: BTreeSet<ExecutionId> = work.join_all().await.into_iter().collect();
    assert_eq!(perform_all(&*store, N).await, all);
}

/// Claims and ends until there is nothing more to claim; never two at once.
async fn perform_all(store: &dyn Store, at_most: usize) -> BTreeSet<ExecutionId> {
    let mut done = BTreeSet::new();
    for _ in 0..at_most {
        let owner = claim_one(store, at(5)).await;
        end(store, &owner).await;
        assert!(done.insert(owner.execution.id));
    }
    assert!(claim(store, 10, at(5)).await.is_empty());
    done
}

pub(crate) async fn ends_and_submissions_at_once_lose_nobody(f: &impl Fixture) {
    let store = f.store();
    for round in 0..20 {
        let ids = say(&*store, 1 + round % 3).await;
        let owner = claim_one(&*store, at(5)).await;
        let (ending, saying, cancelling) = (store.clone(), store.clone(), store.clone());
        let second = ids.get(1).copied();
        let (_, new, _) = tokio::join!(
            tokio::spawn(async move { end(&*ending, &owner).await }),
            tokio::spawn(async move { say(&*saying, 2).await }),
            tokio::spawn(async move {
                if let Some(second) = second {
                    cancelling.cancel(second, "me", "", at(5)).await.unwrap();
                }
            }),
        );
        assert_eq!(new.unwrap().len(), 2);
        let left = ids.len().saturating_sub(2) + 2;
        perform_all(&*store, left).await;
    }
}

pub(crate) async fn as_many_wait_as_may(f: &impl Fixture) {
    let store = f.store();
    let few = || Submission {
        when_busy: WhenBusy::Queue { most: 3 },
        ..submission(message())
    };
    let mut accepted = Vec::new();
    for _ in 0..4 {
        let one = few();
        accepted.push(one.execution.id);
        assert_eq!(store.submit(one).await.unwrap(), Submitted::New);
    }
    let full = Submitted::Full { waiting: 3 };
    assert_eq!(store.submit(few()).await.unwrap(), full);
    // One that leaves, also from the middle, makes room for one.
    store.cancel(accepted[2], "me", "", at(5)).await.unwrap();
    assert_eq!(store.submit(few()).await.unwrap(), Submitted::New);
    assert_eq!(store.submit(few()).await.unwrap(), full);
    let first = claim_one(&*store, at(5)).await;
    end(&*store, &first).await;
    assert_eq!(store.submit(few()).await.unwrap(), Submitted::New);
    assert_eq!(store.submit(few()).await.unwrap(), full);
    // What is refused leaves nothing behind.
    perform_all(&*store, 4).await;
}

pub(crate) async fn a_busy_conversation_can_refuse(f: &impl Fixture) {
    let store = f.store();
    let first = refusing();
    let id = first.execution.id;
    assert_eq!(store.submit(first.clone()).await.unwrap(), Submitted::New);
    let second = refusing();
    let refused = second.execution.id;
    assert_eq!(store.submit(second).await.unwrap(), Submitted::Busy(id));
    assert!(store.execution(refused).await.unwrap().is_none());
    // The same once more is no second one.
    assert_eq!(store.submit(first).await.unwrap(), Submitted::Existing(id));
    let owner = claim_one(&*store, at(5)).await;
    assert_eq!(store.submit(refusing()).await.unwrap(), Submitted::Busy(id));
    end(&*store, &owner).await;
    assert_eq!(store.submit(refusing()).await.unwrap(), Submitted::New);
}

pub(crate) async fn a_refused_one_is_accepted_later_under_the_same_key(f: &impl Fixture) {
    let store = f.store();
    say(&*store, 1).await;
    let owner = claim_one(&*store, at(5)).await;
    let keyed = || Submission {
        idempotency: Some(IdempotencyKey {
            key: "k".to_owned(),
            body_hash: "h".to_owned(),
        }),
        ..refusing()
    };
    let busy = Submitted::Busy(owner.execution.id);
    assert_eq!(store.submit(keyed()).await.unwrap(), busy);
    end(&*store, &owner).await;
    let accepted = keyed();
    let id = accepted.execution.id;
    assert_eq!(store.submit(accepted).await.unwrap(), Submitted::New);
    assert_eq!(
        store.submit(keyed()).await.unwrap(),
        Submitted::Existing(id)
    );
}

pub(crate) async fn those_ahead_are_told(f: &impl Fixture) {
    let store = f.store();
    let ids = say(&*store, 4).await;
    assert!(store.ahead(ids[0]).await.unwrap().is_empty());
    let ahead = store.ahead(ids[2]).await.unwrap();
    assert_eq!(
        ahead,
        [ids[1], ids[0]],
        "the one that has the turn is the last"
    );
    let alone = submit(&*store, task("a")).await;
    assert!(store.ahead(alone).await.unwrap().is_empty());
}

pub(crate) async fn a_digest_takes_the_place_of_what_it_covers(f: &impl Fixture) {
    let store = f.store();
    let (agent, conversation) = ("a".parse().unwrap(), "c".parse().unwrap());
    let turn = async |texts: &[&str], digest: Option<(&str, u32)>| {
        let owner = {
            submit(&*store, message()).await;
            claim_one(&*store, at(5)).await
        };
        let then = Then::Finish {
            outcome: done(),
            messages: texts.iter().map(|text| said(text)).collect(),
            digest: digest.map(|(text, keep)| {
                Box::new(Digest {
                    message: said(text),
                    keep,
                })
            }),
        };
        commit(&*store, append(&owner, at(5), Vec::new(), then)).await;
        let messages = store.conversation(&agent, &conversation, 100).await;
        messages.unwrap()
    };
    // Of nothing but its own.
    assert_eq!(
        turn(&["1", "2"], Some(("s0", 0))).await,
        ["s0", "1", "2"].map(said)
    );
    turn(&["3", "4"], None).await;
    assert_eq!(
        turn(&["5"], Some(("s1", 2))).await,
        ["s1", "3", "4", "5"].map(said)
    );
    assert_eq!(
        turn(&[], Some(("s2", 3))).await,
        ["s2", "3", "4", "5"].map(said),
        "a digest of a digest"
    );
    assert_eq!(turn(&["6"], Some(("s3", 0))).await, ["s3", "6"].map(said));
}
