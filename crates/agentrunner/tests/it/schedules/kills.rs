//! kill -9 at due times: two schedulers in processes of their own on one PostgreSQL, of which one or both are killed again
//! and again at the moment at which something is due.
//!
//! Afterwards every due time has exactly one row, every row that started has one execution and every execution one row,
//! and what was missed is what the policy says about what was missed.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use reqwest::Method;
use serde::Deserialize;
use serde_json::json;
use tokio_postgres::Client;

use super::product::{ask, code, until};
use crate::backing::{self, Variables, borrowed};
use crate::product::free_ports;
use crate::project::{Project, Ran, Server};

type Time = DateTime<Utc>;

const POLICIES: [&str; 3] = ["skip", "once", "all"];
/// How many kills there are at least.
const KILLS: u32 = 20;

/// When the ends of runs were committed: until then a run is in the way of the next.
const ENDS: &str = "SELECT r.schedule_name, r.fire_time, pg_xact_commit_timestamp(e.xmin)
    FROM schedule_runs r JOIN executions e ON e.id = r.execution_id WHERE e.finished_at IS NOT NULL";
/// The server takes that time before the commit is on disk, and others see it after. And clocks are read, not known.
const FLUSH: TimeDelta = TimeDelta::milliseconds(100);

/// A row of the list of runs.
#[derive(Debug, Deserialize)]
struct Run {
    fire_time: Time,
    status: String,
    reason: Option<String>,
    noticed_at: Time,
    /// When its end was committed.
    #[serde(skip)]
    ended_at: Option<Time>,
}

impl Run {
    fn is_settled(&self) -> bool {
        ["completed", "skipped"].contains(&self.status.as_str())
    }
}

/// Two schedulers, of which either may be gone.
struct Schedulers {
    project: Project,
    variables: Variables,
    ports: Vec<u16>,
    running: Vec<Option<Server>>,
}

impl Schedulers {
    async fn start(&mut self) {
        for (port, running) in self.ports.iter().zip(&mut self.running) {
            if running.is_none() {
                let port = port.to_string();
                let mut variables = borrowed(&self.variables);
                variables.push(("SCHEDULER_SERVICE_PORT", &port));
                *running = Some(self.project.serve("scheduler-service", &variables).await);
            }
        }
    }

    async fn kill(&mut self, which: &[usize]) {
        for index in which {
            if let Some(server) = self.running[*index].take() {
                server.kill().await;
            }
        }
    }

