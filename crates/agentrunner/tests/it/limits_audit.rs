//! How often one may ask, and what is written down of it, with the binary.

use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use crate::product::{Product, Project};
use crate::project::Ran;

const FIRST: &str = "first-key-canary-0123456789abcdef";
const KEYS: [(&str, &str); 2] = [("ENABLE_API_AUTH", "true"), ("API_SECRET_KEY", FIRST)];
const AUDIT: [(&str, &str); 3] = [
    ("ENABLE_AUDIT_LOG", "true"),
    ("AUDIT_LOG_PATH", "logs/audit.log"),
    ("AUDIT_LOG_KEY", "seal-canary-0123456789"),
];
const ASKER: &str = "name: asker\nexecution_mode: autonomous\nsystem_prompt: You ask.\n\
    llm_config: { provider: scripted, model: scripts/asker.yml }\n\
    tools:\n  - { name: ask_human, type: function }\n";
const SCRIPT: &str = "- when: { turn: 1 }\n  tool_calls:\n    - name: ask_human\n      \
    arguments: { question: \"Which colour?\" }\n- reply: So be it.\n";

fn project() -> Project {
    let project = Project::new();
    project.agent("asker", ASKER);
    let scripts = project.path().join("config/scripts");
    std::fs::create_dir_all(&scripts).unwrap();
    std::fs::write(scripts.join("asker.yml"), SCRIPT).unwrap();
    project
}

fn log_of(project: &Project) -> PathBuf {
    project.path().join("logs/audit.log")
}

