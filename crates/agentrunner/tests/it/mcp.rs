//! The agents as tools of an MCP server: the official clients, of both ages of the protocol, by HTTP and as a program.

use std::path::Path;
use std::process::Stdio;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::Command;

use crate::product::{Product, Project};

pub(crate) const FIRST: &str = "first-key-0123456789abcdef";
pub(crate) const KEYS: [(&str, &str); 2] = [("ENABLE_API_AUTH", "true"), ("API_SECRET_KEY", FIRST)];

/// Agents and what their models say: one that answers, one that takes its time, one that asks, one that can't.
const AGENTS: [(&str, &str, &str); 4] = [
    (
        "greeter",
        "description: Says hello.\n",
        "- reply: Hello there.\n",
    ),
    (
        "dreamer",
        "tools:\n  - { name: current_time, type: function }\n",
        "- when: { turn: 1 }\n  tool_calls:\n    - { name: current_time }\n- delay_ms: 60000\n  reply: It was a dream.\n",
    ),
    (
        "asker",
        "tools:\n  - { name: ask_human, type: function }\n",
        "- when: { turn: 1 }\n  tool_calls:\n    - name: ask_human\n      arguments: { question: \"Which colour?\" }\n- reply: So be it.\n",
    ),
    (
        "failing",
        "output_schema: { type: object }\n",
        "- reply: no object\n",
    ),
];

pub(crate) fn project() -> Project {
    let project = Project::new();
    let scripts = project.path().join("config/scripts");
    std::fs::create_dir_all(&scripts).unwrap();
    for (name, more, script) in AGENTS {
        let agent = format!(
            "name: {name}\nexecution_mode: autonomous\nsystem_prompt: You work.\n\
             llm_config: {{ provider: scripted, model: scripts/{name}.yml }}\n{more}"
        );
        project.agent(name, &agent);
        std::fs::write(scripts.join(format!("{name}.yml")), script).unwrap();
    }
    project
}

/// Has the official client of this age do all that it does.
async fn prove(project: &Project, age: &str, args: &[&str], variables: &[(&str, &str)]) {
    let script =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/clients/node/mcp_client.mjs");
    let output = Command::new("node")
        .arg(script)
        .arg(age)
        .args(args)
        .current_dir(testkit::node_folder())
        .env("PROJECT", project.path())
        .env("AGENTRUNNER_API_KEY", FIRST)
        .envs(variables.iter().copied())
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{age} {args:?}: {said}\n{complained}"
    );
}

/// Every call that a client cancelled is over, and none is left behind.
async fn all_are_over(server: &Product, cancelled: usize) {
    let client = reqwest::Client::new();
    let mut tasks = Value::Null;
    for _ in 0..500 {
        let request = client.get(format!("{}/tasks?agent_name=dreamer", server.orchestrator));
        let response = request.bearer_auth(FIRST).send().await.unwrap();
        tasks = response.json().await.unwrap();
        let all = tasks.as_array().unwrap();
        if all.len() == cancelled && all.iter().all(|task| task["status"] == "cancelled") {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{cancelled} cancelled calls are not over: {tasks:#}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_official_clients_use_agents_as_tools() {
    let project = project();
    let server = Product::up(&project, &KEYS).await;
    let url = format!("{}/mcp", server.orchestrator);
    let stdio = [
        "stdio",
        env!("CARGO_BIN_EXE_agentrunner"),
        "--server",
        &server.orchestrator,
        "mcp",
    ];
    let http = ["http", url.as_str(), FIRST];
    tokio::join!(
        prove(&project, "2025", &http, &[]),
        prove(&project, "2026", &http, &[]),
        prove(&project, "2025", &stdio, &[]),
        prove(&project, "2026", &stdio, &[]),
    );
    all_are_over(&server, 4).await;
    server.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_program_outlives_its_server_and_answers_for_it() {
    let project = project();
    let ports = crate::product::free_ports(5);
    let server = Product::up_at(&ports, &project, &[]).await;
    let mut program = project.command(&[]);
    program.args(["--server", &server.orchestrator, "mcp"]);
    let mut program = program
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let mut into = program.stdin.take().unwrap();
    let mut lines = BufReader::new(program.stdout.take().unwrap()).lines();
    let mut exchange = async |message: &str| -> Value {
        into.write_all(format!("{message}\n").as_bytes())
            .await
            .unwrap();
        let line = lines.next_line().await.unwrap().unwrap();
        serde_json::from_str(&line).unwrap()
    };
    let hello = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } } });
    let list = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" }).to_string();
    let greeting = exchange(&hello.to_string()).await;
    assert_eq!(
        greeting["result"]["protocolVersion"], "2025-11-25",
        "{greeting}"
    );
    assert_eq!(
        exchange(&list).await["result"]["tools"]
            .as_array()
            .unwrap()
            .len(),
        4
    );
    let refusal = exchange("{ no JSON").await;
    assert_eq!(refusal["error"]["code"], -32700, "{refusal}");

    server.kill().await;
    let refusal = exchange(&list).await;
    assert_eq!(refusal["id"], 2);
    let message = refusal["error"]["message"].as_str().unwrap();
    assert!(message.contains("no server answers at"), "{message}");

    // Another process knows nothing of the session where nobody shows keys: a new one is begun without a word.
    let server = Product::up_at(&ports, &project, &[]).await;
    let again = exchange(&list).await;
    assert_eq!(
        again["result"]["tools"].as_array().unwrap().len(),
        4,
        "{again}"
    );
    drop(into);
    let ended = tokio::time::timeout(std::time::Duration::from_secs(20), program.wait()).await;
    assert_eq!(ended.unwrap().unwrap().code(), Some(0));
    server.kill().await;
}
