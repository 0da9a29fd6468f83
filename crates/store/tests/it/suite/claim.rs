//! Leases.

use std::collections::BTreeSet;

use domain::{Epoch, ExecutionMode, Priority, Status};
use store::{Claimed, Renewal, Signal, Then};

use super::Fixture;
use super::given::{
    append, at, claim, claim_one, claim_this, commit, leased, note, notes, submit, task, wish,
    worker,
};

fn agents(claimed: &[Claimed]) -> Vec<&str> {
    claimed.iter().map(|c| c.execution.agent.as_str()).collect()
}

pub(crate) async fn concurrent_claimers_share_nothing(f: &impl Fixture) {
    let store = f.store();
    for n in 0..120 {
        submit(&*store, task(&format!("agent-{}", n % 7))).await;
    }
    let claimers: Vec<_> = (0..16)
        .map(|n| {
            let store = store.clone();
            tokio::spawn(async move {
                let mut mine = Vec::new();
                loop {
                    let mut wish = wish(3, at(1));
                    wish.worker = worker(&format!("w{n}"));
                    let claimed = store.claim(wish).await.unwrap();
                    if claimed.is_empty() {
                        return mine;
                    }
                    mine.extend(claimed.into_iter().map(|c| (c.execution.id, c.epoch)));
                }
            })
        })
        .collect();
    let mut all = Vec::new();
    for claimer in claimers {
        all.extend(claimer.await.unwrap());
    }
    assert!(all.iter().all(|(_, epoch)| *epoch == Epoch::new(1)));
    let ids: BTreeSet<_> = all.iter().map(|(id, _)| *id).collect();
    assert_eq!((all.len(), ids.len()), (120, 120));
}

pub(crate) async fn a_claim_begins_the_execution(f: &impl Fixture) {
    let store = f.store();
    let owner = leased(&*store, task("a")).await;
    assert_eq!((owner.epoch, owner.crashes), (Epoch::new(1), 0));
    assert!(owner.steps.is_empty() && owner.waiting.inputs.is_empty());
    let row = store.execution(owner.execution.id).await.unwrap().unwrap();
    assert_eq!(row.status, Status::Running);
    assert_eq!(row.worker, Some(worker("w1")));
    assert_eq!(
        (row.started_at, row.heartbeat_at),
        (Some(at(0)), Some(at(0)))
    );
    assert_eq!((row.due_at, row.epoch), (Some(at(10)), Epoch::new(1)));
}

pub(crate) async fn a_lease_keeps_others_away(f: &impl Fixture) {
    let store = f.store();
    let first = leased(&*store, task("a")).await;
    commit(
        &*store,
        append(&first, at(1), notes(&first, 1, 3), Then::Continue),
    )
    .await;
    assert!(claim(&*store, 10, at(9)).await.is_empty());
    assert!(
        claim_this(&*store, first.execution.id, at(9))
            .await
            .is_none()
    );
    let second = claim_one(&*store, at(10)).await;
    assert_eq!(second.epoch, Epoch::new(2));
    assert_eq!(second.steps, notes(&first, 1, 3));
}

pub(crate) async fn a_lost_lease_counts_a_crash_until_a_step_is_committed(f: &impl Fixture) {
    let store = f.store();
    let first = leased(&*store, task("a")).await;
    assert_eq!(claim_one(&*store, at(10)).await.crashes, 1);
    let third = claim_one(&*store, at(20)).await;
    assert_eq!(third.crashes, 2);
    // A commit without steps is no progress.
    commit(&*store, append(&third, at(21), Vec::new(), Then::Continue)).await;
    let fourth = claim_one(&*store, at(30)).await;
    assert_eq!(fourth.crashes, 3);
    commit(
        &*store,
        append(&fourth, at(31), vec![note(&fourth, 1)], Then::Continue),
    )
    .await;
    assert_eq!(claim_one(&*store, at(40)).await.crashes, 1);
    let row = store.execution(first.execution.id).await.unwrap().unwrap();
    assert_eq!((row.crashes, row.started_at), (1, Some(at(0))));
}

pub(crate) async fn handing_back_counts_no_crash(f: &impl Fixture) {
    let store = f.store();
    let first = leased(&*store, task("a")).await;
    commit(&*store, append(&first, at(3), Vec::new(), Then::HandBack)).await;
    let row = store.execution(first.execution.id).await.unwrap().unwrap();
    assert_eq!((row.worker, row.due_at), (None, Some(at(3))));
    let second = claim_one(&*store, at(3)).await;
    assert_eq!((second.crashes, second.epoch), (0, Epoch::new(2)));
}

pub(crate) async fn high_priority_goes_first(f: &impl Fixture) {
    let store = f.store();
    for (agent, priority, seconds) in [
        ("low", Priority::Low, 0),
        ("normal", Priority::Normal, 1),
        ("high", Priority::High, 2),
    ] {
        let mut task = task(agent);
        (task.priority, task.created_at) = (priority, at(seconds));
        submit(&*store, task).await;
    }
    assert_eq!(agents(&claim(&*store, 2, at(5)).await), ["high", "normal"]);
    assert_eq!(agents(&claim(&*store, 2, at(5)).await), ["low"]);
}

