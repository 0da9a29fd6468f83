//! What is sent out until it has arrived, and what is known of alerts.

use std::time::Duration;

use domain::delivery::Attempt;
use domain::{
    Delivery, DeliveryId, DeliveryState, Execution, ExecutionId, Failure, FailureCode, Matter,
    Outcome, Status,
};
use store::{
    AlertRecord, CancelAnswer, ClaimedDelivery, DeadLetter, DeliveryClaim, DeliveryFilter,
    DeliveryKind, Page, Settled, Settlement, Store, Then,
};
use uuid::Uuid;

use super::Fixture;
use super::cleanup::{cleanup, old_task, over};
use super::given::{append, at, commit, event, finish, leased, park, submit, task};

fn with_callback(execution: Execution) -> Execution {
    Execution {
        callback_url: Some("https://receiver.example/hook".to_owned()),
        ..execution
    }
}

/// Takes what is due, for ten seconds.
async fn claim(store: &dyn Store, seconds: i64, limit: usize) -> Vec<ClaimedDelivery> {
    claim_of(store, None, seconds, limit).await
}

async fn claim_of(
    store: &dyn Store,
    kind: Option<DeliveryKind>,
    seconds: i64,
    limit: usize,
) -> Vec<ClaimedDelivery> {
    let claim = DeliveryClaim {
        now: at(seconds),
        lease: Duration::from_secs(10),
        limit,
        kind,
    };
    store.claim_deliveries(claim).await.unwrap()
}

async fn ended_at(store: &dyn Store, agent: &str, seconds: i64) -> ExecutionId {
    let owner = leased(store, with_callback(task(agent))).await;
    commit(store, append(&owner, at(seconds), Vec::new(), finish())).await;
    owner.execution.id
}

fn settlement(taken: &ClaimedDelivery, seconds: i64, then: Settled) -> Settlement {
    Settlement {
        id: taken.delivery.id,
        claim: taken.claim,
        attempt: Attempt::new(at(seconds), Some(503), "not now"),
        then,
    }
}

async fn settle(store: &dyn Store, settlement: Settlement) -> bool {
    store.settle_delivery(settlement).await.unwrap()
}

async fn all(store: &dyn Store, filter: DeliveryFilter) -> Vec<Delivery> {
    let page = Page {
        limit: 100,
        after: None,
    };
    let filter = DeliveryFilter { page, ..filter };
    store.deliveries(filter).await.unwrap()
}

fn alert(n: u8) -> Delivery {
    Delivery {
        id: DeliveryId::from_uuid(Uuid::from_bytes([n; 16])),
        matter: Matter::Alert {
            receiver: "ops".to_owned(),
            message: "{\"rule\":\"failures\"}".to_owned(),
        },
        event: "alert.firing".to_owned(),
        state: DeliveryState::Pending,
        attempts: 0,
        created_at: at(i64::from(n)),
        next_at: Some(at(i64::from(n))),
        settled_at: None,
        last: None,
    }
}

pub(crate) async fn an_end_is_to_be_told_from_the_moment_that_it_is_written(f: &impl Fixture) {
    let store = f.store();
    let silent = leased(&*store, task("a")).await;
    commit(&*store, append(&silent, at(1), Vec::new(), finish())).await;
    let owner = leased(&*store, with_callback(task("a"))).await;
    let parked = append(&owner, at(2), Vec::new(), park(at(3), 0));
    commit(&*store, parked).await;
    assert!(
        claim(&*store, 100, 10).await.is_empty(),
        "nothing has ended"
    );
    let id = owner.execution.id;
    let owner = super::given::claim_this(&*store, id, at(3)).await.unwrap();
    commit(&*store, append(&owner, at(4), Vec::new(), finish())).await;

    let told = store.delivery(id.into()).await.unwrap().unwrap();
    assert_eq!(told.event, "execution.completed");
    assert_eq!(told.state, DeliveryState::Pending);
    assert_eq!((told.attempts, told.next_at), (0, Some(at(4))));
    let agent = "a".parse().unwrap();
    assert_eq!(
        told.matter,
        Matter::Result {
            execution: id,
            agent
        }
    );
    assert!(claim(&*store, 3, 10).await.is_empty(), "not before");
    assert_eq!(claim(&*store, 4, 10).await.len(), 1);
}

