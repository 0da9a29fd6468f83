//! Schedules, and that each fire time is acted on once.

use domain::schedule::SkipReason;
use domain::{Schedule, ScheduleName, Status, Time};
use serde_json::json;
use store::{
    DueSchedule, Fate, Fired, Firing, ManagedBy, NewRun, RunKind, RunState, ScheduleFilter,
    ScheduleRecord, ScheduleRun, Store,
};

use super::Fixture;
use super::given::{append, at, claim, commit, event, finish, outgoing, submission, task};

fn name(text: &str) -> ScheduleName {
    text.parse().unwrap()
}

/// A schedule of agent `a` with nothing handled yet, due at `due`.
fn record(wanted: &str, due: i64) -> ScheduleRecord {
    let config =
        json!({ "type": "interval", "interval_seconds": 60, "task_data": { "prompt": "go\u{0}" } });
    let config = serde_json::from_value(config).unwrap();
    ScheduleRecord {
        schedule: Schedule::from_config(name(wanted), "a".parse().unwrap(), &config, at(0))
            .unwrap(),
        managed_by: ManagedBy::Api,
        is_paused: false,
        cursor: at(0),
        next_due: Some(at(due)),
        version: 1,
        created_at: at(0),
        updated_at: at(0),
    }
}

async fn kept(store: &dyn Store, wanted: &str, due: i64) -> ScheduleRecord {
    let record = record(wanted, due);
    assert!(store.save_schedule(record.clone(), None).await.unwrap());
    record
}

fn firing(record: &ScheduleRecord, runs: Vec<NewRun>) -> Firing {
    let cursor = runs.last().map_or(record.cursor, |run| run.fire_time);
    Firing {
        name: record.schedule.name.clone(),
        version: record.version,
        cursor,
        next_due: record.schedule.next_due(cursor),
        runs,
        waited: Vec::new(),
        over: Vec::new(),
        now: cursor,
        forget_before: at(-1_000_000),
    }
}

fn run(record: &ScheduleRecord, fire_time: Time, fate: Fate) -> NewRun {
    debug_assert!(record.cursor <= fire_time);
    NewRun {
        fire_time,
        kind: RunKind::Schedule,
        fate,
    }
}

/// A run that starts.
fn start(record: &ScheduleRecord, fire_time: Time) -> NewRun {
    let mut execution = task("a");
    execution.created_at = fire_time;
    execution.event_id = record.schedule.event_id(fire_time);
    let mut submission = submission(execution);
    submission.events = vec![event(&format!("scheduled-{}", submission.execution.id))];
    run(record, fire_time, Fate::Start(Box::new(submission)))
}

async fn fire(store: &dyn Store, firing: Firing) -> Fired {
    store.fire(vec![firing]).await.unwrap().remove(0)
}

async fn runs(store: &dyn Store, wanted: &str) -> Vec<ScheduleRun> {
    store
        .schedule_runs(&name(wanted), None, 1000)
        .await
        .unwrap()
        .0
}

async fn due(store: &dyn Store, now: i64) -> Vec<DueSchedule> {
    store
        .due_schedules(at(now), at(now + 300), 100)
        .await
        .unwrap()
        .due
}

fn names(due: &[DueSchedule]) -> Vec<&str> {
    due.iter()
        .map(|due| due.record.schedule.name.as_str())
        .collect()
}

pub(crate) async fn a_schedule_is_kept_as_it_was_seen(f: &impl Fixture) {
    let store = f.store();
    let first = kept(&*store, "s", 60).await;
    let row = store.schedule(&name("s")).await.unwrap().unwrap();
    assert_eq!((row.record, row.last_run), (first.clone(), None));
    assert!(
        !store.save_schedule(first.clone(), None).await.unwrap(),
        "it is there"
    );
    let changed = ScheduleRecord {
        is_paused: true,
        managed_by: ManagedBy::File("s.yml".to_owned()),
        next_due: None,
        updated_at: at(5),
        ..first.clone()
    };
    assert!(
        !store.save_schedule(changed.clone(), Some(2)).await.unwrap(),
        "not this version"
    );
    assert!(store.save_schedule(changed.clone(), Some(1)).await.unwrap());
    assert!(
        !store.save_schedule(first.clone(), Some(1)).await.unwrap(),
        "it has changed"
    );
    let row = store.schedule(&name("s")).await.unwrap().unwrap();
    assert_eq!(
        row.record,
        ScheduleRecord {
            version: 2,
            ..changed
        }
    );
    assert!(store.schedule(&name("t")).await.unwrap().is_none());
}

