//! The real schedulers on a simulated clock, over a real store: 400 days, four zones, both changes of the clock, 500
//! schedules, three schedulers that are killed in the midst of their looks, and an outage of two hours.
//!
//! Afterwards every fire time of the independent calculation has exactly one row, and no other row is there; each row
//! has one execution, or the reason that the policy gives.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::task::Poll;
use std::time::Duration;

use bus::InProcess;
use chrono::{DateTime, TimeDelta, Utc};
use domain::execution::Totals;
use domain::schedule::Schedule;
use domain::{
    AgentName, Definition, ExecutionId, ExecutionMode, Outcome, Seq, Status, Step, StepBody,
    StopReason,
};
use engine::{Agent, Agents, Engine, Ports, Scheduler, StoreHost};
use futures::FutureExt;
use serde_json::json;
use store::{
    Append, Claim, Claimed, ManagedBy, RunState, ScheduleRecord, ScheduleRun, Store, Then,
};

use super::oracle::{Days, When};
use crate::backing;

type Time = DateTime<Utc>;

const ZONES: [&str; 4] = [
    "Europe/Berlin",
    "America/New_York",
    "Australia/Lord_Howe",
    "Asia/Kolkata",
];
/// How long a run of the slow agent takes: longer than the pause between its fire times.
const SLOW: TimeDelta = TimeDelta::hours(30);

/// How many runs of the quick agent are claimed at once.
const AT_ONCE: usize = 500;

/// What is simulated.
struct World {
    begin: Time,
    end: Time,
    outage: (Time, Time),
    plans: Vec<Planned>,
}

/// A schedule, and when it is to fire.
struct Planned {
    name: String,
    when: When,
    agent: &'static str,
    misfire: &'static str,
    overlap: &'static str,
    jitter: u64,
}

fn at(text: &str) -> Time {
    text.parse().unwrap()
}

/// Numbers that look random and are the same each time.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n
    }
}

impl World {
    fn new(begin: &str, days: i64, outage: &str, schedules: usize) -> Self {
        let outage = at(outage);
        let begin = at(begin);
        Self {
            begin,
            end: begin + TimeDelta::days(days),
            outage: (outage, outage + TimeDelta::hours(2)),
            plans: (0..schedules).map(planned).collect(),
        }
    }

    fn is_out(&self, time: Time) -> bool {
        self.outage.0 <= time && time < self.outage.1
    }
}

/// A mixture: many at night, when the clock changes, on few days; some that overlap themselves.
fn planned(n: usize) -> Planned {
    let mut chance = Chance(n as u64 + 1);
    let zone = ZONES[n % ZONES.len()];
    let mut pick = |n: u64| chance.below(n) as i8;
    let hour = 1 + pick(3);
    let minute = if hour == 2 { pick(2) * 30 } else { 0 };
    let (agent, when) = match n % 25 {
        0 => (
            "quick",
            When::WrittenOut {
                hours: vec![hour],
                minutes: vec![minute],
                days: Days::All,
                zone,
            },
        ),
        1..6 => (
            "quick",
            When::WrittenOut {
                hours: vec![2, 3],
                minutes: vec![0],
                days: Days::Week(0),
                zone,
            },
        ),
        6..8 => (
            "quick",
            When::WrittenOut {
                hours: vec![hour],
                minutes: vec![30],
                days: Days::Week(pick(7)),
                zone,
            },
        ),
        8..19 => (
            "quick",
            When::WrittenOut {
                hours: vec![hour],
                minutes: vec![minute],
                days: Days::Month(1 + pick(31)),
                zone,
            },
        ),
        19 => (
            "quick",
            When::WrittenOut {
                hours: vec![hour],
                minutes: vec![minute],
                days: Days::Work,
                zone,
            },
        ),
        20 => (
            "quick",
            When::EverySoMany {
                step: 30,
                hours: vec![1, 2, 3],
                days: Days::Week(0),
                zone,
            },
        ),
        21..24 => (
            "quick",
            When::Interval(600_000 + 3600 * i64::from(pick(100))),
        ),
        _ => ("slow", When::Interval(72_000)),
    };
    Planned {
        name: format!("s{n}"),
        when,
        agent,
        misfire: ["skip", "once", "all"][(n / 25 + n) % 3],
        overlap: if agent == "slow" {
            ["skip", "queue", "cancel"][(n / 25) % 3]
        } else {
            "skip"
        },
        jitter: if n.is_multiple_of(50) { 600 } else { 0 },
    }
}

