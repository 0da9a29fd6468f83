//! What is to be done outside.

use std::time::Duration;

use store::{Errand, ErrandChange, ErrandClaim, ErrandNext, NewErrand, Store};

use super::Fixture;
use super::given::at;

fn new(id: &str, due: i64) -> NewErrand {
    NewErrand {
        id: id.to_owned(),
        queue: "out".to_owned(),
        body: format!("{{\"say\":\"{id} \u{2713}\\u0000\"}}"),
        due_at: at(due),
    }
}

async fn claim(store: &dyn Store, now: i64) -> Vec<Errand> {
    let claim = ErrandClaim {
        queue: "out".to_owned(),
        now: at(now),
        lease: Duration::from_secs(10),
        limit: 10,
    };
    store.claim_errands(claim).await.unwrap()
}

async fn save(store: &dyn Store, errand: &Errand, next: ErrandNext) -> bool {
    let change = ErrandChange {
        id: errand.id.clone(),
        version: errand.version,
        body: "{\"done\":1}".to_owned(),
        next,
    };
    store.save_errand(change).await.unwrap()
}

pub(crate) async fn an_errand_is_taken_in_once_and_is_one_owners(f: &impl Fixture) {
    let store = f.store();
    for (id, due) in [("b", 2), ("a", 1), ("later", 50)] {
        assert!(store.add_errand(new(id, due)).await.unwrap());
    }
    assert!(!store.add_errand(new("a", 1)).await.unwrap());
    let elsewhere = NewErrand {
        queue: "in".to_owned(),
        ..new("c", 1)
    };
    assert!(store.add_errand(elsewhere).await.unwrap());
    let taken = claim(&*store, 5).await;
    let ids: Vec<_> = taken.iter().map(|errand| errand.id.as_str()).collect();
    assert_eq!(ids, ["a", "b"], "the longest due first");
    assert_eq!(taken[0].body, new("a", 1).body);
    assert!(claim(&*store, 6).await.is_empty(), "they are somebody's");
    let again = claim(&*store, 15).await;
    assert_eq!(again.len(), 2, "whose lease has ended");
    assert!(again.iter().all(|errand| errand.version == 2));
}

pub(crate) async fn only_its_owner_writes_to_an_errand(f: &impl Fixture) {
    let store = f.store();
    store.add_errand(new("a", 1)).await.unwrap();
    let first = claim(&*store, 1).await.remove(0);
    assert!(save(&*store, &first, ErrandNext::Keep(at(20))).await);
    assert!(claim(&*store, 19).await.is_empty(), "kept for longer");
    let second = claim(&*store, 20).await.remove(0);
    assert_eq!(second.body, "{\"done\":1}");
    assert!(!save(&*store, &first, ErrandNext::Done(at(21))).await);
    assert!(save(&*store, &second, ErrandNext::Later(at(60))).await);
    assert!(claim(&*store, 59).await.is_empty());
    let third = claim(&*store, 60).await.remove(0);
    assert!(save(&*store, &third, ErrandNext::Done(at(61))).await);
    assert!(!save(&*store, &third, ErrandNext::Later(at(61))).await);
    assert!(claim(&*store, 1000).await.is_empty());
    assert!(!store.add_errand(new("a", 1)).await.unwrap(), "it is known");
    let kept = store.errand("a").await.unwrap().unwrap();
    assert!(kept.is_done);
    assert_eq!(store.errand("b").await.unwrap(), None);
}

pub(crate) async fn a_woken_errand_is_due_and_what_is_done_is_forgotten(f: &impl Fixture) {
    let store = f.store();
    store.add_errand(new("a", 100)).await.unwrap();
    assert!(store.wake_errand("a", at(5)).await.unwrap());
    assert!(!store.wake_errand("nobody's", at(5)).await.unwrap());
    let taken = claim(&*store, 5).await.remove(0);
    assert!(store.wake_errand("a", at(6)).await.unwrap());
    assert!(claim(&*store, 7).await.is_empty(), "it stays its owner's");
    // Who has it did not see why it was woken: it comes again at once, also when it was kept for longer meanwhile.
    assert!(save(&*store, &taken, ErrandNext::Keep(at(30))).await);
    assert!(save(&*store, &taken, ErrandNext::Later(at(100))).await);
    let taken = claim(&*store, 8).await.remove(0);
    assert!(save(&*store, &taken, ErrandNext::Keep(at(30))).await);
    assert!(save(&*store, &taken, ErrandNext::Later(at(100))).await);
    assert!(claim(&*store, 99).await.is_empty(), "woken once");
    let taken = claim(&*store, 100).await.remove(0);
    assert!(save(&*store, &taken, ErrandNext::Done(at(108))).await);
    assert!(!store.wake_errand("a", at(109)).await.unwrap());
    assert_eq!(store.forget_errands(at(108)).await.unwrap(), 0);
    assert_eq!(store.forget_errands(at(109)).await.unwrap(), 1);
    assert!(store.add_errand(new("a", 1)).await.unwrap());
}

pub(crate) async fn concurrent_claims_of_errands_share_nothing(f: &impl Fixture) {
    let store = f.store();
    for n in 0..40 {
        store.add_errand(new(&format!("e{n}"), 1)).await.unwrap();
    }
    let claims = (0..8).map(|_| {
        let store = store.clone();
        tokio::spawn(async move { claim(&*store, 2).await })
    });
    let mut ids = Vec::new();
    for taken in claims.collect::<Vec<_>>() {
        ids.extend(taken.await.unwrap().into_iter().map(|errand| errand.id));
    }
    let all = ids.len();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), all);
}
