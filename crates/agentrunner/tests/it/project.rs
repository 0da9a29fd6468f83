//! A project in a folder of its own, and the binary in it with an environment of its own.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStderr, Command};
use tokio::sync::mpsc::UnboundedReceiver;

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Answers at once.
const GREETER: &str = "\
name: greeter
execution_mode: autonomous
description: Says hello.
system_prompt: You greet.
llm_config: { provider: scripted, model: scripts/greeter.yml }
";
const GREETER_SCRIPT: &str = "- reply: Hello there.\n";

/// Looks at the clock, then thinks for a while.
const THINKER: &str = "\
name: thinker
execution_mode: autonomous
system_prompt: You think.
llm_config: { provider: scripted, model: scripts/thinker.yml }
tools:
  - { name: current_time, type: function }
";
const THINKER_SCRIPT: &str = "\
- when: { turn: 1 }
  tool_calls:
    - { name: current_time }
- delay_ms: 2000
  reply: I have thought.
";

/// Thinks for longer than any test waits.
const DREAMER: &str = "\
name: dreamer
execution_mode: autonomous
system_prompt: You dream.
llm_config: { provider: scripted, model: scripts/dreamer.yml }
tools:
  - { name: current_time, type: function }
";
const DREAMER_SCRIPT: &str = "\
- when: { turn: 1 }
  tool_calls:
    - { name: current_time }
- delay_ms: 60000
  reply: It was a dream.
";

/// Asks a person.
const ASKER: &str = "\
name: asker
execution_mode: autonomous
system_prompt: You ask.
llm_config: { provider: scripted, model: scripts/asker.yml }
tools:
  - { name: ask_human, type: function }
