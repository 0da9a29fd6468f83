//! A whole system on free ports, in a folder of its own.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use agentrunner_services::config::{ConfigService, Settings as ConfigSettings};
use agentrunner_services::http::{App, Service, Settings, metrics};
use agentrunner_services::server::Server;
use chrono::Utc;
use engine::{Agents, Clock, Engine, Ports, StoreHost};
use llm::{ProviderSettings, Providers};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;
use store::Store;
use store::sqlite::{Options, Sqlite};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tools::{Toolkit, ToolkitSettings};

/// A variable that is set for agents; its value must never be seen.
pub(crate) const SECRET: &str = "s3cret-canary";

pub(crate) struct System {
    pub(crate) folder: TempDir,
    pub(crate) engine: Engine,
    pub(crate) config: ConfigService,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) shutdown: CancellationToken,
    pub(crate) panic_once: Arc<AtomicBool>,
    addresses: BTreeMap<Service, std::net::SocketAddr>,
    pub(crate) server: Option<JoinHandle<()>>,
    client: Client,
}

/// Which parts run.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workers {
    Running,
    /// Nothing claims: executions stay as the test makes them.
    Absent,
}

pub(crate) fn agent(name: &str) -> String {
    format!(
        "name: {name}\nexecution_mode: autonomous\nllm_config:\n  provider: scripted\n  model: script.yml\nsystem_prompt: You help.\n"
    )
}

/// A script that answers every prompt, and asks a person when the prompt wants it.
pub(crate) const SCRIPT: &str = r#"
- when: { prompt_contains: ask, turn: 1 }
  tool_calls: [{ name: ask_human, arguments: { question: "Which one?" } }]
- when: { prompt_contains: approve, turn: 1 }
  tool_calls: [{ name: calculate, arguments: { expression: "6*7" } }]
- when: { prompt_contains: slow }
  reply: late
  delay_ms: 60000
- when: { prompt_contains: fail }
  error: { class: invalid_request, message: no }
- reply: "Hello from the script."
  chunk_delay_ms: 1
  usage: { input_tokens: 10, output_tokens: 5 }
"#;

pub(crate) fn lookup(name: &str) -> Option<String> {
    (name == "CANARY").then(|| SECRET.to_owned())
}

impl System {
    /// A system with one agent, `helper`.
    pub(crate) async fn start(workers: Workers) -> Self {
        let settings = Settings {
            max_body_bytes: 1 << 20,
            heartbeat: Duration::from_millis(100),
            ..Settings::default()
        };
        Self::with(workers, settings, &[("helper.yml", &agent("helper"))]).await
    }

    pub(crate) async fn with(workers: Workers, settings: Settings, files: &[(&str, &str)]) -> Self {
        Self::open(Self::folder(files), workers, settings).await
    }