pub(crate) async fn schedules_are_listed_by_name(f: &impl Fixture) {
    let store = f.store();
    for wanted in ["b-2", "a_1", "b", "c", "b_1"] {
        kept(&*store, wanted, 60).await;
    }
    let mut paused = store.schedule(&name("c")).await.unwrap().unwrap().record;
    paused.is_paused = true;
    paused.managed_by = ManagedBy::File("c.yml".to_owned());
    assert!(store.save_schedule(paused, Some(1)).await.unwrap());
    let list = async |filter: ScheduleFilter| {
        let (rows, total) = store.schedules(filter).await.unwrap();
        let names: Vec<String> = rows
            .iter()
            .map(|row| row.record.schedule.name.to_string())
            .collect();
        (names.join(" "), total)
    };
    let all = || ScheduleFilter {
        limit: 100,
        ..ScheduleFilter::default()
    };
    assert_eq!(list(all()).await, ("a_1 b b-2 b_1 c".to_owned(), 5));
    let page = ScheduleFilter {
        after: Some(name("b")),
        limit: 2,
        ..all()
    };
    assert_eq!(list(page).await, ("b-2 b_1".to_owned(), 5));
    assert_eq!(
        list(ScheduleFilter {
            is_active: Some(false),
            ..all()
        })
        .await,
        ("c".to_owned(), 1)
    );
    assert_eq!(
        list(ScheduleFilter {
            is_of_file: Some(true),
            ..all()
        })
        .await,
        ("c".to_owned(), 1)
    );
    assert_eq!(
        list(ScheduleFilter {
            agent: Some("x".parse().unwrap()),
            ..all()
        })
        .await
        .1,
        0
    );
}

pub(crate) async fn a_fire_time_starts_one_execution_however_many_schedulers_act(f: &impl Fixture) {
    let store = f.store();
    let mut records = Vec::new();
    for n in 0..20 {
        records.push(kept(&*store, &format!("s{n}"), 60).await);
    }
    // Each with the whole batch, in another order.
    let schedulers = (0..8).map(|shift| {
        let store = store.clone();
        let mut firings: Vec<Firing> = records
            .iter()
            .map(|record| firing(record, vec![start(record, at(60))]))
            .collect();
        firings.rotate_left(shift * 2);
        tokio::spawn(async move { store.fire(firings).await.unwrap() })
    });
    let schedulers: Vec<_> = schedulers.collect();
    let mut acted = 0;
    for scheduler in schedulers {
        let answers = scheduler.await.unwrap();
        acted += answers
            .iter()
            .filter(|fired| matches!(fired, Fired::Done(_)))
            .count();
    }
    assert_eq!(acted, 20);
    assert_eq!(claim(&*store, 100, at(61)).await.len(), 20);
    assert_eq!(outgoing(&*store).await.len(), 20);
    for n in 0..20 {
        let runs = runs(&*store, &format!("s{n}")).await;
        assert_eq!(runs.len(), 1);
        assert_eq!(
            (runs[0].fire_time, runs[0].state, runs[0].status),
            (at(60), RunState::Started, Some(Status::Running))
        );
    }
    assert!(due(&*store, 61).await.is_empty());
}

pub(crate) async fn one_firing_is_all_or_nothing(f: &impl Fixture) {
    let store = f.store();
    let record = kept(&*store, "s", 60).await;
    let mut whole = firing(
        &record,
        vec![start(&record, at(60)), start(&record, at(120))],
    );
    if let Fate::Start(submission) = &mut whole.runs[1].fate {
        submission.execution.input = (0..500).fold(json!(null), |inner, _| json!([inner]));
    }
    store.fire(vec![whole]).await.unwrap_err();
    assert!(runs(&*store, "s").await.is_empty());
    assert!(claim(&*store, 10, at(200)).await.is_empty());
    assert_eq!(due(&*store, 60).await[0].record, record);
}