impl Planned {
    fn schedule(&self, begin: Time) -> Schedule {
        let mut fields = self.when.fields();
        fields["misfire_policy"] = json!(self.misfire);
        fields["overlap_policy"] = json!(self.overlap);
        fields["jitter_seconds"] = json!(self.jitter);
        let config = serde_json::from_value(fields).unwrap();
        let (name, agent) = (self.name.parse().unwrap(), self.agent.parse().unwrap());
        Schedule::from_config(name, agent, &config, begin).unwrap()
    }
}

/// Three schedulers over a store, and a clock that the test turns.
struct Rig {
    store: Arc<dyn Store>,
    clock: Arc<AtomicI64>,
    schedulers: Vec<Scheduler>,
    /// When each open run of the slow agent ends.
    slow: BTreeMap<ExecutionId, Time>,
    /// How many looks were broken off.
    kills: usize,
}

fn definition(name: &str) -> Definition {
    serde_json::from_value(json!({
        "name": name, "execution_mode": "scheduled", "system_prompt": "x", "timeout_seconds": 31_000_000,
        "llm_config": { "provider": "scripted", "model": "m" },
        "schedule_config": { "type": "interval", "interval_seconds": 1_000_000 },
    }))
    .unwrap()
}

impl Rig {
    fn new(store: Arc<dyn Store>, begin: Time) -> Self {
        let clock = Arc::new(AtomicI64::new(begin.timestamp_micros()));
        let hands = clock.clone();
        let now: engine::Clock = Arc::new(move || {
            DateTime::from_timestamp_micros(hands.load(Ordering::SeqCst)).unwrap()
        });
        let agents = Agents::new(Arc::new(|definition: &Definition| Ok(definition.clone())));
        let each = ["quick", "slow"].map(|name| {
            let definition = Arc::new(definition(name));
            let agent = Agent {
                version: definition.content_hash(),
                definition,
                path: String::new(),
                loaded_at: begin,
                rejected: None,
                switched_off: None,
            };
            (name.parse::<AgentName>().unwrap(), agent)
        });
        agents.replace(each.into());
        let tools = tools::ToolkitSettings::new(std::env::temp_dir(), now.clone());
        let ports = Ports {
            store: store.clone(),
            bus: Arc::new(InProcess::default()),
            model: Arc::new(llm::Providers::new(llm::ProviderSettings::default())),
            tools: Arc::new(tools::Toolkit::new(
                tools,
                Arc::new(StoreHost::new(store.clone(), now.clone())),
            )),
            clock: now,
        };
        let scheduler = |name: &str| {
            let settings = engine::Settings {
                worker: name.parse().unwrap(),
                capacity: 1,
                modes: vec![ExecutionMode::Scheduled],
                lease: Duration::from_secs(10),
                poll: Duration::from_secs(1),
                max_crashes: 3,
                max_reply_bytes: 1 << 20,
                is_gone: None,
                registration: engine::Registration::default(),
            };
            let engine = Engine::new(ports.clone(), agents.clone(), settings);
            engine.scheduler().keeping(TimeDelta::days(10_000))
        };
        Self {
            schedulers: ["one", "two", "three"].map(scheduler).into(),
            store,
            clock,
            slow: BTreeMap::new(),
            kills: 0,
        }
    }

