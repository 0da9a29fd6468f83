//! Events on their way out, and those that found no way.

use std::time::Duration;

use store::{DeadLetter, OutboxClaim, Page, Store, Then};

use super::Fixture;
use super::given::{
    append, at, child, claim_this, commit, event, finish, leased, notes, outgoing, park,
    submission, submit, task,
};

pub(crate) async fn events_go_out_in_order_until_they_are_done(f: &impl Fixture) {
    let store = f.store();
    let events: Vec<_> = (0..10).map(|n| event(&format!("e{n}"))).collect();
    store.publish(&events).await.unwrap();
    let first = store.outbox(3).await.unwrap();
    assert_eq!(
        first.iter().map(|e| e.event.clone()).collect::<Vec<_>>(),
        events[..3]
    );
    assert!(first.windows(2).all(|pair| pair[0].id < pair[1].id));
    assert_eq!(
        outgoing(&*store).await.len(),
        10,
        "taking is not delivering"
    );
    let ids: Vec<_> = first.iter().map(|entry| entry.id).collect();
    store.outbox_done(&ids[1..]).await.unwrap();
    store.outbox_done(&ids[1..]).await.unwrap();
    assert_eq!(outgoing(&*store).await[..2], ["e0", "e3"]);
}

pub(crate) async fn an_event_that_waits_is_taken_once(f: &impl Fixture) {
    let store = f.store();
    store.publish(&[event("e"), event("e")]).await.unwrap();
    store.publish(&[event("e"), event("other")]).await.unwrap();
    let owner = leased(&*store, task("a")).await;
    let mut end = append(&owner, at(1), Vec::new(), finish());
    end.events = vec![event("e"), event("third")];
    commit(&*store, end).await;
    assert_eq!(outgoing(&*store).await, ["e", "other", "third"]);
}

pub(crate) async fn an_id_never_names_another_event(f: &impl Fixture) {
    let store = f.store();
    store.publish(&[event("first")]).await.unwrap();
    let slow = store.outbox(1).await.unwrap()[0].id;
    store.outbox_done(&[slow]).await.unwrap();
    store.publish(&[event("second")]).await.unwrap();
    // A slow relay, which had taken the first too, says so only now.
    store.outbox_done(&[slow]).await.unwrap();
    assert_eq!(outgoing(&*store).await, ["second"]);
}

/// A claim of ten seconds.
fn claim_at(seconds: i64, limit: usize) -> OutboxClaim {
    OutboxClaim {
        now: at(seconds),
        lease: Duration::from_secs(10),
        limit,
    }
}

async fn claimed(store: &dyn Store, claim: OutboxClaim) -> Vec<String> {
    let entries = store.claim_outbox(claim).await.unwrap();
    let ids = entries.into_iter().map(|entry| entry.event.id.into());
    ids.collect()
}

pub(crate) async fn a_claimed_event_is_one_relays(f: &impl Fixture) {
    let store = f.store();
    let events: Vec<_> = (0..5).map(|n| event(&format!("e{n}"))).collect();
    store.publish(&events).await.unwrap();
    let first = store.claim_outbox(claim_at(0, 2)).await.unwrap();
    assert_eq!(
        first.iter().map(|e| &e.event).collect::<Vec<_>>(),
        [&events[0], &events[1]]
    );
    assert_eq!(claimed(&*store, claim_at(1, 2)).await, ["e2", "e3"]);
    assert_eq!(
        outgoing(&*store).await.len(),
        5,
        "claiming is not delivering"
    );
    // What could not be delivered is anybody's at once, what was delivered nobody's.
    store.outbox_done(&[first[0].id]).await.unwrap();
    store
        .release_outbox(&[first[0].id, first[1].id])
        .await
        .unwrap();
    assert_eq!(claimed(&*store, claim_at(2, 9)).await, ["e1", "e4"]);
    assert!(claimed(&*store, claim_at(10, 9)).await.is_empty());
    // A relay that died delays its events until its claim runs out.
    assert_eq!(claimed(&*store, claim_at(11, 9)).await, ["e2", "e3"]);
    assert_eq!(claimed(&*store, claim_at(12, 9)).await, ["e1", "e4"]);
    store.release_outbox(&[]).await.unwrap();
}