pub(crate) async fn what_changed_since_it_was_seen_is_left_alone(f: &impl Fixture) {
    let store = f.store();
    let seen = kept(&*store, "s", 60).await;
    let other = kept(&*store, "t", 60).await;
    let paused = ScheduleRecord {
        is_paused: true,
        next_due: None,
        ..seen.clone()
    };
    assert!(store.save_schedule(paused, Some(1)).await.unwrap());
    let answers = store
        .fire(vec![
            firing(&seen, vec![start(&seen, at(60))]),
            firing(&other, vec![start(&other, at(60))]),
        ])
        .await
        .unwrap();
    assert_eq!(answers[0], Fired::Raced);
    assert!(matches!(&answers[1], Fired::Done(runs) if runs.len() == 1));
    assert!(runs(&*store, "s").await.is_empty());
    let gone = record("gone", 60);
    assert_eq!(
        fire(&*store, firing(&gone, vec![start(&gone, at(60))])).await,
        Fired::Raced
    );
}

pub(crate) async fn a_fire_time_that_has_a_row_starts_nothing(f: &impl Fixture) {
    let store = f.store();
    let first = kept(&*store, "s", 60).await;
    fire(&*store, firing(&first, vec![start(&first, at(60))])).await;
    // As after a clock that went back.
    let again = ScheduleRecord {
        version: 2,
        ..first
    };
    let runs_again = vec![start(&again, at(60)), start(&again, at(120))];
    let Fired::Done(started) = fire(&*store, firing(&again, runs_again)).await else {
        panic!("nobody else acted");
    };
    assert_eq!(
        started.iter().map(|(time, _)| *time).collect::<Vec<_>>(),
        [at(120)]
    );
    assert_eq!(claim(&*store, 10, at(121)).await.len(), 2);
}

pub(crate) async fn a_waiting_run_is_found_when_nothing_is_before_it(f: &impl Fixture) {
    let store = f.store();
    let first = kept(&*store, "s", 60).await;
    let wait = run(&first, at(120), Fate::Wait);
    fire(&*store, firing(&first, vec![start(&first, at(60)), wait])).await;
    assert!(due(&*store, 130).await.is_empty());
    let owner = claim(&*store, 10, at(130)).await.remove(0);
    assert!(due(&*store, 131).await.is_empty());
    commit(&*store, append(&owner, at(140), Vec::new(), finish())).await;
    let found = due(&*store, 141).await;
    assert_eq!(names(&found), ["s"]);
    let open = &found[0].open;
    assert_eq!(
        (open[0].execution, open[0].is_over),
        (Some(owner.execution.id), true)
    );
    assert_eq!(
        (open[1].fire_time, open[1].execution, open[1].is_over),
        (at(120), None, false)
    );
    let mut begin = firing(&found[0].record, Vec::new());
    begin.waited = vec![start(&first, at(120))];
    begin.over = vec![at(60)];
    let twice = store.fire(vec![begin.clone()]).await.unwrap();
    assert!(matches!(&twice[0], Fired::Done(runs) if runs[0].0 == at(120)));
    assert_eq!(fire(&*store, begin).await, Fired::Raced);
    assert!(due(&*store, 142).await.is_empty());
    assert_eq!(claim(&*store, 10, at(142)).await.len(), 1);
    let states: Vec<_> = runs(&*store, "s")
        .await
        .iter()
        .map(|run| run.status)
        .collect();
    assert_eq!(states, [Some(Status::Running), Some(Status::Completed)]);
}

pub(crate) async fn a_skipped_run_keeps_its_reason(f: &impl Fixture) {
    let store = f.store();
    let record = kept(&*store, "s", 60).await;
    let reason = SkipReason::Agent {
        why: "there is no agent\u{0}".to_owned(),
    };
    let skip = run(&record, at(60), Fate::Skip(SkipReason::Overlap));
    let refused = run(&record, at(120), Fate::Skip(reason));
    fire(&*store, firing(&record, vec![skip, refused])).await;
    let (page, total) = store
        .schedule_runs(&name("s"), Some(at(120)), 10)
        .await
        .unwrap();
    assert_eq!((page.len(), total), (1, 2));
    assert_eq!(
        (page[0].state, page[0].reason.as_deref()),
        (RunState::Skipped, Some("overlap"))
    );
    assert!(page[0].detail.as_ref().unwrap().contains("had not ended"));
    assert_eq!((page[0].execution, page[0].noticed_at), (None, at(120)));
    let last = store
        .schedule(&name("s"))
        .await
        .unwrap()
        .unwrap()
        .last_run
        .unwrap();
    assert_eq!(
        (last.fire_time, last.reason.as_deref()),
        (at(120), Some("agent"))
    );
    let (listed, _) = store
        .schedules(ScheduleFilter {
            limit: 9,
            ..ScheduleFilter::default()
        })
        .await
        .unwrap();
    assert_eq!(listed[0].last_run, Some(last));
}