    fn now(&self) -> Time {
        DateTime::from_timestamp_micros(self.clock.load(Ordering::SeqCst)).unwrap()
    }

    fn set(&self, time: Time) {
        self.clock.store(time.timestamp_micros(), Ordering::SeqCst);
    }

    async fn define(&self, world: &World) {
        for planned in &world.plans {
            let schedule = planned.schedule(world.begin);
            let record = ScheduleRecord {
                next_due: schedule.next_due(world.begin),
                schedule,
                managed_by: ManagedBy::Api,
                is_paused: false,
                cursor: world.begin,
                version: 0,
                created_at: world.begin,
                updated_at: world.begin,
            };
            assert!(self.store.save_schedule(record, None).await.unwrap());
        }
    }

    /// One, two or all three look at once, some are killed; if any was, one looks until nothing is left. Answers when to
    /// look next.
    async fn look(&mut self, chance: &mut Chance) -> Option<Time> {
        let awake = 1 + chance.below(7);
        let each = self.schedulers.iter().enumerate();
        let looks = each.filter(|(n, _)| awake & (1 << n) != 0);
        let looks = looks.map(|(_, scheduler)| {
            let patience = if chance.below(8) == 0 {
                chance.below(8)
            } else {
                u64::MAX
            };
            killed_after(patience, scheduler.look())
        });
        let looked = futures::future::join_all(looks).await;
        let kills = looked.iter().filter(|looked| looked.is_none()).count();
        self.kills += kills;
        if kills == 0 {
            let looked = looked.into_iter().flatten().map(Result::unwrap);
            return looked.filter_map(|looked| looked.next_due).min();
        }
        loop {
            let one = chance.below(3) as usize;
            let looked = self.schedulers[one].look().await.unwrap();
            if looked.left > 0 {
                // The transaction of one that was killed is not over yet.
                tokio::time::sleep(Duration::from_millis(5)).await;
            } else if looked.acted == 0 {
                return looked.next_due;
            }
        }
    }

    fn claim(&self, only: Option<ExecutionId>) -> Claim {
        let without = if only.is_some() { "quick" } else { "slow" };
        Claim {
            worker: "worker".parse().unwrap(),
            now: self.now(),
            lease: Duration::from_secs(1_000_000_000),
            limit: AT_ONCE,
            only,
            modes: vec![ExecutionMode::Scheduled],
            without: vec![without.parse().unwrap()],
        }
    }

    /// Runs of the quick agent end at once.
    async fn end_quick(&self) {
        loop {
            let claimed = self.store.claim(self.claim(None)).await.unwrap();
            futures::future::join_all(claimed.iter().map(|owner| self.finish(owner))).await;
            if claimed.len() < AT_ONCE {
                return;
            }
        }
    }