";
const ASKER_SCRIPT: &str = "\
- when: { turn: 1 }
  tool_calls:
    - name: ask_human
      arguments: { question: \"Which colour?\" }
- reply: So be it.
";

/// A project with four scripted agents.
pub(crate) struct Project {
    folder: TempDir,
    ports: [u16; 5],
}

impl Project {
    pub(crate) fn new() -> Self {
        let project = Self::empty();
        for (name, agent, script) in [
            ("greeter", GREETER, GREETER_SCRIPT),
            ("thinker", THINKER, THINKER_SCRIPT),
            ("dreamer", DREAMER, DREAMER_SCRIPT),
            ("asker", ASKER, ASKER_SCRIPT),
        ] {
            project.write(&format!("config/agents/{name}.yml"), agent);
            project.write(&format!("config/scripts/{name}.yml"), script);
        }
        project
    }

    pub(crate) fn empty() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            ports: free_ports(),
        }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn write(&self, name: &str, text: &str) {
        let path = self.path().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[2])
    }

    pub(crate) fn state_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[0])
    }

    pub(crate) fn config_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[1])
    }

    /// An address of SchedulerService.
    pub(crate) fn scheduler_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.ports[3])
    }

    /// Where SchedulerService is when a test has it listen elsewhere.
    pub(crate) const fn schedules_at(&mut self, port: u16) {
        self.ports[3] = port;
    }

    pub(crate) const fn port(&self) -> u16 {
        self.ports[2]
    }

    /// The binary in this folder, with nothing of the environment but what it needs.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agentrunner"));
        command
            .args(args)
            .current_dir(self.path())
            .env_clear()
            .env("PATH", "/usr/local/bin:/usr/bin:/bin")
            .env("STATE_MANAGER_PORT", self.ports[0].to_string())
            .env("CONFIG_SERVICE_PORT", self.ports[1].to_string())
            .env("ORCHESTRATOR_PORT", self.ports[2].to_string())
            .env("SCHEDULER_SERVICE_PORT", self.ports[3].to_string())
            .env("SLACK_GATEWAY_PORT", self.ports[4].to_string())
            .env("OLLAMA_BASE_URL", "http://127.0.0.1:1")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs it to its end.
    pub(crate) async fn run(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args)).await
    }

    /// Starts the server and waits until it is ready.
    pub(crate) async fn up(&self) -> Server {
        self.up_with(&[]).await
    }

    pub(crate) async fn up_with(&self, environment: &[(&str, &str)]) -> Server {
        self.start(&["up"], environment).await
    }

    /// Starts one part and waits until it is ready.
    pub(crate) async fn serve(&self, part: &str, environment: &[(&str, &str)]) -> Server {
        self.start(&["serve", part], environment).await
    }

    async fn start(&self, args: &[&str], environment: &[(&str, &str)]) -> Server {
        let mut command = self.command(args);
        command.envs(environment.iter().copied());
        let mut server = Server::of(command);
        server.wait_for_line("ready in").await;
        server
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        reqwest::get(self.url(path))
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Value {
        let client = reqwest::Client::new();
        client
            .post(self.url(path))
            .json(body)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    /// Hands in a task over HTTP; answers its id.
    pub(crate) async fn submit(&self, agent: &str) -> String {
        let task = serde_json::json!({ "agent_name": agent, "task_data": { "prompt": "go" } });
        let accepted = self.post("/tasks", &task).await;
        accepted["execution_id"]
            .as_str()
            .unwrap_or_else(|| panic!("{accepted}"))
            .to_owned()
    }

    /// Asks until the answer is as wanted.
    pub(crate) async fn until(&self, path: &str, is_wanted: impl Fn(&Value) -> bool) -> Value {
        let began = Instant::now();
        loop {
            let answer = self.get(path).await;
            if is_wanted(&answer) {
                return answer;
            }
            assert!(began.elapsed() < PATIENCE, "{path} stays {answer}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// What came of a command.
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) async fn of(mut command: Command) -> Self {
        let output = tokio::time::timeout(PATIENCE, command.output())
            .await
            .expect("it hangs")
            .unwrap();
        Self::from(output)
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|_| panic!("{self:?}"))
    }
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

impl std::fmt::Debug for Ran {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "exit {}\n--- stdout\n{}\n--- stderr\n{}",
            self.code, self.stdout, self.stderr
        )
    }
}

/// A running server.
pub(crate) struct Server {
    child: Child,
    lines: UnboundedReceiver<String>,
    /// What it logged so far.
    pub(crate) log: String,
}

impl Server {
    /// Starts it, and waits for nothing.
    pub(crate) fn of(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::null()).spawn().unwrap();
        let lines = lines_of(child.stderr.take().unwrap());
        Self {
            child,
            lines,
            log: String::new(),
        }
    }

    pub(crate) async fn wait_for_line(&mut self, part: &str) {
        let reading = async {
            while let Some(line) = self.lines.recv().await {
                self.log.push_str(&line);
                self.log.push('\n');
                if line.contains(part) {
                    return true;
                }
            }
            false
        };
        let found = tokio::time::timeout(PATIENCE, reading).await;
        assert!(found.unwrap_or_default(), "no {part:?} in\n{}", self.log);
    }

    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// Waits for its end; answers its exit code and its whole log.
    pub(crate) async fn ended(mut self) -> (i32, String) {
        let rest = async {
            while let Some(line) = self.lines.recv().await {
                self.log.push_str(&line);
                self.log.push('\n');
            }
        };
        tokio::time::timeout(PATIENCE, rest)
            .await
            .expect("it does not end");
        let status = self.child.wait().await.unwrap();
        (status.code().unwrap_or(-1), self.log)
    }

    /// As the kernel does it when memory is short.
    pub(crate) async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }
}

/// Reads all the time: a process whose log nobody reads stops at some line of it.
fn lines_of(stderr: ChildStderr) -> UnboundedReceiver<String> {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut lines = BufReader::new(stderr).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            // The test may be over.
            sender.send(line).ok();
        }
    });
    receiver
}

pub(crate) fn signal(child: &Child, name: &str) {
    let pid = child.id().unwrap().to_string();
    let sent = std::process::Command::new("kill")
        .args(["-s", name, &pid])
        .status()
        .unwrap();
    assert!(sent.success());
}

fn free_ports() -> [u16; 5] {
    let listeners = [(); 5].map(|()| std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap());
    listeners.map(|listener| listener.local_addr().unwrap().port())
}
