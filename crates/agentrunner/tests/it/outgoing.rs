//! What is sent out arrives, whatever is killed: callbacks and alerts, with the binary.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::Stdio;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use crate::product::{Product, Project};
use crate::project::Ran;

/// Longer than a sender's claim that died with it.
const PATIENCE: Duration = Duration::from_secs(90);

/// A request as it came: its headers, and its body as it is.
struct Got {
    headers: BTreeMap<String, String>,
    body: String,
}

impl Got {
    /// What the official library says of it.
    fn verified(&self, secret: &str) -> Value {
        const SCRIPT: &str = "\
import json, sys
from standardwebhooks import Webhook
given = json.load(sys.stdin)
print(json.dumps(Webhook(given['secret']).verify(given['body'].encode(), given['headers'])))
";
        let given = json!({ "secret": secret, "body": self.body, "headers": self.headers });
        let mut child = std::process::Command::new(testkit::python())
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(given.to_string().as_bytes()).unwrap();
        drop(stdin);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "it is not ours: {}", self.body);
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

/// Takes requests, and says 200 to each.
fn receive(listener: TcpListener) -> UnboundedReceiver<Got> {
    let (tell, got) = unbounded_channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tell = tell.clone();
            tokio::spawn(async move {
                if let Some(got) = one(stream).await {
                    tell.send(got).ok();
                }
            });
        }
    });
    got
}

async fn one(mut stream: TcpStream) -> Option<Got> {
    let mut bytes = Vec::new();
    loop {
        let mut chunk = [0; 4096];
        let n = stream.read(&mut chunk).await.ok().filter(|n| *n > 0)?;
        bytes.extend_from_slice(&chunk[..n]);
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            continue;
        };
        let headers: BTreeMap<String, String> = head
            .lines()
            .skip(1)
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let length: usize = headers.get("content-length")?.parse().ok()?;
        if body.len() >= length {
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer).await.ok()?;
            let body = body.to_owned();
            return Some(Got { headers, body });
        }
    }
}

async fn next(got: &mut UnboundedReceiver<Got>, server: &Product) -> Got {
    let next = tokio::time::timeout(PATIENCE, got.recv()).await;
    let next = next.unwrap_or_else(|_| panic!("nothing came: {}", server.log()));
    next.expect("the receiver runs")
}

fn project() -> Project {
    let project = Project::new();
    project.agent(
        "greeter",
        "name: greeter\nexecution_mode: autonomous\nsystem_prompt: You greet.\n\
         llm_config: { provider: scripted, model: scripts/greeter.yml }\n",
    );
    let scripts = project.path().join("config/scripts");
    std::fs::create_dir_all(&scripts).unwrap();
    let script = "- when: { prompt_contains: fail }\n  error: { class: invalid_request, message: no }\n\
                  - reply: Hello there.\n";
    std::fs::write(scripts.join("greeter.yml"), script).unwrap();
    project
}

async fn run(project: &Project, args: &[&str], at: &str) -> Ran {
    let mut command = project.command(&[("AGENTRUNNER_SERVER", at)]);
    command.args(args);
    Ran::of(command).await
}

const ALLOWED: [(&str, &str); 1] = [("EGRESS_ALLOW", "127.0.0.1")];

/// The receiver is away when the execution ends, and the process is killed; the next one finds it to be told.
#[tokio::test]
async fn a_callback_outlives_the_process_that_owes_it() {
    let project = project();
    // A port that is ours, and answers nobody yet.
    let reserved = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = reserved.local_addr().unwrap().port();
    drop(reserved);
    let server = Product::up(&project, &ALLOWED).await;
    let task = json!({
        "agent_name": "greeter", "task_data": "hi", "metadata": {"n": 1},
        "callback_url": format!("http://127.0.0.1:{port}/hook"),
    });
    let accepted = server.post("/tasks", &task).await;
    let id = accepted["execution_id"].as_str().unwrap();
    server.until(id, |task| task["status"] == "completed").await;
    server.kill().await;

    let mut got = receive(TcpListener::bind(("127.0.0.1", port)).await.unwrap());
    let server = Product::up(&project, &ALLOWED).await;
    let told = next(&mut got, &server).await;
    assert_eq!(told.headers["webhook-id"], format!("msg_{id}"));
    // The command line tells what to verify with, without any server's help.
    let ran = run(&project, &["callbacks", "secret", "--json"], "").await;
    let secret = ran.json()["secret"].as_str().unwrap().to_owned();
    let event = told.verified(&secret);
    assert_eq!(event["type"], "execution.completed");
    assert_eq!(event["data"]["output"], "Hello there.");

    let at = server.orchestrator.clone();
    let ran = run(&project, &["callbacks", "resend", id], &at).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let again = next(&mut got, &server).await;
    assert_eq!(again.headers["webhook-id"], told.headers["webhook-id"]);
    assert_eq!(again.body, told.body);
    server
        .until(id, |task| task["callback"]["state"] == "delivered")
        .await;
    let ran = run(
        &project,
        &["callbacks", "list", "--state", "delivered"],
        &at,
    )
    .await;
    assert_eq!(ran.json()[0]["execution_id"], json!(id));
    let (_, metrics) = (0, server.text("/metrics").await);
    assert!(
        metrics.contains("agentrunner_deliveries_total"),
        "{metrics}"
    );
    server.kill().await;
}

/// An alert is told once, although the process that told it is killed, and its end is told by the next one.
#[tokio::test]
async fn an_alert_outlives_the_process_that_told_it() {
    let project = project();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let mut got = receive(listener);
    let file = project.path().join("config/alerts.yml");
    let rules = |above: u64| {
        format!(
            "receivers:\n  pager: {{ type: webhook, url: 'http://127.0.0.1:{port}/' }}\n\
             rules:\n  - {{ name: failing, when: failures, above: {above}, receivers: [pager] }}\n"
        )
    };
    std::fs::write(&file, rules(0)).unwrap();
    let variables = [("ALERT_CHECK_INTERVAL", "1")];
    let server = Product::up(&project, &variables).await;
    server.run("greeter", "fail").await;
    let told = next(&mut got, &server).await;
    let ran = run(&project, &["callbacks", "secret", "--json"], "").await;
    let secret = ran.json()["secret"].as_str().unwrap().to_owned();
    assert_eq!(told.verified(&secret)["type"], "alert.firing");
    server.kill().await;

    let server = Product::up(&project, &variables).await;
    let at = server.orchestrator.clone();
    let ran = run(&project, &["alerts", "list", "--state", "firing"], &at).await;
    assert_eq!(ran.json()[0]["rule"], "failing", "{ran:?}");
    // A mistake in the file is shown with its place, and changes nothing.
    std::fs::write(&file, rules(0).replace("pager]", "pagr]")).unwrap();
    let ran = run(&project, &["validate"], "").await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr.contains("alerts.yml:4:") && ran.stderr.contains("pager"),
        "{ran:?}"
    );
    std::fs::write(&file, rules(9)).unwrap();
    let over = next(&mut got, &server).await;
    assert_eq!(
        over.verified(&secret)["type"],
        "alert.resolved",
        "nothing is told twice"
    );
    server.kill().await;
}
