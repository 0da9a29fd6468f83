//! What the agents of a team know together.

use domain::ExecutionId;
use serde_json::{Value, json};
use store::{Cleanup, SharedAnswer, SharedWrite, Then};

use super::Fixture;
use super::given::{append, at, commit, done, leased, new_id, task};

fn write(team: ExecutionId, key: &str, value: Value, once: &str) -> SharedWrite {
    SharedWrite {
        team,
        key: key.to_owned(),
        value,
        expected: None,
        by: new_id(),
        idempotency_key: once.to_owned(),
        now: at(1),
    }
}

const fn written(version: u64) -> SharedAnswer {
    SharedAnswer::Written { version }
}

pub(crate) async fn values_have_versions_and_a_repeated_write_is_one(f: &impl Fixture) {
    let store = f.store();
    let team = leased(&*store, task("a")).await.execution.id;
    let first = write(team, "k", json!({ "n": 1 }), "one");
    assert_eq!(store.share(first.clone()).await.unwrap(), written(1));
    let second = write(team, "k", json!("two\0"), "two");
    assert_eq!(store.share(second.clone()).await.unwrap(), written(2));
    // Repeated, whatever has come since.
    assert_eq!(store.share(first).await.unwrap(), written(1));
    let other = write(team, "other", json!(null), "three");
    assert_eq!(store.share(other).await.unwrap(), written(1));
    let elsewhere = leased(&*store, task("a")).await.execution.id;
    let same = write(elsewhere, "k", json!(3), "one");
    assert_eq!(store.share(same).await.unwrap(), written(1));
    let all = store.shared(team, &[]).await.unwrap();
    let all: Vec<(&str, u64)> = all.iter().map(|v| (v.key.as_str(), v.version)).collect();
    assert_eq!(all, [("k", 2), ("other", 1)]);
    let one = store
        .shared(team, &["k".to_owned(), "none".to_owned()])
        .await
        .unwrap();
    assert_eq!((one.len(), &one[0].value), (1, &json!("two\0")));
    assert_eq!(one[0].by, second.by);
}

pub(crate) async fn only_the_expected_version_is_replaced(f: &impl Fixture) {
    let store = f.store();
    let team = leased(&*store, task("a")).await.execution.id;
    let expecting = |expected, once: &str| SharedWrite {
        expected: Some(expected),
        ..write(team, "k", json!(1), once)
    };
    let conflict = |version| SharedAnswer::Conflict { version };
    assert_eq!(store.share(expecting(1, "a")).await.unwrap(), conflict(0));
    assert_eq!(store.share(expecting(0, "b")).await.unwrap(), written(1));
    assert_eq!(store.share(expecting(0, "c")).await.unwrap(), conflict(1));
    // Many at once, each after what it read: one of them each time.
    let mut tries = tokio::task::JoinSet::new();
    for n in 0..8 {
        let (store, write) = (store.clone(), expecting(1, &format!("at once {n}")));
        tries.spawn(async move { store.share(write).await.unwrap() });
    }
    let answers = tries.join_all().await;
    let wins = answers.into_iter().filter(|answer| *answer == written(2));
    assert_eq!(wins.count(), 1);
}

pub(crate) async fn an_ended_team_shares_nothing_and_its_state_goes_with_it(f: &impl Fixture) {
    let store = f.store();
    let nobody = write(new_id(), "k", json!(1), "x");
    assert_eq!(store.share(nobody).await.unwrap(), SharedAnswer::Over);
    let owner = leased(&*store, task("a")).await;
    let team = owner.execution.id;
    let first = write(team, "k", json!(1), "one");
    store.share(first.clone()).await.unwrap();
    let then = Then::Finish {
        outcome: done(),
        messages: Vec::new(),
        digest: None,
    };
    commit(&*store, append(&owner, at(2), Vec::new(), then)).await;
    let late = write(team, "k", json!(2), "late");
    assert_eq!(store.share(late).await.unwrap(), SharedAnswer::Over);
    assert_eq!(
        store.share(first).await.unwrap(),
        written(1),
        "it was before"
    );
    assert_eq!(store.shared(team, &[]).await.unwrap().len(), 1);
    let cleanup = Cleanup {
        before: at(1000),
        dry_run: false,
    };
    store.cleanup(cleanup).await.unwrap();
    assert!(store.shared(team, &[]).await.unwrap().is_empty());
}
