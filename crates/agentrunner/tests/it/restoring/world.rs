//! One product with its database, that can lose all it has.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use domain::Status;
use serde_json::json;
use store::Store;
use store::postgres::{Postgres, Settings};
use store::sqlite::{Options, Sqlite};
use testkit::effects::{EffectFault, Route};
use testkit::servers::Kind as ServerKind;
use testkit::{EffectsStandIn, Filter, ProviderStandIn};

use super::Kind;
use super::model::{self, ASKED_FOR, KINDS};
use super::person::Person;
use crate::backing::{self, Variables, borrowed};
use crate::ledger;
use crate::product::{Product, Project};
use crate::project::Ran;

/// Longer than all that is under way needs on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

pub(super) struct World {
    pub(super) seed: u64,
    kind: Kind,
    dice: u64,
    project: Project,
    servers: Variables,
    effects: Arc<EffectsStandIn>,
    provider: ProviderStandIn,
    product: Option<Product>,
    person: Option<Person>,
    unknown: Arc<AtomicUsize>,
    /// How many names were given.
    names: usize,
}

impl World {
    pub(super) async fn new(kind: Kind, seed: u64) -> Self {
        let project = Project::new();
        let effects = Arc::new(EffectsStandIn::start());
        // Long enough for backups and losses to come between a charge and its answer.
        let charged = Filter::any()
            .with("route", "charge")
            .with("point", "after_effect");
        effects.fail(charged, None, EffectFault::Delay { ms: 200 });
        model::write(&project, &effects.url());
        Self {
            seed,
            kind,
            dice: seed,
            project,
            servers: kind.variables().await,
            effects,
            provider: model::provider(),
            product: None,
            person: None,
            unknown: Arc::default(),
            names: 0,
        }
    }

    fn variables(&self) -> Variables {
        let mut variables = self.servers.clone();
        variables.extend([
            ("OPENAI_API_KEY", "sk-canary-of-the-backups".to_owned()),
            ("OPENAI_BASE_URL", self.provider.openai_url()),
            ("LOG_LEVEL", "WARNING".to_owned()),
        ]);
        variables
    }

    pub(super) async fn start(&mut self) {
        let variables = self.variables();
        let product = Product::up(&self.project, &borrowed(&variables)).await;
        let url = product.orchestrator.clone();
        self.person = Some(Person::new(url, self.effects.clone(), self.unknown.clone()));
        self.product = Some(product);
    }

    fn product(&self) -> &Product {
        self.product.as_ref().expect("it runs")
    }

    /// Hands in so many tasks of all kinds; answers their ids and names.
    pub(super) async fn hand_in(&mut self, count: usize) -> BTreeMap<String, String> {
        let mut accepted = BTreeMap::new();
        for _ in 0..count {
            let (agent, _) = KINDS[self.names % ASKED_FOR];
            let name = format!("{agent}-{}", self.names);
            self.names += 1;
            let body = json!({ "agent_name": agent, "task_data": { "task": name } });
            let answer = self.product().post("/tasks", &body).await;
            accepted.insert(answer["execution_id"].as_str().unwrap().to_owned(), name);
        }
        accepted
    }

    /// Lets work go on for a while, different each time.
    pub(super) async fn let_work(&mut self, least: Duration, most: Duration) {
        self.dice = self
            .dice
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let span = (most - least).as_millis() as u64;
        let more = Duration::from_millis((self.dice >> 33) % span.max(1));
        tokio::time::sleep(least + more).await;
    }

    /// Makes a backup while more tasks come in; answers its file, and those tasks.
    pub(super) async fn back_up_under_load(
        &mut self,
        count: usize,
    ) -> (PathBuf, BTreeMap<String, String>) {
        let variables = self.variables();
        let mut command = self.project.command(&borrowed(&variables));
        command.args(["backup", "--output", "kept"]);
        let backup = tokio::spawn(ran(command));
        let late = self.hand_in(count).await;
        let made = backup.await.unwrap();
        assert_eq!(made.code, 0, "{made:?}");
        let file = made.json()["file"].as_str().unwrap().to_owned();
        (self.project.path().join(file), late)
    }