pub(crate) async fn whatever_ends_an_execution_tells_of_it(f: &impl Fixture) {
    let store = f.store();
    let failed = leased(&*store, with_callback(task("a"))).await;
    let failure = Failure {
        code: FailureCode::Internal,
        message: "no".to_owned(),
    };
    let then = Then::Finish {
        outcome: Outcome::Failed(failure),
        messages: Vec::new(),
        digest: None,
    };
    commit(&*store, append(&failed, at(1), Vec::new(), then)).await;
    // Nobody has begun it: the cancellation itself is the end.
    let unbegun = submit(&*store, with_callback(task("a"))).await;
    let answer = store.cancel(unbegun, "ann", "", at(2)).await.unwrap();
    assert_eq!(answer, CancelAnswer::Accepted);
    let damaged = submit(&*store, with_callback(task("a"))).await;
    f.damage_task(damaged).await;
    super::given::claim(&*store, 10, at(3)).await;
    let events: Vec<String> = claim(&*store, 3, 10)
        .await
        .into_iter()
        .map(|taken| taken.delivery.event)
        .collect();
    assert_eq!(
        events,
        [
            "execution.failed",
            "execution.cancelled",
            "execution.failed"
        ]
    );
}

pub(crate) async fn a_delivery_is_one_senders_until_its_claim_runs_out(f: &impl Fixture) {
    let store = f.store();
    let first = ended_at(&*store, "a", 1).await;
    let second = ended_at(&*store, "a", 2).await;
    let alerts = claim_of(&*store, Some(DeliveryKind::Alert), 10, 10).await;
    assert!(alerts.is_empty(), "who can't sign takes no ends");
    let one = claim_of(&*store, Some(DeliveryKind::Result), 10, 1).await;
    assert_eq!(one[0].delivery.id, first.into(), "the longest due first");
    assert_eq!(one[0].delivery.attempts, 1);
    let two = claim(&*store, 11, 10).await;
    assert_eq!(two.len(), 1);
    assert_eq!(two[0].delivery.id, second.into());
    assert!(claim(&*store, 12, 10).await.is_empty());
    // The first sender is not heard of again.
    let again = claim(&*store, 20, 10).await;
    assert_eq!(again[0].delivery.id, first.into());
    assert_eq!(again[0].delivery.attempts, 2);
    // It comes back too late: what it has to say is not noted.
    assert!(!settle(&*store, settlement(&one[0], 21, Settled::Failed)).await);
    assert!(settle(&*store, settlement(&again[0], 21, Settled::Delivered)).await);
    assert!(!settle(&*store, settlement(&again[0], 22, Settled::Failed)).await);
    let told = store.delivery(first.into()).await.unwrap().unwrap();
    assert_eq!(told.state, DeliveryState::Delivered);
    assert_eq!((told.next_at, told.settled_at), (None, Some(at(21))));
}

pub(crate) async fn concurrent_senders_share_nothing(f: &impl Fixture) {
    let store = f.store();
    for n in 0..12 {
        ended_at(&*store, "a", n).await;
    }
    let claims = (0..6).map(|_| claim(&*store, 100, 3));
    let taken: Vec<_> = futures_join(claims).await.into_iter().flatten().collect();
    let mut ids: Vec<_> = taken.iter().map(|one| one.delivery.id).collect();
    ids.sort_unstable();
    let found = ids.len();
    ids.dedup();
    assert_eq!(ids.len(), found, "two have the same");
    let rest = claim(&*store, 101, 100).await.len();
    assert_eq!(found + rest, 12);
}

