//! What people said of agents.

use domain::fleet::{Switch, SwitchedOff};

use super::Fixture;
use super::given::at;

fn off(by: &str, second: i64) -> SwitchedOff {
    SwitchedOff {
        by: by.to_owned(),
        at: at(second),
    }
}

pub(crate) async fn an_agent_that_was_disabled_stays_so_under_the_first_name(f: &impl Fixture) {
    let store = f.store();
    let (first, other) = ("alpha".parse().unwrap(), "beta".parse().unwrap());
    assert_eq!(store.switches().await.unwrap(), []);
    for by in ["ada", "bob"] {
        let off = off(by, i64::from(by == "bob"));
        store.switch_agent(&other, Some(off)).await.unwrap();
    }
    store.switch_agent(&first, None).await.unwrap();
    let said = |restarts, by| Switch {
        agent: other.clone(),
        off: by,
        restarts,
    };
    let all = async || {
        let mut all = store.switches().await.unwrap();
        all.retain(|switch| switch.off.is_some() || switch.restarts > 0);
        all
    };
    assert_eq!(all().await, [said(0, Some(off("ada", 0)))]);
    for _ in 0..2 {
        store.switch_agent(&other, None).await.unwrap();
        assert_eq!(all().await, []);
    }
    store
        .switch_agent(&other, Some(off("bob", 5)))
        .await
        .unwrap();
    assert_eq!(all().await, [said(0, Some(off("bob", 5)))]);
}

pub(crate) async fn every_restart_counts_and_changes_nothing_else(f: &impl Fixture) {
    let store = f.store();
    let (agent, other) = ("alpha".parse().unwrap(), "beta".parse().unwrap());
    store
        .switch_agent(&agent, Some(off("ada", 0)))
        .await
        .unwrap();
    let restarts = (0..10).map(|_| {
        let (store, agent) = (store.clone(), agent.clone());
        tokio::spawn(async move { store.restart_agent(&agent).await.unwrap() })
    });
    let mut told = Vec::new();
    for restart in restarts.collect::<Vec<_>>() {
        told.push(restart.await.unwrap());
    }
    told.sort_unstable();
    assert_eq!(told, (1..=10).collect::<Vec<u64>>());
    assert_eq!(store.restart_agent(&other).await.unwrap(), 1);
    let switch = |agent, off, restarts| Switch {
        agent,
        off,
        restarts,
    };
    let wanted = [
        switch(agent, Some(off("ada", 0)), 10),
        switch(other, None, 1),
    ];
    assert_eq!(store.switches().await.unwrap(), wanted);
}