    /// How many unsafe calls the tool's book has.
    pub(super) fn charges(&self) -> usize {
        self.effects.effects(Route::Charge).len()
    }

    pub(super) fn unknown(&self) -> usize {
        self.unknown.load(Ordering::Relaxed)
    }

    /// The processes, the database and the agents' files.
    pub(super) async fn lose_everything(&mut self) {
        self.stop().await;
        match self.kind {
            Kind::File => std::fs::remove_dir_all(self.project.path().join("data")).unwrap(),
            Kind::Server => {
                let url = self.url().to_owned();
                let (server, name) = url.rsplit_once('/').unwrap();
                let session = backing::session(&format!("{server}/postgres")).await;
                let drop = format!("DROP DATABASE {name} WITH (FORCE)");
                session.batch_execute(&drop).await.unwrap();
                let create = format!("CREATE DATABASE {name} TEMPLATE template0");
                session.batch_execute(&create).await.unwrap();
            }
        }
        std::fs::remove_dir_all(self.project.path().join("config")).unwrap();
    }

    fn url(&self) -> &str {
        let name = ServerKind::Postgres.variable();
        let url = self.servers.iter().find(|(variable, _)| *variable == name);
        &url.expect("a server").1
    }

    pub(super) async fn stop(&mut self) {
        self.person = None;
        if let Some(product) = self.product.take() {
            product.kill().await;
        }
    }

    /// Restores it; on the way the command is killed once, and given again.
    pub(super) async fn restore(&mut self, file: &Path) -> String {
        let variables = self.variables();
        let command = |extra: &[&str]| {
            let mut command = self.project.command(&borrowed(&variables));
            command.arg("restore").arg(file).args(extra).arg("--json");
            command
        };
        let looked = ran(command(&["--dry-run"])).await;
        assert_eq!(looked.code, 0, "{looked:?}");
        let mut killed = command(&[])
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        tokio::time::sleep(Duration::from_millis(self.seed % 400)).await;
        killed.kill().await.unwrap();
        let again = ran(command(&[])).await;
        if again.code != 0 {
            // The one that was killed had come to its end.
            assert!(again.stderr.contains("holds rows already"), "{again:?}");
        }
        let rows = looked.json()["goes_on"].clone();
        let count = |n: usize| rows[n]["count"].as_u64().unwrap();
        let (over, resume, wait, unknown) = (count(0), count(1), count(2), count(3));
        format!("{over} over, {resume} under way, {wait} waiting, {unknown} in an unsafe call")
    }

