//! The built binary in a folder of its own, as an operator runs it.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;
use tokio::process::{Child, Command};

/// The binary.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_agentrunner");

/// A folder with agents and data.
pub(crate) struct Project {
    folder: TempDir,
}

impl Project {
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("config/agents")).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Writes an agent's file.
    pub(crate) fn agent(&self, name: &str, yaml: &str) {
        std::fs::write(self.path().join(format!("config/agents/{name}.yml")), yaml).unwrap();
    }

    /// The binary, in this folder, with no variables but these.
    pub(crate) fn command(&self, variables: &[(&str, &str)]) -> Command {
        self.command_of(Path::new(PROGRAM), variables)
    }

    /// The same for another build of it.
    pub(crate) fn command_of(&self, program: &Path, variables: &[(&str, &str)]) -> Command {
        let mut command = Command::new(program);
        command
            .current_dir(self.path())
            .env_clear()
            .kill_on_drop(true)
            .stdin(Stdio::null());
        command
            .env("PATH", std::env::var("PATH").unwrap())
            .env("HOME", self.path());
        command.envs(variables.iter().copied());
        command
    }
}

/// A running `agentrunner up`.
pub(crate) struct Product {
    child: Child,
    ports: Vec<u16>,
    client: reqwest::Client,
    log: PathBuf,
    pub(crate) orchestrator: String,
    pub(crate) state: String,
}

impl Product {
    /// Starts it on free ports and waits until it is ready.
    pub(crate) async fn up(project: &Project, variables: &[(&str, &str)]) -> Self {
        Self::up_at(&free_ports(5), project, variables).await
    }

    /// Starts it on free ports and waits until it answers, well or not.
    pub(crate) async fn up_unwell(project: &Project, variables: &[(&str, &str)]) -> Self {
        let mut product = Self::start_at(&free_ports(5), project, variables);
        product.wait_for("/health/live", project).await;
        product
    }

    /// Starts it on these five ports and waits until it is ready.
    pub(crate) async fn up_at(
        ports: &[u16],
        project: &Project,
        variables: &[(&str, &str)],
    ) -> Self {
        let mut product = Self::start_at(ports, project, variables);
        product.wait_for("/health/ready", project).await;
        product
    }

    fn start_at(ports: &[u16], project: &Project, variables: &[(&str, &str)]) -> Self {
        let numbers = ports;
        let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
        let names = [
            "STATE_MANAGER_PORT",
            "CONFIG_SERVICE_PORT",
            "ORCHESTRATOR_PORT",
            "SCHEDULER_SERVICE_PORT",
            "SLACK_GATEWAY_PORT",
        ];
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(project.path().join("up.log"))
            .unwrap();
        let child = project
            .command(variables)
            .envs(names.into_iter().zip(&ports))
            .arg("up")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        let url = |i: usize| format!("http://127.0.0.1:{}", ports[i]);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        Self {
            child,
            ports: numbers.to_vec(),
            client,
            log: project.path().join("up.log"),
            state: url(0),
            orchestrator: url(2),
        }
    }

    async fn wait_for(&mut self, path: &str, project: &Project) {
        for _ in 0..1500 {
            if let Some(status) = self.child.try_wait().unwrap() {
                panic!("it ended with {status}: {}", log(project));
            }
            let ready = self
                .client
                .get(format!("{}{path}", self.orchestrator))
                .send()
                .await;
            if ready.is_ok_and(|response| response.status().is_success()) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{path} does not answer 200: {}", log(project));
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        json(self.client.get(format!("{}{path}", self.orchestrator))).await
    }

    pub(crate) async fn get_state(&self, path: &str) -> Value {
        json(self.client.get(format!("{}{path}", self.state))).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        json(
            self.client
                .post(format!("{}{path}", self.orchestrator))
                .json(body),
        )
        .await
    }

    /// Asks AgentOrchestrator, whatever it answers.
    pub(crate) async fn ask(&self, path: &str) -> (u16, Value) {
        answer(self.client.get(format!("{}{path}", self.orchestrator))).await
    }

    /// Posts to AgentOrchestrator, whatever it answers.
    pub(crate) async fn try_post(&self, path: &str, body: &Value) -> (u16, Value) {
        let url = format!("{}{path}", self.orchestrator);
        answer(self.client.post(url).json(body)).await
    }

    /// Posts nothing to StateManager, whatever it answers.
    pub(crate) async fn post_state(&self, path: &str) -> (u16, Value) {
        answer(self.client.post(format!("{}{path}", self.state))).await
    }

    /// Submits a task and answers its result.
    pub(crate) async fn run(&self, agent: &str, prompt: &str) -> Value {
        let body = serde_json::json!({ "task_data": { "prompt": prompt } });
        self.post(&format!("/agents/{agent}/invoke?wait=30s"), &body)
            .await
    }

    /// What is answered, whatever it is.
    pub(crate) async fn text(&self, path: &str) -> String {
        let request = self.client.get(format!("{}{path}", self.orchestrator));
        request.send().await.unwrap().text().await.unwrap()
    }

    /// Sends any bytes as the body; answers the status and the JSON, whatever they are.
    pub(crate) async fn send(&self, path: &str, body: impl Into<reqwest::Body>) -> (u16, Value) {
        let response = self
            .client
            .post(format!("{}{path}", self.orchestrator))
            .header("content-type", "application/json")
            .body(body)
            .send()
            .await
            .unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }

    /// Asks until the task is as wanted.
    pub(crate) async fn until(&self, id: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let mut task = Value::Null;
        for _ in 0..1500 {
            task = self.get(&format!("/tasks/{id}")).await;
            if is_wanted(&task) {
                return task;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("it stays {task}");
    }

    /// The most memory that the process ever had, in MiB.
    pub(crate) fn peak_mib(&self) -> u64 {
        let pid = self.child.id().expect("it runs");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        kib.expect("a figure in KiB").parse::<u64>().unwrap() / 1024
    }

    /// What it logged so far.
    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its process, while it runs.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Its ports, for one that takes its place.
    pub(crate) fn ports(&self) -> Vec<u16> {
        self.ports.clone()
    }

    /// SIGKILL, without waiting for the end.
    pub(crate) fn signal_kill(&self) {
        self.signal("KILL");
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().expect("it runs").to_string();
        let sent = std::process::Command::new("kill")
            .args([&format!("-{name}"), &pid])
            .status()
            .unwrap();
        assert!(sent.success());
    }

    /// Waits for its end; answers the exit code.
    pub(crate) async fn ended(&mut self) -> Option<i32> {
        self.child.wait().await.unwrap().code()
    }

    /// SIGKILL, and waits for the end.
    pub(crate) async fn kill(mut self) {
        // It may be dead already, by `signal_kill`.
        self.child.kill().await.unwrap();
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or_default())
}

async fn json(request: reqwest::RequestBuilder) -> Value {
    let response = request.send().await.unwrap();
    let (status, url) = (response.status(), response.url().clone());
    let text = response.text().await.unwrap();
    assert!(status.is_success(), "{url}: {status}: {text}");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{url}: {error}: {text}"))
}

pub(crate) fn log(project: &Project) -> String {
    std::fs::read_to_string(project.path().join("up.log")).unwrap_or_default()
}

/// Ports that were free a moment ago, all different.
pub(crate) fn free_ports(count: usize) -> Vec<u16> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0").unwrap())
        .collect();
    listeners
        .iter()
        .map(|listener| listener.local_addr().unwrap().port())
        .collect()
}
