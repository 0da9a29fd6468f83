//! Who performs executions.

use std::collections::BTreeSet;

use domain::{Pool, Worker};

use super::Fixture;
use super::given::at;

/// A worker that was heard of at `heard` seconds.
pub(crate) fn worker(id: &str, heard: i64) -> Worker {
    Worker {
        id: id.parse().unwrap(),
        pool: Pool::Autonomous,
        host: "box \u{2713}".to_owned(),
        process: 4_194_304,
        version: "1.2.3".to_owned(),
        capacity: 100,
        active: 7,
        finished: u64::from(u32::MAX) + 1,
        finished_per_minute: 12.5,
        agents: ["a", "b-2"].map(|name| name.parse().unwrap()).into(),
        started_at: at(-60),
        last_heartbeat: at(heard),
    }
}

pub(crate) async fn a_worker_is_known_as_it_last_said_until_it_leaves(f: &impl Fixture) {
    let store = f.store();
    assert!(store.workers().await.unwrap().is_empty());
    let (first, other) = (worker("w-1", 0), worker("w-2", 1));
    for one in [&other, &first] {
        store.heartbeat(one.clone(), at(-100)).await.unwrap();
    }
    assert_eq!(store.workers().await.unwrap(), [first, other.clone()]);
    let busier = Worker {
        active: 8,
        agents: BTreeSet::new(),
        ..worker("w-1", 5)
    };
    store.heartbeat(busier.clone(), at(-100)).await.unwrap();
    assert_eq!(
        store.workers().await.unwrap(),
        [busier.clone(), other.clone()]
    );
    for _ in 0..2 {
        store.leave(&busier.id).await.unwrap();
        let left = store.workers().await.unwrap();
        assert_eq!(left.as_slice(), std::slice::from_ref(&other));
    }
}

pub(crate) async fn one_that_was_silent_for_long_is_forgotten_by_the_others(f: &impl Fixture) {
    let store = f.store();
    store.heartbeat(worker("lost", 0), at(-100)).await.unwrap();
    store.heartbeat(worker("slow", 10), at(0)).await.unwrap();
    assert_eq!(store.workers().await.unwrap().len(), 2, "0 is not before 0");
    store.heartbeat(worker("well", 20), at(10)).await.unwrap();
    let ids = |workers: Vec<Worker>| workers.into_iter().map(|w| w.id.to_string());
    let known: Vec<_> = ids(store.workers().await.unwrap()).collect();
    assert_eq!(known, ["slow", "well"]);
    // One that was only frozen is back with its next word.
    store.heartbeat(worker("lost", 21), at(10)).await.unwrap();
    assert_eq!(store.workers().await.unwrap().len(), 3);
}

pub(crate) async fn many_are_heard_at_once(f: &impl Fixture) {
    let store = f.store();
    for n in 0..10 {
        let old = worker(&format!("old-{n}"), 0);
        store.heartbeat(old, at(-100)).await.unwrap();
    }
    let beats = (0..20).map(|n| {
        let store = store.clone();
        tokio::spawn(async move {
            for round in 1..=5 {
                let one = worker(&format!("w-{n:02}"), round);
                store.heartbeat(one, at(1)).await.unwrap();
            }
        })
    });
    for beat in beats.collect::<Vec<_>>() {
        beat.await.unwrap();
    }
    let workers = store.workers().await.unwrap();
    assert_eq!(workers.len(), 20, "the old are gone");
    assert!(workers.iter().all(|w| w.last_heartbeat == at(5)));
}
