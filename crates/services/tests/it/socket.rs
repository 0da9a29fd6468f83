//! Following an execution over a WebSocket, by a client library that is not ours.

use std::path::Path;
use std::time::Duration;

use agentrunner_services::http::Settings;
use agentrunner_services::http::access::Access;
use domain::access::KeyHash;
use domain::access::key;
use reqwest::{Method, StatusCode};
use serde_json::json;

use crate::harness::{System, Workers, agent, error, read};

/// An execution that is taken in.
async fn submit(system: &System, key: &str, prompt: &str) -> String {
    let body = json!({ "agent_name": "helper", "task_data": { "prompt": prompt } });
    let request = system.ask(Method::POST, "/tasks").json(&body);
    let (status, task) = read(request.bearer_auth(key).send().await.unwrap()).await;
    assert_eq!(status, StatusCode::ACCEPTED, "{task}");
    task["execution_id"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_tells_what_server_sent_events_tell() {
    let bootstrap = key::mint([7; 32]);
    let settings = Settings {
        heartbeat: Duration::from_millis(100),
        ..Settings::default()
    };
    let folder = System::folder(&[("helper.yml", &agent("helper"))]);
    let system = System::dressed(folder, Workers::Running, settings, |app| {
        let access = Access::keyed(KeyHash::of(&bootstrap), "bootstrap", app.engine.clone());
        app.with_access(access)
    })
    .await;
    let done = submit(&system, &bootstrap, "hello").await;
    // Its model takes a minute to answer.
    let waiting = submit(&system, &bootstrap, "slow").await;
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testkit/clients/python");
    let base = system
        .url(agentrunner_services::http::Service::AgentOrchestrator, "")
        .replace("http:", "ws:");
    let mut client = tokio::process::Command::new(testkit::python());
    client
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(scripts.join("websockets_client.py"))
        .args([&base, &done, &waiting, &bootstrap]);
    let output = client.output().await.unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{complained}");

    // Without an upgrade it says where the same is told.
    let request = system.ask(Method::GET, &format!("/ws/tasks/{done}"));
    let (status, refusal) = read(request.bearer_auth(&bootstrap).send().await.unwrap()).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{refusal}");
    assert!(error(&refusal).1.contains("/events"), "{refusal}");
    system.stop().await;
}
