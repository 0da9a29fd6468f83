//! R18: what was caused before the database was restored may have been done before, whoever starts it now.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use agentrunner_engine::{NewSchedule, NewTask};
use chrono::{TimeDelta, Utc};
use domain::definition::Effect;
use domain::{Event, Restored, Status, Time, TraceId};
use serde_json::json;
use store::copying::{self, Wish};
use store::sqlite::{self, Options, Sqlite};
use store::{
    ExecutionFilter, ExecutionRow, Fate, Firing, InboxFilter, NewRun, Page, RunKind, Store,
};
use uuid::Uuid;

use crate::rig::{Rig, Say, definition, tool};

/// A store that was restored at that time, from a backup of an hour before.
async fn restored_store(folder: &Path, at: Time) -> Arc<dyn Store> {
    let (old, new) = (folder.join("old.db"), folder.join("new.db"));
    drop(Sqlite::open(&old, Options::default()).unwrap());
    let backup = at - TimeDelta::hours(1);
    let wish = Wish {
        restored: Some(Restored { at, backup }),
        source: "test".to_owned(),
        over: None,
        now: at,
    };
    let (pieces, coming) = copying::channel();
    let (taken, put) = tokio::join!(
        sqlite::dump(old, at, pieces),
        sqlite::load(new.clone(), coming, wish)
    );
    taken.unwrap();
    put.unwrap();
    Arc::new(Sqlite::open(&new, Options::default()).unwrap())
}

async fn all(store: &dyn Store) -> Vec<ExecutionRow> {
    let page = Page {
        limit: 100,
        after: None,
    };
    let filter = ExecutionFilter::default();
    store.executions(filter, page).await.unwrap().0
}

/// Asks until it is so; a test that waits for ever has failed.
async fn until(mut is_so: impl AsyncFnMut() -> bool) {
    let asking = async {
        while !is_so().await {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let asked = tokio::time::timeout(Duration::from_secs(20), asking).await;
    asked.expect("it becomes so");
}

#[tokio::test(flavor = "multi_thread")]
async fn events_and_fire_times_from_before_the_restore_leave_doubt() {
    let folder = tempfile::tempdir().unwrap();
    let now = Utc::now();
    let at = now - TimeDelta::minutes(3);
    let store = restored_store(folder.path(), at).await;
    let Restored { at, backup } = store.restored().await.unwrap().unwrap();
    let extra = json!({ "event_subscriptions": ["orders.*"] });
    let rig = Rig::new(extra, |_, _| Say::Text("seen"), |_| store).await;

    let event = |id: &str, time: Time| Event {
        id: id.parse().unwrap(),
        topic: "orders.new".parse().unwrap(),
        source: "test".to_owned(),
        time,
        trace_id: TraceId::from_uuid(Uuid::from_u128(7)),
        hops: 0,
        data: json!({}),
    };
    rig.engine.start();
    for (id, time) in [("old", at - TimeDelta::minutes(1)), ("young", now)] {
        rig.engine.publish(event(id, time)).await.unwrap();
    }

    let config =
        json!({ "type": "interval", "interval_seconds": 86_400, "overlap_policy": "queue" });
    let new = NewSchedule {
        agent: "a".to_owned(),
        config: serde_json::from_value(config).unwrap(),
    };
    let schedules = rig.engine.schedules();
    let (row, _) = schedules.create("daily", new, false).await.unwrap();
    let waiting = |minutes: i64| NewRun {
        fire_time: now - TimeDelta::minutes(minutes),
        kind: RunKind::Schedule,
        fate: Fate::Wait,
    };
    let firing = Firing {
        name: "daily".parse().unwrap(),
        version: row.record.version,
        cursor: row.record.cursor,
        next_due: row.record.next_due,
        runs: vec![waiting(5), waiting(1)],
        waited: Vec::new(),
        over: Vec::new(),
        now,
        forget_before: now - TimeDelta::days(1),
    };
    rig.store.fire(vec![firing]).await.unwrap();
    rig.engine.start_scheduler();

    until(async || all(&*rig.store).await.len() == 4).await;
    for row in all(&*rig.store).await {
        let execution = &row.execution;
        let is_old = match execution.event_id.as_ref().map(|id| id.as_str()) {
            Some("old") => true,
            Some("young") => false,
            _ => {
                execution.metadata["fire_time"]
                    .as_str()
                    .unwrap()
                    .parse::<Time>()
                    .unwrap()
                    <= at
            }
        };
        assert_eq!(
            execution.restored,
            is_old.then_some(backup),
            "{execution:?}"
        );
    }
    // By hand, now: whoever says so knows what he does.
    schedules.trigger("daily", None).await.unwrap();
    until(async || all(&*rig.store).await.len() == 5).await;
    let doubts = all(&*rig.store)
        .await
        .iter()
        .filter(|row| row.execution.restored.is_some())
        .count();
    assert_eq!(doubts, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn doubt_goes_down_to_children_and_their_unsafe_calls_wait_for_a_person() {
    let helper = json!({ "tools": [{ "name": "helper", "type": "agent" }] });
    let rig = Rig::start(helper, |turn, request| {
        match (request.system == "You help.", turn) {
            (true, 0) => Say::Tools(vec![("charge", json!({}))]),
            (false, 0) => Say::Tools(vec![("helper", json!({ "task": "x" }))]),
            (_, _) => Say::Text("done"),
        }
    })
    .await;
    let charge = tool("charge", Effect::Unsafe);
    let mut help = definition(json!({ "name": "helper", "tools": [charge] }));
    help.system_prompt = "You help.".to_owned();
    rig.define(help).await;
    let backup = Utc::now();
    let task = NewTask {
        restored: Some(backup),
        ..NewTask::new("a", json!("go"), TraceId::from_uuid(Uuid::from_u128(1)))
    };
    let id = rig.engine.submit(task).await.unwrap().id;

    let inbox = async || {
        let filter = InboxFilter {
            agents: Vec::new(),
            execution: None,
            kind: None,
            now: Utc::now(),
            after: None,
            limit: 10,
        };
        rig.store.inbox(filter).await.unwrap().0
    };
    until(async || !inbox().await.is_empty()).await;
    let open = inbox().await.remove(0);
    assert_ne!(open.id, id, "it is the child that asks");
    assert!(
        rig.tools.calls.lock().unwrap().is_empty(),
        "nothing was charged"
    );
    let child = rig.store.execution(open.id).await.unwrap().unwrap();
    assert_eq!(child.execution.restored, Some(backup));
    assert_eq!(child.status, Status::WaitingForInput);
}