    /// All runs of a schedule, the earliest first, when those up to `until` are settled.
    async fn settled(&self, policy: &str, last: Time) -> Vec<Run> {
        let path = format!("/schedules/{policy}/runs?limit=1000");
        let read = |runs: &serde_json::Value| {
            serde_json::from_value::<Vec<Run>>(runs.clone()).unwrap_or_default()
        };
        let runs = until(&self.project, &path, |runs| {
            let runs = read(runs);
            let is_past = runs.first().is_some_and(|run| run.fire_time > last);
            let mut due = runs.iter().filter(|run| run.fire_time <= last);
            is_past && due.all(Run::is_settled)
        })
        .await;
        let mut runs = read(&runs);
        runs.retain(|run| run.fire_time <= last);
        runs.reverse();
        runs
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_schedulers_on_postgres_are_killed_at_due_times() {
    let (mut variables, rabbitmq) = tokio::join!(backing::postgres(), backing::rabbitmq());
    let url = variables[0].1.clone();
    variables.extend(rabbitmq);
    let mut project = Project::new();
    let ports = free_ports(2);
    project.schedules_at(ports[0]);
    let mut migrate = project.command(&["migrate", "up"]);
    migrate.envs(borrowed(&variables));
    assert_eq!(Ran::of(migrate).await.code, 0);
    let mut of_pool = borrowed(&variables);
    of_pool.push(("AGENT_POOL_PORT", "0"));
    let pool = project.serve("autonomous-agent-pool", &of_pool).await;
    let mut schedulers = Schedulers {
        project,
        variables,
        ports,
        running: vec![None, None],
    };
    schedulers.start().await;
    let mut begun = Vec::new();
    for policy in POLICIES {
        let body = json!({
            "name": policy, "agent_name": "greeter", "interval_seconds": 1, "misfire_policy": policy,
        });
        let (status, made) = ask(&schedulers.project, Method::POST, "/schedules", Some(body)).await;
        assert_eq!(status, 201, "{}: {made}", code(&made));
        begun.push(made["created_at"].as_str().unwrap().parse().unwrap());
    }
    kill_again_and_again(&mut schedulers, begun[1]).await;
    let last = Utc::now();
    let mut started = 0;
    let mut missed = 0;
    let database = backing::session(&url).await;
    for (policy, begun) in POLICIES.into_iter().zip(begun) {
        let mut runs = schedulers.settled(policy, last).await;
        note_ends(&database, policy, &mut runs).await;
        judge(policy, begun, last, &runs);
        started += runs.iter().filter(|run| run.status == "completed").count();
        let reason = |run: &&Run| {
            ["misfire", "coalesced"]
                .map(Some)
                .contains(&run.reason.as_deref())
        };
        missed += runs.iter().filter(reason).count();
    }
    schedulers.kill(&[0, 1]).await;
    pool.kill().await;
    let odd = "SELECT
        (SELECT count(*) FROM executions e WHERE NOT EXISTS (SELECT 1 FROM schedule_runs r WHERE r.execution_id = e.id)),
        (SELECT count(*) FROM (SELECT 1 FROM schedule_runs WHERE state = 'started'
            GROUP BY execution_id HAVING count(*) > 1 OR execution_id IS NULL) twice)";
    let row = database.query_one(odd, &[]).await.unwrap();
    assert_eq!(
        (row.get(0), row.get(1)),
        (0_i64, 0_i64),
        "without a row, or with two"
    );
    println!("{started} runs completed, {missed} fire times missed");
    assert!(started > 30 && missed > 0, "{started} {missed}");
}

/// Asks the server when it committed the ends of runs. An execution's row is not written again after its end.
async fn note_ends(database: &Client, policy: &str, runs: &mut [Run]) {
    let rows = database.query(ENDS, &[]).await;
    let rows = rows
        .expect("the server runs with track_commit_timestamp=on, as scripts/services starts it");
    let ends: BTreeMap<(String, Time), Time> = rows
        .iter()
        .map(|row| ((row.get(0), row.get(1)), row.get(2)))
        .collect();
    for run in runs.iter_mut().filter(|run| run.status == "completed") {
        let end = ends.get(&(policy.to_owned(), run.fire_time));
        run.ended_at = Some(*end.expect("what is completed has ended"));
    }
}

/// One of the two, or both, just before, at or just after a due time.
async fn kill_again_and_again(schedulers: &mut Schedulers, begun: Time) {
    let mut kills = 0;
    let mut lots = Lots(u64::from(std::process::id()));
    println!("lots: {}", lots.0);
    while kills < KILLS {
        let passed = (Utc::now() - begun).num_milliseconds();
        // Half a second at least, so that both act between kills.
        let due = begun + TimeDelta::milliseconds((passed + 500) / 1000 * 1000 + 1000);
        let aim = due + TimeDelta::milliseconds(lots.below(60) - 20);
        tokio::time::sleep((aim - Utc::now()).to_std().unwrap_or(Duration::ZERO)).await;
        let which: &[usize] = match lots.below(5) {
            0 | 1 => &[0],
            2 | 3 => &[1],
            _ => &[0, 1],
        };
        schedulers.kill(which).await;
        kills += which.len() as u32;
        schedulers.start().await;
    }
    // What nobody looked at has passed.
    schedulers.kill(&[0, 1]).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    schedulers.start().await;
}

/// Numbers that look random; the first is printed.
struct Lots(u64);

impl Lots {
    fn below(&mut self, n: i64) -> i64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as i64 % n
    }
}

fn judge(policy: &str, begun: Time, last: Time, runs: &[Run]) {
    let found: Vec<Time> = runs.iter().map(|run| run.fire_time).collect();
    let second = |n: i64| begun + TimeDelta::seconds(n);
    let expected: Vec<Time> = (1..).map(second).take_while(|due| *due <= last).collect();
    assert_eq!(found, expected, "{policy}: one row for each second");
    for (index, run) in runs.iter().enumerate() {
        assert!(run.noticed_at >= run.fire_time, "{policy}: {run:?}");
        // Missed is what was looked at when the next one was due already.
        let was_missed = run.noticed_at - run.fire_time >= TimeDelta::seconds(1);
        let in_the_way = |other: &Run| {
            let was_open = |end: Time| end + FLUSH > run.noticed_at;
            other.status == "completed"
                && (other.noticed_at >= run.noticed_at || other.ended_at.is_some_and(was_open))
        };
        match (run.status.as_str(), run.reason.as_deref(), policy) {
            ("completed", None, _) => {}
            ("skipped", Some("misfire"), "skip") | ("skipped", Some("coalesced"), "once") => {
                assert!(was_missed, "{policy}: {run:?}");
            }
            ("skipped", Some("overlap"), _) => {
                let before = &runs[index.saturating_sub(100)..index];
                assert!(before.iter().any(in_the_way), "{policy}: {run:?}");
            }
            _ => panic!("{policy}: {run:?}"),
        }
    }
}