    /// Runs of the slow agent end when their time has come.
    async fn end_slow(&mut self) {
        let now = self.now();
        let over: Vec<ExecutionId> = self
            .slow
            .iter()
            .filter(|(_, end)| **end <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in over {
            self.slow.remove(&id);
            for owner in self.store.claim(self.claim(Some(id))).await.unwrap() {
                self.finish(&owner).await;
            }
        }
    }

    async fn finish(&self, owner: &Claimed) {
        let outcome = Outcome::Completed {
            output: String::new(),
            structured: None,
            stop: StopReason::EndTurn,
        };
        let step = Step {
            seq: Seq::FIRST,
            at: self.now(),
            epoch: owner.epoch,
            body: StepBody::Finished {
                outcome: outcome.clone(),
            },
        };
        let end = Append {
            id: owner.execution.id,
            epoch: owner.epoch,
            now: self.now(),
            steps: vec![step],
            totals: Totals::default(),
            events: Vec::new(),
            children: Vec::new(),
            then: Then::Finish {
                outcome,
                messages: Vec::new(),
                digest: None,
            },
        };
        self.store.append(end).await.unwrap();
    }

    /// Notes when what the slow agent has begun will end.
    async fn watch_slow(&mut self, world: &World) {
        for planned in world.plans.iter().filter(|planned| planned.agent == "slow") {
            let (runs, _) = self
                .store
                .schedule_runs(&planned.name.parse().unwrap(), None, 4)
                .await
                .unwrap();
            for run in runs.iter().filter(|run| run.status == Some(Status::Queued)) {
                self.slow
                    .entry(run.execution.unwrap())
                    .or_insert(run.noticed_at + SLOW);
            }
        }
        let open: BTreeSet<ExecutionId> = self.slow.keys().copied().collect();
        for id in open {
            let row = self.store.execution(id).await.unwrap().unwrap();
            if row.status.is_terminal() {
                self.slow.remove(&id);
            }
        }
    }

    async fn live(&mut self, world: &World) {
        let mut chance = Chance(7);
        let mut next = Some(world.begin);
        let mut steps = 0;
        while let Some(due) = next.into_iter().chain(self.slow.values().copied()).min() {
            let mut now = due.max(self.now()) + TimeDelta::milliseconds(chance.below(3000) as i64);
            if world.is_out(now) {
                now = world.outage.1;
            }
            if now > world.end {
                break;
            }
            self.set(now);
            let is_eventful = self.is_eventful(world, now);
            if is_eventful {
                self.end_slow().await;
            }
            next = self.look(&mut chance).await;
            self.end_quick().await;
            // Runs that wait for one another begin within a second each.
            while is_eventful && self.schedulers[0].look().await.unwrap().acted > 0 {
                self.end_quick().await;
            }
            if is_eventful {
                self.watch_slow(world).await;
            }
            steps += 1;
            if steps % 200 == 0 {
                self.forget_events().await;
            }
        }
    }

    /// Whether runs may be waiting, or something of the slow agent may have changed: it fires on the hours of its
    /// interval only.
    fn is_eventful(&self, world: &World, now: Time) -> bool {
        let since = (now - world.begin).num_seconds();
        let after_outage = now - world.outage.1;
        since % 72_000 < 10
            || self.slow.values().any(|end| *end <= now)
            || (TimeDelta::zero()..TimeDelta::hours(1)).contains(&after_outage)
    }

    async fn forget_events(&self) {
        let waiting = self.store.outbox(10_000).await.unwrap();
        let ids: Vec<i64> = waiting.iter().map(|entry| entry.id).collect();
        self.store.outbox_done(&ids).await.unwrap();
    }
}

/// The process of a scheduler is gone after its future was polled so often; `None` if that was before it had ended.
async fn killed_after<T>(patience: u64, work: impl Future<Output = T>) -> Option<T> {
    let mut work = Box::pin(work);
    let mut polls = 0;
    std::future::poll_fn(|context| {
        if polls >= patience {
            return Poll::Ready(None);
        }
        polls += 1;
        work.poll_unpin(context).map(Some)
    })
    .await
}

/// Compares what became with what was to become; answers how many fire times there were, and how many were missed.
async fn judge(store: &dyn Store, world: &World) -> (usize, usize) {
    let (mut fired, mut missed) = (0, 0);
    let mut executions = BTreeSet::new();
    let safe = world.end - TimeDelta::hours(1);
    for planned in &world.plans {
        let name = &planned.name;
        let schedule = planned.schedule(world.begin);
        let mut rows = all_runs(store, name).await;
        rows.retain(|run| run.fire_time <= safe);
        let expected = planned.when.fire_times(world.begin, safe);
        let found: Vec<Time> = rows.iter().map(|run| run.fire_time).collect();
        assert_eq!(found, expected, "{name}: {:?}", planned.when);
        for run in rows.iter().filter(|run| run.state == RunState::Started) {
            assert!(
                executions.insert(run.execution.unwrap()),
                "{name}: two rows, one execution"
            );
        }
        fired += rows.len();
        let (out, on_time): (Vec<&ScheduleRun>, Vec<&ScheduleRun>) = rows
            .iter()
            .partition(|run| world.is_out(schedule.due_at(run.fire_time)));
        missed += out.len();
        judge_missed(planned, &schedule, &out, world);
        if planned.agent == "quick" {
            for run in on_time {
                let lag = run.noticed_at - schedule.due_at(run.fire_time);
                assert_eq!(run.state, RunState::Started, "{name}: {run:?}");
                assert_eq!(run.status, Some(Status::Completed), "{name}: {run:?}");
                assert!(
                    lag >= TimeDelta::zero() && lag < TimeDelta::seconds(10),
                    "{name}: {run:?}"
                );
            }
        } else {
            judge_overlap(planned, &rows);
        }
    }
    (fired, missed)
}

async fn all_runs(store: &dyn Store, name: &str) -> Vec<ScheduleRun> {
    let name = name.parse().unwrap();
    let mut all: Vec<ScheduleRun> = Vec::new();
    loop {
        let before = all.last().map(|run| run.fire_time);
        let (page, _) = store.schedule_runs(&name, before, 1000).await.unwrap();
        if page.is_empty() {
            all.reverse();
            return all;
        }
        all.extend(page);
    }
}

/// What the misfire policy says about those that came due while nobody looked.
fn judge_missed(planned: &Planned, schedule: &Schedule, out: &[&ScheduleRun], world: &World) {
    let Some(last) = out.last() else { return };
    let is_in_time = world.outage.1 - schedule.due_at(last.fire_time) <= TimeDelta::seconds(60);
    for run in out {
        let is_last = run.fire_time == last.fire_time;
        let what = (planned.misfire, is_last && is_in_time, is_last);
        let name = &planned.name;
        match what {
            (_, true, _) | ("once", _, true) | ("all", ..) => {
                let may_overlap =
                    planned.agent == "slow" && run.reason.as_deref() == Some("overlap");
                assert!(
                    run.state != RunState::Skipped || may_overlap,
                    "{name}: {run:?}"
                );
            }
            ("skip", ..) => assert_eq!(run.reason.as_deref(), Some("misfire"), "{name}: {run:?}"),
            _ => assert_eq!(run.reason.as_deref(), Some("coalesced"), "{name}: {run:?}"),
        }
    }
}

/// What the overlap policy says when each run takes longer than the pause to the next.
fn judge_overlap(planned: &Planned, rows: &[ScheduleRun]) {
    let name = &planned.name;
    let ended = |run: &ScheduleRun| run.finished_at.unwrap_or(DateTime::<Utc>::MAX_UTC);
    let mut before: Option<&ScheduleRun> = None;
    for run in rows {
        match (planned.overlap, run.state) {
            ("skip", RunState::Skipped) if run.reason.as_deref() == Some("overlap") => {
                let other =
                    before.unwrap_or_else(|| panic!("{name}: nothing was in the way of {run:?}"));
                assert!(
                    ended(other) > run.noticed_at,
                    "{name}: {other:?} was over at {run:?}"
                );
            }
            ("skip" | "queue", RunState::Started) => {
                if let Some(other) = before {
                    assert!(
                        ended(other) <= run.noticed_at,
                        "{name}: {other:?} was not over at {run:?}"
                    );
                }
            }
            ("cancel", RunState::Started) => {
                if let Some(other) = before {
                    assert_eq!(
                        other.status,
                        Some(Status::Cancelled),
                        "{name}: {other:?} before {run:?}"
                    );
                }
            }
            ("queue", RunState::Waiting) => {}
            (_, RunState::Skipped) => {
                let reason = run.reason.as_deref();
                assert!(
                    matches!(reason, Some("misfire" | "coalesced" | "queue_full")),
                    "{name}: {run:?}"
                );
            }
            _ => panic!("{name}: {run:?}"),
        }
        if run.state == RunState::Started {
            before = Some(run);
        }
    }
}

/// The outage begins a few minutes before Berlin's clocks go back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedules_match_an_independent_calculation_over_400_days() {
    let world = World::new("2026-01-01T00:00:00Z", 400, "2026-10-24T23:55:00Z", 500);
    let folder = tempfile::tempdir().unwrap();
    let options = store::sqlite::Options {
        is_durable: false,
        ..store::sqlite::Options::default()
    };
    let store = store::sqlite::Sqlite::open(&folder.path().join("a.db"), options).unwrap();
    let mut rig = Rig::new(Arc::new(store), world.begin);
    rig.define(&world).await;
    rig.live(&world).await;
    let (fired, missed) = judge(&*rig.store, &world).await;
    let kills = rig.kills;
    println!("{fired} fire times, {missed} of them in the outage, {kills} looks broken off");
    assert!(
        fired > 40_000 && missed > 50 && kills > 1000,
        "{fired} {missed} {kills}"
    );
}