    /// A folder with these agents.
    pub(crate) fn folder(files: &[(&str, &str)]) -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        let agents = folder.path().join("agents");
        fs::create_dir(&agents).unwrap();
        fs::write(folder.path().join("script.yml"), SCRIPT).unwrap();
        for (name, text) in files {
            fs::write(agents.join(name), text).unwrap();
        }
        folder
    }

    /// A system on a folder that may hold the store of an earlier one.
    pub(crate) async fn open(folder: TempDir, workers: Workers, settings: Settings) -> Self {
        Self::dressed(folder, workers, settings, |app| app).await
    }

    /// The same with something added to what handlers work with.
    pub(crate) async fn dressed(
        folder: TempDir,
        workers: Workers,
        settings: Settings,
        dress: impl FnOnce(App) -> App,
    ) -> Self {
        let options = Options {
            is_durable: false,
            ..Options::default()
        };
        let store: Arc<dyn Store> =
            Arc::new(Sqlite::open(&folder.path().join("data.db"), options).unwrap());
        let panic_once = Arc::new(AtomicBool::new(false));
        let engine = engine(&folder, store.clone(), panic_once.clone());
        let agents = folder.path().join("agents");
        let config = ConfigService::new(
            ConfigSettings::new(agents, Arc::new(lookup)),
            engine.clone(),
        );
        config.reload().await.unwrap();
        if workers == Workers::Running {
            engine.start();
        }
        let shutdown = CancellationToken::new();
        let recorder = metrics::recorder().unwrap();
        let app = App::new(
            engine.clone(),
            config.clone(),
            settings,
            Some(recorder.handle()),
            shutdown.clone(),
        );
        let app = dress(app);
        let any = "127.0.0.1:0".parse().unwrap();
        let wanted = Service::ALL.map(|service| (service, any)).into();
        let server = Server::bind(&wanted).await.unwrap();
        let addresses = server.addresses();
        let serving = tokio::spawn(server.serve(app, Duration::from_secs(2)));
        Self {
            folder,
            engine,
            config,
            store,
            shutdown,
            panic_once,
            addresses,
            server: Some(serving),
            client: Client::builder().no_proxy().build().unwrap(),
        }
    }

    pub(crate) fn agents(&self) -> PathBuf {
        self.folder.path().join("agents")
    }

    pub(crate) fn url(&self, service: Service, path: &str) -> String {
        format!("http://{}{path}", self.addresses[&service])
    }

    pub(crate) fn address(&self, service: Service) -> std::net::SocketAddr {
        self.addresses[&service]
    }

    pub(crate) fn request(
        &self,
        method: Method,
        service: Service,
        path: &str,
    ) -> reqwest::RequestBuilder {
        self.client.request(method, self.url(service, path))
    }

    /// A request to the orchestrator.
    pub(crate) fn ask(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        self.request(method, Service::AgentOrchestrator, path)
    }

    pub(crate) async fn get(&self, service: Service, path: &str) -> (StatusCode, Value) {
        read(
            self.request(Method::GET, service, path)
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    pub(crate) async fn tasks(&self, path: &str) -> (StatusCode, Value) {
        self.get(Service::AgentOrchestrator, path).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> (StatusCode, Value) {
        read(
            self.ask(Method::POST, path)
                .json(body)
                .send()
                .await
                .unwrap(),
        )
        .await
    }

    /// Submits a prompt and answers the execution's id.
    pub(crate) async fn submit(&self, agent: &str, prompt: &str) -> String {
        let body = serde_json::json!({"agent_name": agent, "task_data": {"prompt": prompt}});
        let (status, accepted) = self.post("/tasks", &body).await;
        assert_eq!(status, StatusCode::ACCEPTED, "{accepted}");
        accepted["execution_id"].as_str().unwrap().to_owned()
    }

    /// Waits until an execution is in a state, by following the store.
    pub(crate) async fn until(&self, id: &str, status: &str) -> Value {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        loop {
            let (_, task) = self.tasks(&format!("/tasks/{id}")).await;
            if task["status"] == status {
                return task;
            }
            assert!(
                tokio::time::Instant::now() < deadline,
                "never {status}: {task}"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends it and gives back its folder.
    pub(crate) async fn stop(mut self) -> TempDir {
        self.shutdown.cancel();
        if let Some(server) = self.server.take() {
            server.await.unwrap();
        }
        self.engine.shutdown(Duration::from_secs(1)).await;
        let _closed = self.store.close().await;
        self.folder
    }
}

pub(crate) async fn read(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.unwrap();
    assert!(!text.contains(SECRET), "a secret is shown");
    let value = serde_json::from_str(&text).unwrap_or(Value::String(text));
    (status, value)
}

/// The error of an answer: its code and message.
pub(crate) fn error(body: &Value) -> (&str, &str) {
    let error = &body["error"];
    assert_eq!(error["trace_id"].as_str().map(str::len), Some(32), "{body}");
    assert!(
        error["details"].is_object() && error["timestamp"].is_string(),
        "{body}"
    );
    (
        error["code"].as_str().unwrap(),
        error["message"].as_str().unwrap(),
    )
}

fn engine(folder: &TempDir, store: Arc<dyn Store>, panic_once: Arc<AtomicBool>) -> Engine {
    let clock: Clock = Arc::new(move || {
        assert!(
            !panic_once.swap(false, Ordering::SeqCst),
            "the clock fell down"
        );
        Utc::now()
    });
    let tools_clock: tools::Clock = Arc::new(Utc::now);
    let host = StoreHost::new(store.clone(), Arc::new(Utc::now));
    let ports = Ports {
        store,
        bus: Arc::new(bus::InProcess::default()),
        model: Arc::new(Providers::new(ProviderSettings {
            scripts_root: folder.path().to_owned(),
            ..ProviderSettings::default()
        })),
        tools: Arc::new(Toolkit::new(
            ToolkitSettings::new(folder.path(), tools_clock),
            Arc::new(host),
        )),
        clock,
    };
    let agents = Agents::new(Arc::new(|definition| definition.expanded(&lookup)));
    let settings = engine::Settings {
        worker: "test-1".parse().unwrap(),
        capacity: 8,
        modes: vec![
            domain::ExecutionMode::Autonomous,
            domain::ExecutionMode::Continuous,
            domain::ExecutionMode::Collaborative,
        ],
        lease: Duration::from_secs(10),
        poll: Duration::from_millis(200),
        max_crashes: 3,
        max_reply_bytes: 1 << 20,
        is_gone: None,
        registration: engine::Registration::default(),
    };
    Engine::new(ports, agents, settings)
}
