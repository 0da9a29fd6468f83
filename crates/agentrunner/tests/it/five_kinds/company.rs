//! Everything that takes part: servers of its own, the stand-ins for models and for the shop, and the processes.

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::servers::{Kind, Server};
use testkit::{EffectsStandIn, ProviderStandIn, npm_servers};
use tokio::process::Command;

use super::api::Api;
use super::model;
use super::part::{End, Part};
use crate::backing::{Variables, borrowed};
use crate::product::{Project, free_ports};
use crate::project::Ran;

/// In the order in which the guide starts them, each with the variable of its port.
const PARTS: [(&str, &str); 7] = [
    ("state-manager", "STATE_MANAGER_PORT"),
    ("config-service", "CONFIG_SERVICE_PORT"),
    ("agent-orchestrator", "ORCHESTRATOR_PORT"),
    ("collaborative-agent-pool", "AGENT_POOL_PORT"),
    ("autonomous-agent-pool", "AGENT_POOL_PORT"),
    ("continuous-agent-runner", "AGENT_POOL_PORT"),
    ("scheduler-service", "SCHEDULER_SERVICE_PORT"),
];
const AGENTS: [&str; 7] = [
    "support",
    "daily-report",
    "monitor",
    "analyst",
    "research-team",
    "researcher",
    "critic",
];
/// How often the report is written, and how often the monitor looks, in seconds.
pub(super) const REPORT_EVERY: i64 = 5;
pub(super) const LOOK_EVERY: i64 = 3;

/// Everything that takes part.
pub(super) struct Company {
    project: Project,
    variables: Variables,
    ports: Vec<u16>,
    parts: Vec<tokio::sync::Mutex<Part>>,
    pub(super) provider: ProviderStandIn,
    pub(super) effects: EffectsStandIn,
    pub(super) api: Api,
    /// How many processes were stopped or killed.
    pub(super) ends: AtomicUsize,
    complaints: Mutex<Vec<String>>,
    /// Gone with it.
    _servers: Vec<Server>,
}

/// The example's folder.
fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop")
}

/// Copies the example as it is, but for how often schedules fire and where the runbooks and their server are.
fn write_agents(project: &Project) {
    let runbooks = npm_servers().filesystem(&example().join("runbooks").canonicalize().unwrap());
    let args = serde_json::to_string(&runbooks.args).unwrap();
    for name in AGENTS {
        let path = example().join(format!("config/agents/{name}.yml"));
        let mut text = std::fs::read_to_string(path).unwrap();
        let changes: &[(&str, String)] = match name {
            "monitor" => &[(
                "interval_seconds: 60",
                format!("interval_seconds: {LOOK_EVERY}"),
            )],
            "analyst" => &[
                ("command: npx", format!("command: {}", runbooks.program)),
                (
                    r#"args: ["--yes", "@modelcontextprotocol/server-filesystem", "./examples/shop/runbooks"]"#,
                    format!("args: {args}"),
                ),
            ],
            _ => &[],
        };
        for (from, to) in changes {
            assert!(text.contains(from), "{name}: no {from:?}");
            text = text.replace(from, to);
        }
        project.agent(name, &text);
    }
}

impl Company {
    /// Starts everything, as the guide does it.
    pub(super) async fn open() -> Self {
        let kinds = [Kind::Postgres, Kind::RabbitMq, Kind::Redis];
        let servers = futures::future::join_all(kinds.map(Server::start)).await;
        let project = Project::new();
        write_agents(&project);
        let effects = EffectsStandIn::start();
        let runbook = example().join("runbooks/checkout.md").canonicalize();
        let provider = model::start(runbook.unwrap());
        let ports = free_ports(PARTS.len());
        let log = |name: &str| project.path().join(format!("{name}.log"));
        let parts = (PARTS.iter().zip(&ports))
            .map(|((name, _), port)| Part::new(name, *port, log(name)).into())
            .collect();
        let company = Self {
            variables: variables(&servers, &effects.url(), provider.openai_url()),
            api: Api::new([ports[0], ports[1], ports[2], ports[6]]),
            project,
            ports,
            parts,
            provider,
            effects,
            ends: AtomicUsize::new(0),
            complaints: Mutex::default(),
            _servers: servers,
        };
        let mut migrate = company.command(0);
        migrate.args(["migrate", "up"]);
        let ran = Ran::of(migrate).await;
        assert_eq!(ran.code, 0, "{ran:?}");
        for n in 0..PARTS.len() {
            company.parts[n]
                .lock()
                .await
                .start(company.command(n))
                .await;
        }
        company
    }

    fn command(&self, part: usize) -> Command {
        let mut command = self.project.command(&borrowed(&self.variables));
        command
            .env(PARTS[part].1, self.ports[part].to_string())
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::piped());
        command
    }

    /// How many processes there are.
    pub(super) const fn count(&self) -> usize {
        PARTS.len()
    }

    /// Ends one and starts it again.
    pub(super) async fn restart(&self, part: usize, how: End) {
        let mut one = self.parts[part].lock().await;
        let wrong = [one.is_gone(), one.end(how).await];
        wrong.into_iter().flatten().for_each(|w| self.complain(w));
        one.start(self.command(part)).await;
        self.ends.fetch_add(1, Ordering::Relaxed);
    }

    /// Says that something happened which must not.
    pub(super) fn complain(&self, what: impl Into<String>) {
        self.complaints.lock().unwrap().push(what.into());
    }

    pub(super) fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap().clone()
    }

    /// Name and log of each part; one that is not running is complained about.
    pub(super) async fn logs(&self) -> Vec<(&'static str, String)> {
        let mut logs = Vec::new();
        for part in &self.parts {
            let mut part = part.lock().await;
            if let Some(gone) = part.is_gone() {
                self.complain(gone);
            }
            logs.push((part.name, part.text()));
        }
        logs
    }

    /// Copies the logs to where they outlive the test.
    pub(super) fn keep_logs(&self) -> PathBuf {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("five-kinds");
        std::fs::create_dir_all(&folder).unwrap();
        for (name, _) in PARTS {
            let file = format!("{name}.log");
            std::fs::copy(self.project.path().join(&file), folder.join(&file)).ok();
        }
        folder
    }
}

fn variables(servers: &[Server], shop: &str, openai: String) -> Variables {
    let mut variables: Variables = servers.iter().flat_map(Server::variables).collect();
    variables.extend([
        ("OPENAI_API_KEY", "sk-test".to_owned()),
        ("OPENAI_BASE_URL", openai),
        ("ORDERS_URL", format!("{shop}/read")),
        ("REFUNDS_URL", format!("{shop}/set")),
        ("SALES_URL", format!("{shop}/read")),
        ("STATUS_URL", format!("{shop}/read")),
        ("METRICS_URL", format!("{shop}/read")),
        ("REPORT_CRON", format!("*/{REPORT_EVERY} * * * * *")),
        ("AGENT_CAPACITY", "50".to_owned()),
        ("LOG_LEVEL", "INFO".to_owned()),
        ("LOG_FORMAT", "json".to_owned()),
    ]);
    variables
}