pub(crate) async fn a_happening_that_was_acted_on_keeps_its_execution(f: &impl Fixture) {
    let store = f.store();
    let first = kept(&*store, "s", 60).await;
    let Fired::Done(started) = fire(&*store, firing(&first, vec![start(&first, at(60))])).await
    else {
        panic!("nobody else acted");
    };
    // The same request of a person, repeated a moment later.
    let seen = ScheduleRecord {
        version: 2,
        ..first.clone()
    };
    let mut again = start(&first, at(60));
    again.fire_time = at(61);
    again.kind = RunKind::Manual;
    let Fired::Done(repeated) = fire(&*store, firing(&seen, vec![again])).await else {
        panic!("nobody else acted");
    };
    assert_eq!(repeated[0].1, started[0].1);
    assert_eq!(runs(&*store, "s").await.len(), 1);
    assert_eq!(claim(&*store, 10, at(62)).await.len(), 1);
}

pub(crate) async fn due_ones_come_first_and_the_next_is_told(f: &impl Fixture) {
    let store = f.store();
    for (wanted, due) in [("late", 10), ("later", 20), ("now", 30), ("soon", 40)] {
        kept(&*store, wanted, due).await;
    }
    let mut never = record("never", 1);
    never.next_due = None;
    assert!(store.save_schedule(never, None).await.unwrap());
    let found = store.due_schedules(at(30), at(330), 100).await.unwrap();
    assert_eq!(names(&found.due), ["late", "later", "now"]);
    assert_eq!(found.next_due, Some(at(40)));
    let some = store.due_schedules(at(30), at(330), 2).await.unwrap();
    assert_eq!(names(&some.due), ["late", "later"]);
}

pub(crate) async fn a_clock_that_went_back_is_noticed(f: &impl Fixture) {
    let store = f.store();
    let mut ahead = record("ahead", 10_060);
    ahead.cursor = at(10_000);
    assert!(store.save_schedule(ahead, None).await.unwrap());
    assert_eq!(names(&due(&*store, 100).await), ["ahead"]);
    assert!(
        due(&*store, 9_800).await.is_empty(),
        "two clocks may differ a little"
    );
}

pub(crate) async fn old_runs_are_forgotten(f: &impl Fixture) {
    let store = f.store();
    let mut record = kept(&*store, "s", 60).await;
    for n in 1..20 {
        let skip = run(&record, at(n * 60), Fate::Skip(SkipReason::Overlap));
        let mut look = firing(&record, vec![skip]);
        look.forget_before = at((n - 5) * 60);
        assert!(matches!(fire(&*store, look).await, Fired::Done(_)));
        record.version += 1;
        record.cursor = at(n * 60);
    }
    let left: Vec<_> = runs(&*store, "s")
        .await
        .iter()
        .map(|run| run.fire_time)
        .collect();
    assert_eq!(left, [19, 18, 17, 16, 15, 14].map(|n| at(n * 60)));
}

pub(crate) async fn a_forgotten_schedule_takes_its_runs_along(f: &impl Fixture) {
    let store = f.store();
    let first = kept(&*store, "s", 60).await;
    let Fired::Done(started) = fire(&*store, firing(&first, vec![start(&first, at(60))])).await
    else {
        panic!("nobody else acted");
    };
    assert!(
        !store.remove_schedule(&name("s"), 1).await.unwrap(),
        "it has changed"
    );
    assert!(store.remove_schedule(&name("s"), 2).await.unwrap());
    assert!(!store.remove_schedule(&name("s"), 2).await.unwrap());
    assert!(runs(&*store, "s").await.is_empty());
    assert!(store.execution(started[0].1).await.unwrap().is_some());
    let new = kept(&*store, "s", 60).await;
    assert_eq!(new.version, 1);
}