    /// Waits until all of these are over; of the late ones, those that are there.
    pub(super) async fn bring_to_the_end(
        &self,
        kept: &BTreeMap<String, String>,
        late: &BTreeMap<String, String>,
    ) {
        let began = Instant::now();
        for (id, name) in kept.iter().chain(late) {
            loop {
                let (status, task) = self.product().ask(&format!("/tasks/{id}")).await;
                if status == 404 && late.contains_key(id) {
                    break;
                }
                let seed = self.seed;
                assert_eq!(
                    status,
                    200,
                    "{name} was accepted before the backup: {task}; seed {seed}; {}",
                    self.product().log()
                );
                let state: Status = task["status"].as_str().unwrap().parse().unwrap();
                if state.is_terminal() {
                    assert_eq!(state, Status::Completed, "{name}: {task}");
                    break;
                }
                if began.elapsed() >= PATIENCE {
                    panic!("{name} stays {task}: {}", self.unfinished().await);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }

    /// What is not over, what people are asked, and what the product has logged, for whoever looks into a failure.
    async fn unfinished(&self) -> String {
        let product = self.product();
        let tasks = product.get("/tasks?limit=1000").await;
        let is_open = |task: &&serde_json::Value| {
            let status = task["status"].as_str().unwrap_or_default();
            !status.parse::<Status>().unwrap().is_terminal()
        };
        let open: Vec<_> = tasks.as_array().unwrap().iter().filter(is_open).collect();
        let inbox = product.get("/inbox?limit=500").await;
        let (open, log) = (serde_json::to_string_pretty(&open).unwrap(), product.log());
        format!("seed {}\n{open}\n{inbox:#}\n{log}", self.seed)
    }

    /// Waits until the schedule has started a run after the restore.
    pub(super) async fn see_schedule_go_on(&self) {
        let began = Instant::now();
        let ticks = async || {
            let tasks = self
                .product()
                .get("/tasks?agent_name=ticker&limit=1000")
                .await;
            let tasks = tasks.as_array().unwrap().clone();
            tasks
                .iter()
                .filter(|task| task["status"] == "completed")
                .count()
        };
        let before = ticks().await;
        while ticks().await <= before {
            assert!(began.elapsed() < PATIENCE, "the schedule stands still");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    async fn store(&self) -> Box<dyn Store> {
        match self.kind {
            Kind::File => {
                let path = self.project.path().join("data/agentrunner.db");
                Box::new(Sqlite::open(&path, Options::default()).unwrap())
            }
            Kind::Server => {
                let settings = Settings {
                    url: Some(self.url().into()),
                    auto_migrate: false,
                    ..Settings::default()
                };
                Box::new(Postgres::connect(settings).await.unwrap())
            }
        }
    }

    /// Reads the journals and the tool's book.
    pub(super) async fn audit(
        &self,
        kept: &BTreeMap<String, String>,
        late: &BTreeMap<String, String>,
    ) {
        let seed = self.seed;
        let store = self.store().await;
        let entries = ledger::read(&*store).await;
        // One that was cut off by the last stop is under way, and no flaw.
        let over: Vec<&ledger::Entry> = entries
            .iter()
            .filter(|entry| entry.row.status.is_terminal())
            .collect();
        let flaws = ledger::flaws(over.iter().copied());
        assert!(flaws.is_empty(), "seed {seed}: {flaws:#?}");

        let mut times: BTreeMap<String, usize> = BTreeMap::new();
        for route in [Route::Charge, Route::Order] {
            for effect in self.effects.effects(route) {
                let what = effect.body["what"].as_str().unwrap_or_default().to_owned();
                *times.entry(what).or_default() += 1;
            }
        }
        let doubled: Vec<_> = times.iter().filter(|(_, times)| **times > 1).collect();
        assert!(doubled.is_empty(), "seed {seed}: made twice: {doubled:?}");
        let made: BTreeSet<String> = times.into_keys().collect();
        for name in kept.values() {
            let kind = name.split('-').next().unwrap();
            let (_, calls) = KINDS.iter().find(|(one, _)| *one == kind).unwrap();
            for (turn, call) in calls.iter().enumerate() {
                if call.ends_with("charge") || *call == "order" {
                    let what = format!("{name}.{turn}");
                    assert!(made.contains(&what), "seed {seed}: {what} was never made");
                }
            }
            if kind == "delegator" {
                assert!(
                    made.contains(&format!("{name}-child.0")),
                    "seed {seed}: {name}"
                );
            }
        }
        // What came in while the backup was made is there whole, or not at all.
        for id in late.keys() {
            let id = id.parse().unwrap();
            if store.execution(id).await.unwrap().is_none() {
                assert!(store.steps(id, None, 10).await.unwrap().is_empty());
            }
        }
        store.close().await.unwrap();
    }
}

pub(super) async fn ran(mut command: tokio::process::Command) -> Ran {
    command.stdout(std::process::Stdio::piped());
    command.stderr(std::process::Stdio::piped());
    Ran::of(command).await
}
