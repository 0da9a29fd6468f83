//! What is left, asked of the API, against what was promised. The books of the shop and of the model say what came out of
//! the system; nobody looks into the database.

mod account;
mod chain;
mod money;
mod schedules;
mod talk;
mod teams;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt::Write as _;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use futures::StreamExt;
use serde_json::Value;

use super::api::Service;
use super::clients::Promises;
use super::company::Company;
use super::disturbance;

/// How many journals are asked for at once.
const AT_ONCE: usize = 8;
/// Within this the registry of workers knows who was killed: AGENT_HEALTH_CHECK_INTERVAL.
const MISSED: Duration = Duration::from_secs(60);
/// Agents of the five kinds, with who works for them.
const KINDS: [&str; 7] = [
    "support",
    "daily-report",
    "monitor",
    "analyst",
    "research-team",
    "researcher",
    "critic",
];

/// Everything that the API tells.
pub(super) struct Evidence {
    /// Every execution, the oldest first.
    tasks: Vec<Value>,
    journals: HashMap<String, Vec<Value>>,
}

impl Evidence {
    async fn gather(company: &Company) -> Self {
        let api = &company.api;
        let mut tasks = api.all(Service::Orchestrator, "/tasks?limit=150").await;
        tasks.reverse();
        let journals = futures::stream::iter(&tasks)
            .map(|task| async {
                let id = text(task, "execution_id").to_owned();
                let path = format!("/executions/{id}/steps?limit=1000");
                let steps = api.all(Service::State, &path).await;
                (id, steps)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        Self { tasks, journals }
    }

    fn of<'a>(&'a self, agent: &'a str) -> impl Iterator<Item = &'a Value> {
        self.tasks
            .iter()
            .filter(move |task| task["agent_name"] == agent)
    }

    fn task(&self, id: &str) -> Option<&Value> {
        self.tasks.iter().find(|task| task["execution_id"] == id)
    }

    fn journal(&self, task: &Value) -> &[Value] {
        let steps = self.journals.get(text(task, "execution_id"));
        steps.map_or(&[], Vec::as_slice)
    }

    /// What it said in the end.
    fn output(&self, task: &Value) -> Option<&str> {
        self.outcome(task)?["output"].as_str()
    }

    fn outcome(&self, task: &Value) -> Option<&Value> {
        let last = self.journal(task).last()?;
        (last["kind"] == "finished").then(|| &last["outcome"])
    }
}

/// What was found.
pub(super) struct Report {
    pub(super) wrong: Vec<String>,
    length: Duration,
    /// Figures to print, in order.
    figures: Vec<(String, String)>,
    /// How many executions of each agent completed.
    completed: BTreeMap<String, usize>,
    incidents: usize,
    repaired: usize,
}

impl Report {
    fn wrong(&mut self, what: impl Into<String>) {
        self.wrong.push(what.into());
    }

    fn figure(&mut self, name: impl Into<String>, value: impl ToString) {
        self.figures.push((name.into(), value.to_string()));
    }

    pub(super) fn text(&self) -> String {
        let mut text = format!("five kinds of agent, {:.0?}", self.length);
        for (name, value) in &self.figures {
            write!(text, "\n  {name}: {value}").unwrap();
        }
        write!(text, "\n  wrong: {}", self.wrong.len()).unwrap();
        text
    }

    /// Whether enough happened for it to mean something.
    pub(super) fn is_worth_something(&self) -> bool {
        let least = usize::try_from(self.length.as_secs() / 15).expect("minutes");
        let many = |agent: &str| {
            self.completed
                .get(agent)
                .is_some_and(|n| *n >= least.min(8))
        };
        KINDS.iter().all(|agent| many(agent)) && self.incidents > 0 && self.repaired > 0
    }
}

pub(super) async fn audit(
    company: &Company,
    promises: &Promises,
    paused_at: DateTime<Utc>,
    length: Duration,
) -> Report {
    let evidence = Evidence::gather(company).await;
    let mut report = Report {
        wrong: Vec::new(),
        length,
        figures: Vec::new(),
        completed: BTreeMap::new(),
        incidents: 0,
        repaired: 0,
    };
    count(&evidence, &mut report);
    account::check(company, promises, &evidence, &mut report).await;
    talk::check(company, promises, &evidence, &mut report).await;
    schedules::check(company, &evidence, paused_at, &mut report).await;
    chain::check(company, promises, &evidence, &mut report).await;
    teams::check(company, promises, &evidence, &mut report).await;
    money::check(company, &evidence, &mut report).await;
    nothing_is_left(company, &mut report).await;
    logs(company, &mut report).await;
    let ends = company.ends.load(Ordering::Relaxed);
    report.figure("processes stopped or killed", ends);
    if ends != 2 * company.count() * disturbance::rounds(length) {
        report.wrong(format!("{ends} processes were stopped or killed"));
    }
    let again = company.api.again.load(Ordering::Relaxed);
    report.figure("requests that clients made again", again);
    let cuts = company.api.cuts.load(Ordering::Relaxed);
    report.figure("streams followed", promises.followed);
    report.figure("streams cut and taken up again", cuts);
    for rejection in company.provider.rejections() {
        report.wrong(format!("the model refused a request: {rejection}"));
    }
    for complaint in company.complaints() {
        report.wrong(complaint);
    }
    report
}

/// Executions, steps and calls of each kind; each journal is whole and has one end.
fn count(evidence: &Evidence, report: &mut Report) {
    for agent in KINDS {
        let (mut all, mut steps, mut models, mut tools) = (0, 0, 0, 0);
        for task in evidence.of(agent) {
            all += 1;
            steps += number(task, "steps");
            models += number(task, "model_calls");
            tools += number(task, "tool_calls");
            if task["status"] == "completed" {
                *report.completed.entry(agent.to_owned()).or_default() += 1;
            }
            journal(task, evidence.journal(task), report);
        }
        let figures =
            format!("{all} executions, {steps} steps, {models} model calls, {tools} tool calls");
        report.figure(agent, figures);
    }
    let restarts = evidence.tasks.iter().filter(|task| {
        let epochs = evidence
            .journal(task)
            .iter()
            .map(|step| number(step, "epoch"));
        epochs.max() > Some(1)
    });
    let count = restarts.count();
    report.figure("executions with more than one lease", count);
}

fn journal(task: &Value, steps: &[Value], report: &mut Report) {
    let id = text(task, "execution_id");
    let positions = steps.iter().map(|step| number(step, "seq"));
    if !positions.eq(1..=number(task, "steps")) {
        report.wrong(format!("the journal of {id} has gaps: {task}"));
    }
    let ends = steps.iter().filter(|step| step["kind"] == "finished");
    if ends.count() != 1 || steps.last().is_none_or(|step| step["kind"] != "finished") {
        report.wrong(format!("{id} has not exactly one end: {task}"));
    }
    let calls = steps.iter().filter(|step| step["kind"] == "model_call");
    if calls.count() as u64 != number(task, "model_calls") {
        report.wrong(format!(
            "{id} has other model calls than its journal: {task}"
        ));
    }
}

/// Nobody waits, nothing was given up, nothing is held.
async fn nothing_is_left(company: &Company, report: &mut Report) {
    let api = &company.api;
    for path in ["/inbox", "/dead-letters"] {
        let left = api.all(Service::Orchestrator, path).await;
        if !left.is_empty() {
            report.wrong(format!("{path} has {left:?}"));
        }
    }
    // A worker that was killed is missed after three quarters of its interval.
    let began = Instant::now();
    let mut restless = not_at_rest(company, report).await;
    while !restless.is_empty() && began.elapsed() < MISSED {
        tokio::time::sleep(Duration::from_secs(1)).await;
        restless = not_at_rest(company, report).await;
    }
    report.wrong.extend(restless);
    let configs = api.all(Service::Config, "/configs").await;
    let is_well = |config: &Value| config["rejected"].is_null() && config["enabled"] == true;
    if configs.len() != KINDS.len() || !configs.iter().all(is_well) {
        report.wrong(format!("configurations: {configs:?}"));
    }
}

/// Pools that hold something or have other workers than one; agents that are not ready, or count wrong.
async fn not_at_rest(company: &Company, report: &Report) -> Vec<String> {
    let mut restless = Vec::new();
    let pools = company
        .api
        .all(Service::Orchestrator, "/metrics/pool-stats");
    for pool in pools.await {
        let workers = pool["workers"].as_array().into_iter().flatten();
        let alive = workers.filter(|worker| worker["status"] == "alive").count();
        let held = (number(&pool, "active"), number(&pool, "queued"));
        if alive != 1 || held != (0, 0) {
            restless.push(format!("a pool is not at rest: {pool}"));
        }
    }
    let agents = company.api.all(Service::Orchestrator, "/agents");
    for agent in agents.await {
        let name = text(&agent, "name");
        let completed = report.completed.get(name).copied().unwrap_or_default() as u64;
        let is_so = agent["status"] == "ready"
            && number(&agent, "total_executions") == completed
            && agent["success_rate"] == 1.0;
        if !is_so {
            restless.push(format!(
                "{completed} of {name} completed, and it says {agent}"
            ));
        }
    }
    restless
}

/// No error, no panic, no line that is not JSON.
async fn logs(company: &Company, report: &mut Report) {
    let (mut lines, mut warnings) = (0, BTreeMap::new());
    for (part, log) in company.logs().await {
        for line in log.lines().filter(|line| !line.is_empty()) {
            lines += 1;
            let Ok(entry) = serde_json::from_str::<Value>(line) else {
                // The last line of a killed process may be cut.
                if line.contains("panicked") || !line.starts_with('{') {
                    report.wrong(format!("{part}: {line}"));
                }
                continue;
            };
            match entry["level"].as_str() {
                Some("ERROR") => report.wrong(format!("{part}: {line}")),
                Some("WARN" | "WARNING") => {
                    let what = format!("{part}: {}", text(&entry, "message"));
                    *warnings.entry(what).or_insert(0) += 1;
                }
                _ => {}
            }
            if line.contains("sk-test") {
                report.wrong(format!("{part} tells the key"));
            }
        }
    }
    report.figure("log lines", lines);
    for (what, count) in warnings {
        report.figure("warning", format!("{count} times {what}"));
    }
}

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_default()
}

fn number(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_default()
}

fn time(value: &Value, field: &str) -> Option<DateTime<Utc>> {
    value[field].as_str()?.parse().ok()
}

/// Whether two sets are the same; says what is missing on either side.
fn same(what: &str, wanted: &HashSet<String>, found: &HashSet<String>, report: &mut Report) {
    let missing: Vec<_> = wanted.difference(found).collect();
    let extra: Vec<_> = found.difference(wanted).collect();
    if !missing.is_empty() || !extra.is_empty() {
        report.wrong(format!("{what}: missing {missing:?}, too many {extra:?}"));
    }
}