fn lines(project: &Project) -> Vec<Value> {
    let text = std::fs::read_to_string(log_of(project)).unwrap_or_default();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

async fn verify(project: &Project) -> Ran {
    let mut command = project.command(&AUDIT);
    command.args(["audit", "verify"]);
    Ran::of(command).await
}

struct Caller {
    client: reqwest::Client,
    base: String,
}

impl Caller {
    fn new(server: &Product) -> Self {
        Self {
            client: reqwest::Client::new(),
            base: server.orchestrator.clone(),
        }
    }

    async fn post(&self, path: &str, body: &Value) -> (u16, Value) {
        let request = self.client.post(format!("{}{path}", self.base)).json(body);
        answer(request.bearer_auth(FIRST)).await
    }

    async fn get(&self, path: &str) -> (u16, Value) {
        answer(
            self.client
                .get(format!("{}{path}", self.base))
                .bearer_auth(FIRST),
        )
        .await
    }
}

async fn answer(request: reqwest::RequestBuilder) -> (u16, Value) {
    let response = request.send().await.unwrap();
    let status = response.status().as_u16();
    (status, response.json().await.unwrap_or_default())
}

#[tokio::test]
async fn changes_denials_and_decisions_are_written_down_and_a_changed_line_is_named() {
    let project = project();
    let variables = [&KEYS[..], &AUDIT[..]].concat();
    let server = Product::up(&project, &variables).await;
    let caller = Caller::new(&server);
    let task = json!({ "agent_name": "asker", "task_data": "go" });
    let (status, accepted) = caller.post("/tasks", &task).await;
    assert_eq!(status, 202, "{accepted}");
    let id = accepted["execution_id"].as_str().unwrap().to_owned();
    // What was answered is on disk.
    let written = lines(&project);
    assert_eq!(written.len(), 1, "{written:?}");
    assert_eq!(
        written[0]["who"],
        json!({ "kind": "bootstrap", "name": "bootstrap" })
    );
    assert_eq!(written[0]["action"], "POST /tasks");
    assert_eq!(written[0]["target"], format!("/tasks/{id}"));
    assert_eq!(
        (&written[0]["outcome"], &written[0]["from"]),
        (&json!("done"), &json!("127.0.0.1"))
    );
    assert_eq!(written[0]["trace_id"], accepted["trace_id"]);

    let evil = "evil\u{1b}[2J\r\n{\"seq\":99}\u{202e}";
    let input = json!({ "text": "blue", "by": evil });
    for _ in 0..500 {
        if caller.get(&format!("/tasks/{id}")).await.1["status"] == "waiting_for_input" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let (status, answered) = caller.post(&format!("/tasks/{id}/input"), &input).await;
    assert_eq!(status, 200, "{answered}");
    let denied = caller.client.delete(format!("{}/tasks/{id}", caller.base));
    let denied = denied
        .header("x-api-key", "ar_canary")
        .header("user-agent", "x\u{9b}");
    assert_eq!(answer(denied).await.0, 401);
    let (_, made) = caller
        .post("/keys", &json!({ "name": "ci", "scopes": ["read"] }))
        .await;
    let key = made["key"].as_str().unwrap();
    let reload = caller
        .client
        .post(format!("{}/dead-letters/replay", caller.base));
    assert_eq!(answer(reload.bearer_auth(key)).await.0, 403);
    // Reading is not written down.
    assert_eq!(caller.get("/agents").await.0, 200);
    server.signal("TERM");
    let mut server = server;
    assert_eq!(server.ended().await, Some(0));

    let text = std::fs::read_to_string(log_of(&project)).unwrap();
    assert!(!text.contains("canary") && !text.contains(key), "{text}");
    assert!(
        text.chars()
            .all(|c| c == '\n' || !c.is_control() && c != '\u{202e}'),
        "{text}"
    );
    let told: Vec<String> = lines(&project)
        .iter()
        .map(|line| {
            format!(
                "{} {} {}",
                line["outcome"].as_str().unwrap(),
                line["action"].as_str().unwrap(),
                line["who"]["kind"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "done POST /tasks bootstrap",
            "done POST /tasks/{id}/input bootstrap",
            "denied DELETE /tasks/{id} unknown",
            "done POST /keys bootstrap",
            "denied POST /dead-letters/replay key",
        ]
    );
    let decision = &lines(&project)[1]["details"];
    assert_eq!(
        (&decision["answer"], &decision["by"]),
        (&json!("text"), &json!(evil))
    );

    let ran = verify(&project).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    assert_eq!(ran.json()["lines"], 5);
    // It is rotated, and goes on in a new file.
    std::fs::rename(log_of(&project), project.path().join("logs/audit.log.1")).unwrap();
    let server = Product::up(&project, &variables).await;
    let (status, _) = Caller::new(&server).post("/tasks", &task).await;
    assert_eq!(status, 202);
    server.kill().await;
    assert_eq!(lines(&project)[0]["seq"], 6);
    assert_eq!(verify(&project).await.code, 0);

    let old = project.path().join("logs/audit.log.1");
    let whole = std::fs::read_to_string(&old).unwrap();
    std::fs::write(
        &old,
        whole.replace("\"outcome\":\"denied\"", "\"outcome\":\"done\""),
    )
    .unwrap();
    let ran = verify(&project).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(
        ran.stderr
            .contains("audit.log.1:3: line 3 of the log was changed"),
        "{ran:?}"
    );
    let without: String = whole
        .lines()
        .filter(|line| !line.contains("\"seq\":2,"))
        .map(|line| format!("{line}\n"))
        .collect();
    std::fs::write(&old, without).unwrap();
    let ran = verify(&project).await;
    assert!(
        ran.stderr.contains("line 2 of the log is missing"),
        "{ran:?}"
    );
}

#[tokio::test]
async fn what_can_not_be_written_down_is_not_done() {
    let project = project();
    // A folder where the file should be.
    std::fs::create_dir_all(log_of(&project)).unwrap();
    let mut command = project.command(&[&KEYS[..], &AUDIT[..]].concat());
    command
        .arg("up")
        .env("ORCHESTRATOR_PORT", "0")
        .env("STATE_MANAGER_PORT", "0");
    command
        .env("CONFIG_SERVICE_PORT", "0")
        .env("SCHEDULER_SERVICE_PORT", "0");
    let ran = Ran::of(command).await;
    assert_eq!(ran.code, 1, "{ran:?}");
    assert!(ran.stderr.contains("AUDIT_LOG_PATH"), "{ran:?}");
}

#[tokio::test]
async fn requests_are_limited_by_address_and_proxies_are_believed_only_when_they_are_named() {
    let limited = [
        ("RATE_LIMIT_ENABLED", "true"),
        ("RATE_LIMIT_PER_MINUTE", "1"),
        ("RATE_LIMIT_BURST", "2"),
    ];
    let trusting = [&limited[..], &[("TRUSTED_PROXIES", "127.0.0.0/8")]].concat();
    for (variables, wanted) in [
        (&limited[..], [200, 200, 429]),
        (&trusting[..], [200, 200, 200]),
    ] {
        let project = project();
        let server = Product::up(&project, variables).await;
        let client = reqwest::Client::new();
        let mut got = Vec::new();
        for n in 1..=3 {
            let request = client.get(format!("{}/agents", server.orchestrator));
            let request = request.header("x-forwarded-for", format!("10.0.0.{n}"));
            got.push(request.send().await.unwrap().status().as_u16());
        }
        assert_eq!(got, wanted);
        server.kill().await;
    }
}
