//! Two schedulers in processes of their own on one store: the one that acts on a due time is killed right before its
//! commit, or right after it; the other goes on. Once both are dead for longer than it is from one due time to the next.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::Utc;
use reqwest::Method;
use serde_json::{Value, json};
use store::Store;
use testkit::{EffectsStandIn, ProviderStandIn};

use super::super::SECRET;
use super::super::agents::{self, Kind};
use super::super::audit::{self, Evidence};
use super::super::clockwork::{Clockwork, QUICK};
use super::super::model::{self, Arrivals};
use super::bench::{open, variables};
use crate::backing::Variables;
use crate::ledger;
use crate::product::{Product, Project};

/// How often a scheduler is killed while another is there.
const ROUNDS: usize = 8;
const GLANCE: Duration = Duration::from_millis(20);
/// How long anything may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long nobody is there: most schedules miss a due time, and one more is due after it.
const OUTAGE: Duration = Duration::from_secs(5);

struct Pair {
    provider: ProviderStandIn,
    effects: Arc<EffectsStandIn>,
    arrivals: Arrivals,
    project: Project,
    servers: Variables,
    running: Vec<Product>,
    client: reqwest::Client,
}

impl Pair {
    async fn new(servers: Variables) -> Self {
        let effects = Arc::new(EffectsStandIn::start());
        let arrivals = Arrivals::default();
        let project = Project::new();
        agents::write(&project, &effects.url(), [Kind::Ticker]);
        std::fs::create_dir_all(project.path().join("marks")).unwrap();
        let mut pair = Self {
            provider: model::provider(&effects, &arrivals),
            effects,
            arrivals,
            project,
            servers,
            running: Vec::new(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
        };
        pair.fill().await;
        pair
    }

    /// Starts processes until there are two.
    async fn fill(&mut self) {
        let base = self.provider.openai_url();
        let marks = self.project.path().join("marks");
        while self.running.len() < 2 {
            let variables = variables(&self.servers, &base, &marks);
            let product = Product::up(&self.project, &variables).await;
            self.running.push(product);
        }
    }

    async fn ask(&self, method: Method, path: &str, body: Value) -> u16 {
        let port = self.running[0].ports()[3];
        let url = format!("http://127.0.0.1:{port}{path}");
        let request = self.client.request(method, url).json(&body);
        request.send().await.unwrap().status().as_u16()
    }

    /// Kills the one that comes to this point first.
    async fn kill_at(&mut self, point: &str) {
        let marks = self.project.path().join("marks");
        std::fs::write(marks.join(point), "").unwrap();
        let began = Instant::now();
        let (mark, id) = loop {
            if let Some(found) = held(&marks, point) {
                break found;
            }
            assert!(began.elapsed() < PATIENCE, "nobody acts");
            tokio::time::sleep(GLANCE).await;
        };
        let which = self.running.iter().position(|one| one.id() == Some(id));
        self.running
            .remove(which.expect("one of them"))
            .kill()
            .await;
        std::fs::remove_file(mark).unwrap();
    }
}

/// The mark of a process that stands at a point, and its number.
fn held(marks: &Path, point: &str) -> Option<(std::path::PathBuf, u32)> {
    let entries = std::fs::read_dir(marks).unwrap();
    entries.flatten().find_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let id = name.strip_prefix(point)?.strip_prefix('.')?;
        Some((entry.path(), id.parse().ok()?))
    })
}

/// Waits until everything is acted on that has come due by now.
async fn are_up_to_now(schedules: &[Clockwork], store: &dyn Store) {
    let (now, began) = (Utc::now(), Instant::now());
    for one in schedules {
        while !one.is_up_to(now, store).await {
            assert!(began.elapsed() < PATIENCE, "{} is not acted on", one.name);
            tokio::time::sleep(GLANCE).await;
        }
    }
}

async fn any_waits(schedules: &[Clockwork], store: &dyn Store) -> bool {
    for one in schedules {
        if one.waits(store).await {
            return true;
        }
    }
    false
}

pub(super) async fn kill_at_due_times(servers: Variables) {
    let mut pair = Pair::new(servers).await;
    let store = open(&pair.servers, &pair.project).await;
    let own = QUICK[0].name.parse().unwrap();
    let began = Instant::now();
    while store.schedule(&own).await.unwrap().is_none() {
        assert!(
            began.elapsed() < PATIENCE,
            "the file's schedule never comes"
        );
        tokio::time::sleep(GLANCE).await;
    }
    for one in &QUICK[1..] {
        assert_eq!(pair.ask(Method::POST, "/schedules", one.body()).await, 201);
    }
    for round in 0..ROUNDS {
        pair.kill_at(["before-fire", "after-fire"][round % 2]).await;
        are_up_to_now(&QUICK, store.as_ref()).await;
        pair.fill().await;
    }
    pair.kill_at("before-fire").await;
    pair.running.remove(0).kill().await;
    tokio::time::sleep(OUTAGE).await;
    pair.fill().await;
    let mended = Utc::now();
    are_up_to_now(&QUICK, store.as_ref()).await;
    for one in &QUICK {
        let path = format!("/schedules/{}/enabled", one.name);
        let stop = json!({ "enabled": false });
        assert_eq!(pair.ask(Method::PATCH, &path, stop).await, 200);
    }
    let began = Instant::now();
    let is_open = |row: &store::ExecutionRow| !row.status.is_terminal();
    // One may have come to wait before its schedule was stopped; it begins when the one before it has ended.
    while any_waits(&QUICK, store.as_ref()).await
        || ledger::rows(store.as_ref()).await.iter().any(is_open)
    {
        assert!(began.elapsed() < PATIENCE, "a run does not end");
        tokio::time::sleep(GLANCE).await;
    }
    judge(pair, store.as_ref(), mended).await;
}

async fn judge(pair: Pair, store: &dyn Store, mended: domain::Time) {
    let log = pair.running[0].log();
    assert!(!log.contains(SECRET), "a log line holds a secret");
    let findings = audit::audit(&Evidence {
        store,
        provider: &pair.provider,
        effects: &pair.effects,
        arrivals: &pair.arrivals,
        accepted: Vec::new(),
        answered: std::collections::HashMap::new(),
        schedules: &QUICK,
        mended,
        is_orderly: false,
    })
    .await;
    assert!(findings.wrong.is_empty(), "{:#?}", findings.wrong);
    println!("{} kills, due times: {:?}", ROUNDS + 2, findings.due_times);
    let count = |what: &str| findings.due_times.get(what).copied().unwrap_or_default();
    assert!(count("started") > ROUNDS, "{:?}", findings.due_times);
    assert!(count("coalesced") > 0, "{:?}", findings.due_times);
}
