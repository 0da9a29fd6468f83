//! The five kinds of agent that people write, at work together: support in conversations, a report by cron, a monitor by
//! interval, an analyst whom it wakes, and a team. They are the files of `examples/shop`, on real servers, in the processes
//! that an operator starts, each of which is stopped and killed meanwhile. Those who use them, and the audit at
//! the end, know the public API and nothing else. `docs/five-kinds.md` says how to run it for minutes.

mod api;
mod audit;
mod clients;
mod company;
mod disturbance;
mod model;
pub(crate) mod part;
mod person;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::json;

use api::Service;
use clients::Clients;
use company::Company;

/// How long it is in every test run.
const SHORT: Duration = Duration::from_secs(45);
/// How long it is by `make five-kinds`, unless `FIVE_KINDS_SECONDS` says otherwise.
const LONG: Duration = Duration::from_secs(240);
/// How long what is under way may take to come to its end.
const SETTLE: Duration = Duration::from_secs(90);
/// How long nothing may happen before it is over: an event that a killed process was about to pass on waits for its claim
/// of 10 s to run out.
const QUIET: Duration = Duration::from_secs(13);
/// How often the shop's checkout changes between well and unwell.
const MOOD: Duration = Duration::from_millis(7_300);

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn five_kinds_of_agent_work_together_on_real_servers() {
    work_together(SHORT).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "takes minutes: make five-kinds"]
async fn five_kinds_of_agent_work_together_on_real_servers_for_minutes() {
    let seconds = std::env::var("FIVE_KINDS_SECONDS").ok();
    let length = seconds.map_or(LONG, |text| {
        Duration::from_secs(text.parse().expect("FIVE_KINDS_SECONDS is a number"))
    });
    work_together(length).await;
}

/// Lets all work for so long, lets them finish, and audits.
async fn work_together(length: Duration) {
    let company = Arc::new(Company::open().await);
    let clients = Clients::new(company.clone());
    let mut background = tokio::task::JoinSet::new();
    background.spawn(person::answer_everything(company.clone()));
    background.spawn(moods(company.clone()));

    let everybody = clients.come_and_go();
    let opening = async {
        tokio::join!(
            disturbance::disturb(&company, length),
            tokio::time::sleep(length)
        );
        clients.close();
    };
    tokio::join!(everybody, opening);
    let paused_at = chrono::Utc::now();
    for name in ["daily-report", "monitor"] {
        let path = format!("/schedules/{name}/enabled");
        let off = json!({ "enabled": false });
        company.api.patch(Service::Scheduler, &path, &off).await;
    }
    settle(&company).await;
    background.shutdown().await;

    let report = audit::audit(&company, &clients.promises(), paused_at, length).await;
    println!("{}", report.text());
    if !report.wrong.is_empty() {
        println!("logs: {}", company.keep_logs().display());
    }
    assert!(report.wrong.is_empty(), "{}", report.wrong.join("\n"));
    assert!(report.is_worth_something(), "{}", report.text());
}

/// The checkout is well and unwell in turns.
async fn moods(company: Arc<Company>) {
    for mood in ["ok", "degraded"].into_iter().cycle() {
        company.effects.set_value("checkout", mood);
        tokio::time::sleep(MOOD).await;
    }
}

/// Waits until nothing is open and nothing new begins.
async fn settle(company: &Company) {
    let began = Instant::now();
    let (mut last, mut since) = (None, Instant::now());
    while last.is_none() || since.elapsed() < QUIET {
        let open = "/tasks?status=queued,running,waiting_for_input&limit=1";
        let (open, all) = (
            company.api.total(open).await,
            company.api.total("/tasks?limit=1").await,
        );
        if open > 0 || last != Some(all) {
            (last, since) = (Some(all), Instant::now());
        }
        if began.elapsed() > SETTLE {
            company.complain(format!("{open} executions are still open"));
            return;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
