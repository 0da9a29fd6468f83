//! Runs of a schedule that wait for one another.

use std::time::Duration;

use agentrunner_engine::{Engine, NewSchedule};
use chrono::{TimeDelta, Utc};
use domain::Status;
use serde_json::json;
use store::{Fate, Firing, NewRun, RunKind, ScheduleRun};

use crate::rig::{Rig, Say};

const NAME: &str = "daily";
/// How many runs wait in the beginning.
const WAITING: i32 = 5;
/// Looks come a second apart: with one run for each, they would take four seconds.
const AT_ONCE: TimeDelta = TimeDelta::seconds(2);

/// A schedule that is not due for hours, with runs that wait.
async fn backlog(rig: &Rig) {
    let config =
        json!({ "type": "interval", "interval_seconds": 86_400, "overlap_policy": "queue" });
    let new = NewSchedule {
        agent: "a".to_owned(),
        config: serde_json::from_value(config).unwrap(),
    };
    let schedules = rig.engine.schedules();
    let (row, _) = schedules.create(NAME, new, false).await.unwrap();
    let now = Utc::now();
    let waiting = |n: i32| NewRun {
        fire_time: now - TimeDelta::minutes((WAITING - n).into()),
        kind: RunKind::Schedule,
        fate: Fate::Wait,
    };
    let firing = Firing {
        name: NAME.parse().unwrap(),
        version: row.record.version,
        cursor: row.record.cursor,
        next_due: row.record.next_due,
        runs: (0..WAITING).map(waiting).collect(),
        waited: Vec::new(),
        over: Vec::new(),
        now,
        forget_before: now - TimeDelta::days(1),
    };
    rig.store.fire(vec![firing]).await.unwrap();
}

/// All runs, when all are completed; the first first.
async fn completed(engine: &Engine) -> Vec<ScheduleRun> {
    let all = async {
        loop {
            let (mut runs, _) = engine.schedules().runs(NAME, None, 100).await.unwrap();
            if runs.iter().all(|run| run.status == Some(Status::Completed)) {
                runs.reverse();
                return runs;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all)
        .await
        .expect("all that waited is done")
}

fn judge(runs: &[ScheduleRun]) {
    assert_eq!(runs.len(), WAITING as usize);
    for pair in runs.windows(2) {
        assert!(
            pair[0].finished_at <= pair[1].started_at,
            "one after the other: {pair:?}"
        );
    }
    let began = runs[0].started_at.unwrap();
    let ended = runs.last().and_then(|run| run.finished_at).unwrap();
    assert!(ended - began < AT_ONCE, "{}", ended - began);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waited_goes_on_as_soon_as_the_run_before_has_ended() {
    let rig = Rig::start(json!({}), |_, _| Say::Text("did it")).await;
    backlog(&rig).await;
    rig.engine.start_scheduler();
    judge(&completed(&rig.engine).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn also_when_another_process_performs_the_runs() {
    let rig = Rig::new(json!({}), |_, _| Say::Text("did it"), |store| store).await;
    backlog(&rig).await;
    let worker = rig.another("w2");
    worker.start();
    rig.engine.start_scheduler();
    judge(&completed(&rig.engine).await);
}
