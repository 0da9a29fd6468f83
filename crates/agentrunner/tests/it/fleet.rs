//! Several processes on one PostgreSQL and one RabbitMQ: what a stopped, frozen, killed or misguided one costs.

mod clocks;
mod follower;
mod frozen;
mod people;
mod rolling;
mod skew;
mod takeover;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::provider::{Answer, Request};
use testkit::{EffectsStandIn, ProviderStandIn};

use crate::backing::{self, Variables, borrowed};
use crate::crash::{EFFECTS, agent};
use crate::product::{Product, Project};

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(20);

/// A provider, a tool, servers, and a folder with an agent for each effect class.
struct Fleet {
    provider: ProviderStandIn,
    effects: EffectsStandIn,
    project: Project,
    servers: Variables,
}

impl Fleet {
    async fn new(behaviour: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let (mut servers, rabbitmq) = tokio::join!(backing::postgres(), backing::rabbitmq());
        servers.extend(rabbitmq);
        let fleet = Self {
            provider: ProviderStandIn::start(behaviour),
            effects: EffectsStandIn::start(),
            project: Project::new(),
            servers,
        };
        for effect in EFFECTS {
            fleet
                .project
                .agent(effect, &agent(effect, &fleet.effects.url()));
        }
        fleet
    }

    /// Starts a process.
    async fn up(&self, more: &[(&str, &str)]) -> Product {
        self.up_at(&crate::product::free_ports(5), more).await
    }

    /// Starts a process in the place of another.
    async fn up_at(&self, ports: &[u16], more: &[(&str, &str)]) -> Product {
        let base = self.provider.openai_url();
        let mut variables = borrowed(&self.servers);
        variables.extend([
            ("OPENAI_API_KEY", "sk-test"),
            ("OPENAI_BASE_URL", base.as_str()),
            ("LOG_LEVEL", "WARNING"),
        ]);
        variables.extend(more);
        Product::up_at(ports, &self.project, &variables).await
    }

    /// What all processes logged.
    fn log(&self) -> String {
        crate::product::log(&self.project)
    }

    /// How often the model was asked, by conversation and turn.
    fn asked(&self) -> BTreeMap<(String, usize), usize> {
        let mut asked = BTreeMap::new();
        for one in self.provider.requests() {
            let key = (one.request.conversation.clone(), one.request.turn);
            *asked.entry(key).or_default() += 1;
        }
        asked
    }
}

/// The tool that a request's agent is to call: not the one that checks.
fn tool_of(request: &Request) -> &str {
    let mut names = request.tools.iter().map(|tool| tool.name.as_str());
    names.find(|name| *name != "check").expect("a tool")
}

fn task(agent: &str, prompt: &str) -> Value {
    json!({ "agent_name": agent, "task_data": { "prompt": prompt } })
}

async fn submit(product: &Product, agent: &str, prompt: &str) -> String {
    let accepted = product.post("/tasks", &task(agent, prompt)).await;
    accepted["execution_id"].as_str().expect("an id").to_owned()
}

/// Waits until it is completed.
async fn completed(product: &Product, id: &str) -> Value {
    let began = Instant::now();
    loop {
        let task = product.get(&format!("/tasks/{id}")).await;
        match task["status"].as_str() {
            Some("completed") => return task,
            Some("queued" | "running") => tokio::time::sleep(PAUSE).await,
            _ => panic!("{task}"),
        }
        assert!(began.elapsed() < PATIENCE, "{task}");
    }
}

/// The journal of an execution.
async fn journal(product: &Product, id: &str) -> Vec<Value> {
    let steps = product
        .get_state(&format!("/executions/{id}/steps?limit=1000"))
        .await;
    let steps = steps.as_array().expect("a list").clone();
    let seqs: Vec<u64> = steps.iter().filter_map(|s| s["seq"].as_u64()).collect();
    assert_eq!(seqs, (1..=steps.len() as u64).collect::<Vec<_>>(), "{id}");
    steps
}

/// When a step was taken into the journal.
fn taken_at(step: &Value) -> chrono::DateTime<chrono::Utc> {
    step["at"].as_str().expect("a time").parse().unwrap()
}

/// A value of `/metrics`, summed over its labels.
async fn metric(product: &Product, name: &str) -> f64 {
    let text = product.text("/metrics").await;
    let of_name = text
        .lines()
        .filter(|line| line.starts_with(name) && !line.starts_with('#'));
    of_name
        .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
        .sum()
}

/// The smallest, the middle, the 99th of a hundred and the largest.
struct Spread {
    all: Vec<Duration>,
}

impl Spread {
    fn of(mut all: Vec<Duration>) -> Self {
        all.sort();
        Self { all }
    }

    /// The value that this part of all is not above.
    fn at(&self, part: f64) -> Duration {
        let n = (self.all.len() as f64 * part).ceil() as usize;
        self.all[n.clamp(1, self.all.len()) - 1]
    }
}

impl std::fmt::Display for Spread {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "min {:?}, median {:?}, p99 {:?}, max {:?} of {}",
            self.at(0.0),
            self.at(0.5),
            self.at(0.99),
            self.at(1.0),
            self.all.len()
        )
    }
}