pub(crate) async fn agents_take_turns(f: &impl Fixture) {
    let store = f.store();
    for (agent, n) in [("busy", 20), ("calm", 2), ("rare", 1)] {
        for _ in 0..n {
            submit(&*store, task(agent)).await;
        }
    }
    let claimed = claim(&*store, 9, at(1)).await;
    let count = |agent: &str| agents(&claimed).iter().filter(|a| **a == agent).count();
    assert_eq!((count("busy"), count("calm"), count("rare")), (6, 2, 1));
}

pub(crate) async fn one_agents_flood_does_not_starve_another(f: &impl Fixture) {
    let store = f.store();
    for _ in 0..50 {
        submit(&*store, task("flood")).await;
    }
    for _ in 0..3 {
        let mut late = task("modest");
        late.created_at = at(30);
        submit(&*store, late).await;
    }
    let mut order = Vec::new();
    for _ in 0..6 {
        order.extend(claim(&*store, 1, at(31)).await);
    }
    assert_eq!(agents(&order).iter().filter(|a| **a == "modest").count(), 3);
}

pub(crate) async fn the_longest_due_goes_first(f: &impl Fixture) {
    let store = f.store();
    for seconds in [3, 1, 2] {
        let mut task = task("a");
        task.created_at = at(seconds);
        submit(&*store, task).await;
    }
    let claimed = claim(&*store, 10, at(2)).await;
    let times: Vec<_> = claimed.iter().map(|c| c.execution.created_at).collect();
    assert_eq!(times, [at(1), at(2)], "what is due later is not claimed");
}

pub(crate) async fn a_hint_claims_only_what_it_names(f: &impl Fixture) {
    let store = f.store();
    submit(&*store, task("a")).await;
    let named = submit(&*store, task("a")).await;
    assert_eq!(
        claim_this(&*store, named, at(1))
            .await
            .unwrap()
            .execution
            .id,
        named
    );
    assert!(claim_this(&*store, named, at(1)).await.is_none());
    let mut other_mode = wish(1, at(100));
    other_mode.only = Some(named);
    other_mode.modes = vec![ExecutionMode::Scheduled];
    assert!(store.claim(other_mode).await.unwrap().is_empty());
}

pub(crate) async fn modes_and_agents_can_be_left_out(f: &impl Fixture) {
    let store = f.store();
    let mut scheduled = task("b");
    scheduled.mode = ExecutionMode::Scheduled;
    let scheduled = submit(&*store, scheduled).await;
    let plain = submit(&*store, task("a")).await;
    let mut only_scheduled = wish(10, at(1));
    only_scheduled.modes = vec![ExecutionMode::Scheduled];
    only_scheduled.without = vec!["a".parse().unwrap()];
    let claimed = store.claim(only_scheduled).await.unwrap();
    assert_eq!(
        claimed.iter().map(|c| c.execution.id).collect::<Vec<_>>(),
        [scheduled]
    );
    let mut without = wish(10, at(1));
    without.without = vec!["a".parse().unwrap()];
    assert!(store.claim(without.clone()).await.unwrap().is_empty());
    without.only = Some(plain);
    assert!(store.claim(without).await.unwrap().is_empty());
    assert_eq!(claim(&*store, 10, at(1)).await.len(), 1);
}

pub(crate) async fn renewing_extends_and_tells_the_news(f: &impl Fixture) {
    let store = f.store();
    let kept = leased(&*store, task("a")).await;
    let woken = leased(&*store, task("a")).await;
    let lost = leased(&*store, task("a")).await;
    assert!(
        claim_this(&*store, lost.execution.id, at(10))
            .await
            .is_some()
    );
    store
        .cancel(woken.execution.id, "me", "", at(5))
        .await
        .unwrap();
    let over = leased(&*store, task("a")).await;
    commit(
        &*store,
        append(&over, at(1), Vec::new(), super::given::finish()),
    )
    .await;
    let leases = [&kept, &woken, &lost, &over].map(|c| (c.execution.id, c.epoch));
    let renewal = Renewal {
        worker: worker("w1"),
        leases: leases.to_vec(),
        now: at(6),
        until: at(60),
    };
    let wanted = [
        Signal::Woken {
            id: woken.execution.id,
            wakes: 1,
        },
        Signal::Lost(lost.execution.id),
        Signal::Lost(over.execution.id),
    ];
    assert_eq!(store.renew(renewal.clone()).await.unwrap(), wanted);
    assert!(
        claim_this(&*store, kept.execution.id, at(59))
            .await
            .is_none()
    );
    let row = store.execution(kept.execution.id).await.unwrap().unwrap();
    assert_eq!((row.heartbeat_at, row.due_at), (Some(at(6)), Some(at(60))));
    // Another worker's renewal changes nothing.
    let thief = Renewal {
        worker: worker("w2"),
        leases: vec![(kept.execution.id, kept.epoch)],
        until: at(900),
        ..renewal
    };
    assert_eq!(
        store.renew(thief).await.unwrap(),
        [Signal::Lost(kept.execution.id)]
    );
    assert!(
        claim_this(&*store, kept.execution.id, at(60))
            .await
            .is_some()
    );
}