async fn futures_join<T>(futures: impl Iterator<Item = impl Future<Output = T>>) -> Vec<T> {
    let mut pending: Vec<_> = futures.map(Box::pin).collect();
    let mut done: Vec<Option<T>> = pending.iter().map(|_| None).collect();
    std::future::poll_fn(|context| {
        let mut is_ready = true;
        for (future, slot) in pending.iter_mut().zip(&mut done) {
            if slot.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(value) => *slot = Some(value),
                    std::task::Poll::Pending => is_ready = false,
                }
            }
        }
        if is_ready {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    done.into_iter().flatten().collect()
}

pub(crate) async fn a_failed_try_is_kept_and_repeated_later(f: &impl Fixture) {
    let store = f.store();
    let id = ended_at(&*store, "a", 1).await;
    let taken = claim(&*store, 1, 10).await;
    assert!(settle(&*store, settlement(&taken[0], 2, Settled::Again(at(7)))).await);
    let told = store.delivery(id.into()).await.unwrap().unwrap();
    assert_eq!(told.last, Some(Attempt::new(at(2), Some(503), "not now")));
    assert_eq!((told.attempts, told.next_at), (1, Some(at(7))));
    assert!(claim(&*store, 6, 10).await.is_empty());
    let taken = claim(&*store, 7, 10).await;
    assert_eq!(taken[0].delivery.attempts, 2);
    assert!(settle(&*store, settlement(&taken[0], 8, Settled::Failed)).await);
    let told = store.delivery(id.into()).await.unwrap().unwrap();
    assert_eq!(told.state, DeliveryState::Failed);
    assert_eq!((told.next_at, told.settled_at), (None, Some(at(8))));
    assert!(claim(&*store, 1000, 10).await.is_empty());
}

pub(crate) async fn a_delivery_can_be_sent_again(f: &impl Fixture) {
    let store = f.store();
    let id: DeliveryId = ended_at(&*store, "a", 1).await.into();
    let taken = claim(&*store, 1, 10).await;
    settle(&*store, settlement(&taken[0], 2, Settled::Failed)).await;
    let again = store.resend_delivery(id, at(5)).await.unwrap().unwrap();
    assert_eq!(again.state, DeliveryState::Pending);
    assert_eq!((again.attempts, again.next_at), (0, Some(at(5))));
    assert_eq!(again.settled_at, None);

    // While it is being tried, nobody else tries it; the wish is not forgotten over the try's failure.
    let taken = claim(&*store, 5, 10).await;
    store.resend_delivery(id, at(6)).await.unwrap().unwrap();
    assert!(claim(&*store, 6, 10).await.is_empty());
    assert!(settle(&*store, settlement(&taken[0], 7, Settled::Failed)).await);
    let taken = claim(&*store, 7, 10).await;
    assert_eq!(taken[0].delivery.attempts, 1);
    // But one that has arrived meanwhile need not be sent once more.
    store.resend_delivery(id, at(8)).await.unwrap().unwrap();
    assert!(settle(&*store, settlement(&taken[0], 9, Settled::Delivered)).await);
    assert!(claim(&*store, 1000, 10).await.is_empty());
    let unknown = DeliveryId::from_uuid(Uuid::from_u128(7));
    assert_eq!(store.resend_delivery(unknown, at(9)).await.unwrap(), None);
    assert_eq!(store.delivery(unknown).await.unwrap(), None);
}

pub(crate) async fn deliveries_are_listed_newest_first_page_by_page(f: &impl Fixture) {
    let store = f.store();
    let mut ids = Vec::new();
    for n in 1..=5 {
        let agent = if n % 2 == 0 { "even" } else { "odd" };
        ids.push(DeliveryId::from(ended_at(&*store, agent, n).await));
    }
    let record = AlertRecord::default();
    assert!(
        store
            .save_alert_state(record, vec![alert(9)], at(9))
            .await
            .unwrap()
    );
    ids.reverse();
    let mut found = Vec::new();
    let mut after = None;
    loop {
        let page = Page { limit: 2, after };
        let filter = DeliveryFilter {
            page,
            ..DeliveryFilter::default()
        };
        let part = store.deliveries(filter).await.unwrap();
        after = part.last().map(|one| (one.created_at, one.id.to_string()));
        found.extend(part.iter().map(|one| one.id));
        if part.len() < 2 {
            break;
        }
    }
    assert_eq!(found, ids);
    let even = DeliveryFilter {
        agents: vec!["even".parse().unwrap(), "other".parse().unwrap()],
        ..DeliveryFilter::default()
    };
    let even = all(&*store, even).await;
    assert_eq!(
        even.iter().map(|one| one.id).collect::<Vec<_>>(),
        [ids[1], ids[3]]
    );
    let taken = claim(&*store, 1, 10).await;
    settle(&*store, settlement(&taken[0], 2, Settled::Delivered)).await;
    let delivered = DeliveryFilter {
        state: Some(DeliveryState::Delivered),
        ..DeliveryFilter::default()
    };
    assert_eq!(all(&*store, delivered).await[0].id, ids[4]);
    let alerts = DeliveryFilter {
        kind: DeliveryKind::Alert,
        ..DeliveryFilter::default()
    };
    assert_eq!(all(&*store, alerts).await, [alert(9)]);
}

pub(crate) async fn a_delivery_goes_with_its_execution(f: &impl Fixture) {
    let store = f.store();
    let gone = over(&*store, with_callback(old_task("a"))).await;
    let stays = ended_at(&*store, "a", 1).await;
    cleanup(&*store, true).await;
    assert!(store.delivery(gone.into()).await.unwrap().is_some());
    cleanup(&*store, false).await;
    assert_eq!(store.delivery(gone.into()).await.unwrap(), None);
    assert!(store.delivery(stays.into()).await.unwrap().is_some());
}

pub(crate) async fn one_of_many_evaluators_keeps_what_it_found(f: &impl Fixture) {
    let store = f.store();
    let nothing = store.alert_state().await.unwrap();
    assert_eq!(nothing, AlertRecord::default());
    let record = |version, state: &str| AlertRecord {
        version,
        state: state.to_owned(),
    };
    let save = |seen, state: &str, n| {
        let (store, record) = (store.clone(), record(seen, state));
        async move {
            store
                .save_alert_state(record, vec![alert(n)], at(n.into()))
                .await
                .unwrap()
        }
    };
    assert!(save(0, "{\"a\":1}", 1).await);
    assert!(!save(0, "{\"a\":2}", 2).await, "another was first");
    assert_eq!(store.alert_state().await.unwrap(), record(1, "{\"a\":1}"));
    assert!(save(1, "{\"a\":3}", 3).await);
    assert!(!save(1, "{\"a\":4}", 4).await);
    assert_eq!(store.alert_state().await.unwrap(), record(2, "{\"a\":3}"));
    let told: Vec<DeliveryId> = claim(&*store, 100, 10)
        .await
        .iter()
        .map(|one| one.delivery.id)
        .collect();
    assert_eq!(told, [alert(1).id, alert(3).id], "only of what was kept");
}

pub(crate) async fn the_vital_signs_are_read(f: &impl Fixture) {
    let store = f.store();
    ended_at(&*store, "a", 10).await;
    ended_at(&*store, "a", 20).await;
    let cancelled = submit(&*store, task("b")).await;
    store.cancel(cancelled, "ann", "", at(30)).await.unwrap();
    let mut waits = task("c");
    waits.created_at = at(40);
    submit(&*store, waits).await;
    let letter = DeadLetter {
        id: "x".to_owned(),
        queue: "q".to_owned(),
        event: event("e"),
        reason: "no".to_owned(),
        attempts: 3,
        at: at(1),
    };
    store.add_dead_letter(letter).await.unwrap();
    let vitals = store.vitals(&[at(15), at(100)], at(0)).await.unwrap();
    let name = |text: &str| text.parse().unwrap();
    assert_eq!(
        vitals.ended,
        [
            vec![
                (name("a"), Status::Completed, 1),
                (name("b"), Status::Cancelled, 1)
            ],
            vec![]
        ]
    );
    assert_eq!(vitals.queued, [(name("c"), 1, at(40))]);
    assert_eq!(vitals.dead_letters, 1);
    assert!(vitals.overdue.is_empty());
}
