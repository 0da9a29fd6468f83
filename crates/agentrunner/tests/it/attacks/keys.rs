//! A1, A10, A12: who asks, and for whose model.

use reqwest::Method;
use serde_json::json;

use super::rig::{CONFIG, ORCHESTRATOR, Rig, SCHEDULER, STATE, polite, refused, send};
use crate::product::Project;

const FIRST: &str = "first-key-0123456789abcdef";
const KEYS: [(&str, &str); 2] = [("ENABLE_API_AUTH", "true"), ("API_SECRET_KEY", FIRST)];

#[tokio::test(flavor = "multi_thread")]
async fn a1_whatever_is_no_key_is_answered_alike() {
    let rig = Rig::with(Project::new(), polite, &KEYS).await;
    let long = "k".repeat(7 << 10);
    let shown = [
        ("x-nothing", "-"),
        ("authorization", "Bearer ' OR '1'='1' --"),
        ("authorization", "Bearer x'); DROP TABLE api_keys; --"),
        ("authorization", "Basic YWRtaW46YWRtaW4="),
        (
            "authorization",
            "Bearer eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.eyJzdWIiOiJhZG1pbiIsInNjb3BlIjoiYWRtaW4ifQ.",
        ),
        ("authorization", "Bearer"),
        ("x-api-key", long.as_str()),
        ("x-api-key", "admin"),
        ("x-api-key", "changeme"),
    ];
    let mut messages = Vec::new();
    for (header, value) in shown {
        for (service, path) in [
            (STATE, "/executions"),
            (CONFIG, "/configs"),
            (ORCHESTRATOR, "/agents"),
            (SCHEDULER, "/schedules"),
        ] {
            let request = rig.request(Method::GET, service, path);
            let answer = send(request.header(header, value)).await;
            refused(&answer, 401, "AUTH_FAILED");
            messages.push(answer.1["error"]["message"].clone());
        }
        // Before the body: what is no JSON is not complained about.
        let request = rig.request(Method::POST, ORCHESTRATOR, "/tasks");
        let request = request
            .header(header, value)
            .header("content-type", "text/x");
        refused(&send(request.body("{")).await, 401, "AUTH_FAILED");
    }
    messages.sort_by_key(ToString::to_string);
    messages.dedup();
    assert!(
        messages.len() <= 4,
        "the same words for the same thing: {messages:?}"
    );
    let request = rig.request(Method::GET, ORCHESTRATOR, "/keys");
    let (status, keys) = send(request.bearer_auth(FIRST)).await;
    assert_eq!((status, keys), (200, json!([])), "the table is still there");
    rig.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a10_a_caller_chooses_no_address_for_a_model() {
    let rig = Rig::with(Project::new(), polite, &KEYS).await;
    let elsewhere = testkit::ProviderStandIn::start(polite);
    let url = elsewhere.openai_url();
    let make = json!({ "name": "user", "scopes": ["read", "submit", "operate"] });
    let request = rig.request(Method::POST, ORCHESTRATOR, "/keys");
    let (status, made) = send(request.bearer_auth(FIRST).json(&make)).await;
    assert_eq!(status, 201, "{made}");
    let key = made["key"].as_str().unwrap();

    let chat = |model: &str| {
        let body = json!({
            "model": model, "base_url": url, "api_base": url, "extra_body": { "api_base": url },
            "messages": [{ "role": "user", "content": "hi" }],
        });
        let request = rig.request(Method::POST, ORCHESTRATOR, "/v1/chat/completions");
        send(request.bearer_auth(key).json(&body))
    };
    let (status, said) = chat("helper").await;
    assert_eq!(status, 200, "{said}");
    for model in [url.as_str(), "openai/http://evil.example", "../helper"] {
        let (status, refusal) = chat(model).await;
        assert_eq!(
            (status, &refusal["error"]["code"]),
            (404, &json!("model_not_found"))
        );
    }
    let task = json!({ "agent_name": "helper", "task_data": "hi", "api_base": url });
    let request = rig.request(Method::POST, ORCHESTRATOR, "/tasks");
    let answer = send(request.bearer_auth(key).json(&task)).await;
    refused(&answer, 400, "INVALID_TASK_DATA");
    let file =
        super::rig::agent("helper", "").replace("test-model", &format!("m, api_base: '{url}'"));
    let request = rig.request(Method::POST, CONFIG, "/configs/upload?replace=true");
    let request = request
        .header("content-type", "application/yaml")
        .body(file);
    refused(&send(request.bearer_auth(key)).await, 403, "FORBIDDEN");
    assert_eq!(elsewhere.count(), 0, "nobody was asked there");
    assert!(rig.provider.count() > 0);
    rig.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a12_strange_hosts_and_origins_are_refused() {
    let rig = Rig::new(polite).await;
    for service in [STATE, CONFIG, ORCHESTRATOR, SCHEDULER] {
        for (header, value) in [
            ("host", "evil.example"),
            ("host", "127.0.0.1.evil.example"),
            ("origin", "http://evil.example"),
            ("origin", "null"),
        ] {
            let request = rig.request(Method::GET, service, "/health");
            let answer = send(request.header(header, value)).await;
            assert!(
                matches!(answer.0, 400 | 403 | 421),
                "{header}: {value}: {answer:?}"
            );
        }
    }
    rig.is_well().await;
}
