//! Secrets that were handed in come out nowhere: not in a log, an answer, an error, a journal or the database.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::http::StatusCode;
use serde_json::Value;

use super::rig::{FACES, Rig};
use crate::product::Project;

/// Has secrets in all places that take one, and meets a tool and a server that show what they got.
fn agent(mirror: &str) -> String {
    format!(
        "name: guarded
execution_mode: autonomous
llm_config: {{ provider: openai, model: m }}
system_prompt: Answer.
retry_config: {{ max_retries: 0 }}
tools:
  - name: read
    type: api
    url: '{mirror}/{{name}}'
    headers: {{ Authorization: 'Bearer ${{MY_TOKEN}}', X-Api-Key: '${{MY_TOKEN}}' }}
    effect: read_only
"
    )
}

/// Fails at once, saying its secret.
const BROKEN: &str = "\
name: broken
execution_mode: autonomous
llm_config: { provider: openai, model: m, api_key: '${MY_KEY}', api_base: 'http://127.0.0.1:1/v1' }
system_prompt: Answer.
timeout_seconds: 2
retry_config: { max_retries: 0 }
tools:
  - { name: broken, type: mcp, command: sh, args: [-c, 'echo $MY_ENV >&2; exit 1'], env: { MY_ENV: '${MY_TOKEN}' } }
";
const KEYED: &str = "\
name: keyed
execution_mode: autonomous
llm_config: { provider: openai, model: m, api_key: '${MY_KEY}', api_base: 'http://127.0.0.1:1/v1' }
system_prompt: Answer.
retry_config: { max_retries: 0 }
";

const SECRETS: [(&str, &str); 3] = [
    ("MY_KEY", "sk-canary-of-the-agent"),
    ("MY_TOKEN", "canary-of-the-tool"),
    ("SLACK_SIGNING_SECRET", "canary-of-slack"),
];

#[tokio::test(flavor = "multi_thread")]
async fn a_secret_is_in_no_log_answer_journal_or_file() {
    let project = Project::new();
    project.agent("guarded", &agent(&mirror().await));
    project.agent("broken", BROKEN);
    project.agent("keyed", KEYED);
    let mut variables = vec![("LOG_LEVEL", "TRACE"), ("LOG_DIR", "logs")];
    variables.extend(SECRETS);
    let rig = Rig::with(project, &variables).await;
    let mut answers = Vec::new();
    for prompt in ["read refused", "read fine"] {
        let answer = rig.product.run("guarded", prompt).await;
        assert!(answer.to_string().contains("authorization"), "{answer}");
        answers.push(answer);
    }
    for agent in ["broken", "keyed"] {
        let answer = rig.product.run(agent, "hello").await;
        assert_ne!(answer["status"], "completed", "{answer}");
        answers.push(answer);
    }
    for face in FACES {
        for prompt in ["echo", "html", "cut", "reset", "unknown tool", "read reset"] {
            answers.push(rig.product.run(face, prompt).await);
        }
    }
    let asked = ask_for_everything(&rig, &answers).await;
    assert!(asked.len() > 60, "{} answers", asked.len());
    answers.extend(asked);
    let text = Value::from(answers).to_string();
    assert!(!text.contains("canary"), "{text}");
    rig.is_well().await;
    no_file_tells(rig.project.path());
    let kept = files_with(rig.project.path(), b"hello to you");
    assert!(!kept.is_empty(), "the search finds what is there");
}

/// What every GET of every service answers, for each agent and execution that may know a secret.
async fn ask_for_everything(rig: &Rig, results: &[Value]) -> Vec<Value> {
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let ids = results
        .iter()
        .filter_map(|result| result["execution_id"].as_str());
    let ids: Vec<&str> = ids.collect();
    let mut answers = Vec::new();
    for port in rig.product.ports() {
        let ask = async |path: &str| {
            let mut answer = http.get(format!("http://127.0.0.1:{port}{path}"));
            // What never ends says nothing of these executions, which have.
            if path.contains("stream") {
                answer = answer.timeout(Duration::from_millis(200));
            }
            let text = async { answer.send().await?.text().await }.await;
            text.unwrap_or_else(|error| error.to_string())
        };
        let described: Value = serde_json::from_str(&ask("/openapi.json").await).unwrap();
        for (path, operations) in described["paths"].as_object().unwrap() {
            if operations["get"].is_null() {
                continue;
            }
            let first = ["/agents", "/configs", "/executions", "/tasks"];
            let names: &[&str] = match first.iter().position(|first| path.starts_with(first)) {
                Some(0 | 1) => &["guarded", "broken", "keyed"],
                Some(_) => &ids,
                None => &["guarded"],
            };
            let is_of_one = path.contains('{');
            for name in names.iter().take(if is_of_one { usize::MAX } else { 1 }) {
                let mut path = path.clone();
                while let (Some(from), Some(to)) = (path.find('{'), path.find('}')) {
                    path.replace_range(from..=to, name);
                }
                answers.push(ask(&path).await.into());
            }
        }
    }
    answers
}

#[tokio::test]
async fn a_secret_is_in_the_output_of_no_command() {
    let project = Project::new();
    project.agent("guarded", &agent("http://127.0.0.1:1"));
    project.agent("keyed", KEYED);
    for command in [
        &["doctor"][..],
        &["validate"],
        &["agents"],
        &["run", "keyed", "hello"],
        &["tasks"],
    ] {
        let mut line = project.command(&SECRETS);
        let output = line
            .args(command)
            .env("OPENAI_API_KEY", "sk-canary")
            .output()
            .await;
        let output = output.unwrap();
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text);
        assert!(!text.is_empty(), "{command:?} says nothing");
        assert!(!text.contains("canary"), "{command:?}: {text}");
    }
    no_file_tells(project.path());
}

/// An API that answers with the request that it got: 401 at `/refused`, 200 elsewhere.
async fn mirror() -> String {
    let answer = async |request: axum::extract::Request| {
        let is_refused = request.uri().path() == "/refused";
        let status = if is_refused { 401 } else { 200 };
        let status = StatusCode::from_u16(status).unwrap();
        (status, format!("{:?}", request.headers()))
    };
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = axum::Router::new().fallback(answer);
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}")
}

#[track_caller]
fn no_file_tells(folder: &Path) {
    let found = files_with(folder, b"canary");
    assert!(found.is_empty(), "{found:?}: {}", shown(&found));
}

fn shown(files: &[PathBuf]) -> String {
    let lines = files.iter().flat_map(|file| {
        let text = String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned();
        text.lines()
            .filter(|line| line.contains("canary"))
            .map(|line| line.chars().take(600).collect::<String>())
            .take(5)
            .collect::<Vec<_>>()
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// All files below that contain these bytes.
fn files_with(folder: &Path, bytes: &[u8]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, bytes));
        } else if let Ok(text) = std::fs::read(&path)
            && text.windows(bytes.len()).any(|window| window == bytes)
        {
            found.push(path);
        }
    }
    found
}