/// The same, shorter: over the weeks in which clocks go back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn schedules_match_an_independent_calculation_on_postgres() {
    let world = World::new("2026-10-18T00:00:00Z", 16, "2026-10-24T23:55:00Z", 150);
    let variables = backing::postgres().await;
    let settings = store::postgres::Settings {
        url: Some(variables[0].1.clone().into()),
        ..store::postgres::Settings::default()
    };
    let store = store::postgres::Postgres::connect(settings).await.unwrap();
    let mut rig = Rig::new(Arc::new(store), world.begin);
    rig.define(&world).await;
    rig.live(&world).await;
    let (fired, missed) = judge(&*rig.store, &world).await;
    let kills = rig.kills;
    println!("{fired} fire times, {missed} of them in the outage, {kills} looks broken off");
    assert!(
        fired > 500 && missed > 10 && kills > 20,
        "{fired} {missed} {kills}"
    );
}

/// The clock jumps ahead by two days and back: nothing fires twice, and schedules go on as the clock says.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_jumps_doubles_nothing_and_stops_nothing() {
    let begin = at("2026-06-01T00:00:00Z");
    let folder = tempfile::tempdir().unwrap();
    let store = store::sqlite::Sqlite::open(
        &folder.path().join("a.db"),
        store::sqlite::Options::default(),
    )
    .unwrap();
    let mut rig = Rig::new(Arc::new(store), begin);
    let hourly = Planned {
        name: "hourly".to_owned(),
        when: When::Interval(3600),
        agent: "quick",
        misfire: "once",
        overlap: "skip",
        jitter: 0,
    };
    let world = World {
        begin,
        end: begin + TimeDelta::days(10),
        outage: (begin, begin),
        plans: vec![hourly],
    };
    rig.define(&world).await;
    let mut chance = Chance(3);
    let mut visit = async |hours: i64| {
        rig.set(begin + TimeDelta::hours(hours));
        rig.look(&mut chance).await;
        rig.end_quick().await;
        all_runs(&*rig.store, "hourly").await
    };
    visit(1).await;
    visit(2).await;
    let ahead = visit(50).await;
    assert_eq!(ahead.len(), 50);
    assert_eq!(
        ahead
            .iter()
            .filter(|run| run.state == RunState::Started)
            .count(),
        3
    );
    assert_eq!(visit(3).await.len(), 50, "what has a row keeps it");
    for hours in 4..=52 {
        visit(hours).await;
    }
    let rows = visit(53).await;
    let times: BTreeSet<Time> = rows.iter().map(|run| run.fire_time).collect();
    assert_eq!((rows.len(), times.len()), (53, 53));
    let started: Vec<i64> = rows
        .iter()
        .filter(|run| run.state == RunState::Started)
        .map(|run| (run.fire_time - begin).num_hours())
        .collect();
    assert_eq!(started, [1, 2, 50, 51, 52, 53]);
}