pub(crate) async fn concurrent_relays_share_nothing(f: &impl Fixture) {
    const EVENTS: usize = 300;
    let store = f.store();
    let events: Vec<_> = (0..EVENTS).map(|n| event(&format!("e{n}"))).collect();
    store.publish(&events).await.unwrap();
    let relays: Vec<_> = (0..4)
        .map(|_| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut own = Vec::new();
                loop {
                    let batch = store.claim_outbox(claim_at(0, 7)).await.unwrap();
                    if batch.is_empty() {
                        return own;
                    }
                    let ids: Vec<_> = batch.iter().map(|entry| entry.id).collect();
                    own.extend(batch.into_iter().map(|entry| String::from(entry.event.id)));
                    store.outbox_done(&ids).await.unwrap();
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for relay in relays {
        all.extend(relay.await.unwrap());
    }
    all.sort_unstable();
    let mut expected: Vec<_> = events.into_iter().map(|e| String::from(e.id)).collect();
    expected.sort_unstable();
    assert_eq!(all, expected, "each by one relay");
    assert!(outgoing(&*store).await.is_empty());
}

pub(crate) async fn dead_letters_are_kept_listed_and_forgotten(f: &impl Fixture) {
    let store = f.store();
    let letter = |n: i64| DeadLetter {
        id: format!("d{n}"),
        queue: "autonomous".to_owned(),
        event: event(&format!("e{n}")),
        reason: "nobody took it".to_owned(),
        attempts: 5,
        at: at(n / 2),
    };
    for n in 0..5 {
        store.add_dead_letter(letter(n)).await.unwrap();
    }
    let page = |limit, after| Page { limit, after };
    let first = store.dead_letters(page(2, None)).await.unwrap();
    assert_eq!(first, [letter(4), letter(3)]);
    let after = Some((at(1), "d3".to_owned()));
    let rest = store.dead_letters(page(10, after)).await.unwrap();
    assert_eq!(rest, [letter(2), letter(1), letter(0)]);
    assert!(store.remove_dead_letter("d3").await.unwrap());
    assert!(!store.remove_dead_letter("d3").await.unwrap());
    assert_eq!(store.dead_letters(page(10, None)).await.unwrap().len(), 4);
}

/// Only for stores that signal at all.
pub(crate) async fn commits_signal_events_and_work(f: &impl Fixture) {
    let store = f.store();
    let (Some(events), Some(work)) = (store.outbox_signal(), store.due_signal()) else {
        return;
    };
    let told = async |signal: &tokio::sync::Notify| {
        tokio::time::timeout(Duration::from_secs(5), signal.notified())
            .await
            .expect("a signal");
    };
    store.publish(&[event("e")]).await.unwrap();
    told(&events).await;
    let id = submit(&*store, task("a")).await;
    told(&work).await;
    let owner = claim_this(&*store, id, at(0)).await.unwrap();
    let mut start = append(&owner, at(1), notes(&owner, 1, 1), park(at(900), 0));
    start.children = vec![submission(child(id, "b"))];
    commit(&*store, start).await;
    told(&work).await;
    let child = claim_this(&*store, child(id, "b").id, at(1)).await.unwrap();
    commit(&*store, append(&child, at(2), Vec::new(), Then::HandBack)).await;
    told(&work).await;
    let child = claim_this(&*store, child.execution.id, at(2))
        .await
        .unwrap();
    let mut end = append(&child, at(3), Vec::new(), finish());
    end.events = vec![event("end")];
    commit(&*store, end).await;
    told(&work).await;
    told(&events).await;
    let parent = claim_this(&*store, id, at(3)).await.unwrap();
    commit(
        &*store,
        append(&parent, at(4), Vec::new(), park(at(900), 1)),
    )
    .await;
    store.cancel(id, "me", "", at(5)).await.unwrap();
    told(&work).await;
    assert!(claim_this(&*store, id, at(5)).await.is_some());
}
