//! A12, A13: the MCP server of ours.

use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};

use super::rig::{ORCHESTRATOR, Rig, polite, read, refused, send};
use crate::mcp::{FIRST, KEYS};
use crate::product::Project;

fn message(rig: &Rig, key: &str, message: &Value) -> RequestBuilder {
    let request = rig.request(Method::POST, ORCHESTRATOR, "/mcp");
    request
        .bearer_auth(key)
        .header("accept", "application/json, text/event-stream")
        .json(message)
}

fn hello() -> Value {
    json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } } })
}

fn list() -> Value {
    json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" })
}

/// Begins a session.
async fn begin(rig: &Rig, key: &str) -> String {
    let response = message(rig, key, &hello()).send().await.unwrap();
    let session = response.headers().get("mcp-session-id").expect("a session");
    let session = session.to_str().unwrap().to_owned();
    let (status, hello) = read(response.status().as_u16(), &response.text().await.unwrap());
    assert_eq!(
        (status, &hello["result"]["protocolVersion"]),
        (200, &json!("2025-06-18")),
        "{hello}"
    );
    session
}

async fn make_key(rig: &Rig, body: &Value) -> String {
    let request = rig.request(Method::POST, ORCHESTRATOR, "/keys");
    let (status, made) = send(request.bearer_auth(FIRST).json(body)).await;
    assert_eq!(status, 201, "{made}");
    made["key"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a12_strange_hosts_origins_sessions_and_versions_are_refused() {
    let rig = Rig::with(Project::new(), polite, &KEYS).await;
    let other = make_key(&rig, &json!({ "name": "other", "scopes": ["submit"] })).await;
    let session = begin(&rig, FIRST).await;
    let shown =
        |key: &str, session: &str| message(&rig, key, &list()).header("mcp-session-id", session);

    for (header, value) in [
        ("host", "evil.example"),
        ("host", "127.0.0.1.evil.example"),
        ("origin", "http://evil.example"),
        ("origin", "null"),
    ] {
        let answer = send(shown(FIRST, &session).header(header, value)).await;
        refused(&answer, 403, "FORBIDDEN");
    }
    for version in ["1999-01-01", "x"] {
        let request = shown(FIRST, &session).header("mcp-protocol-version", version);
        refused(&send(request).await, 400, "INVALID_REQUEST");
    }
    let mut changed = session.clone().into_bytes();
    let last = changed.last_mut().unwrap();
    *last = if *last == b'0' { b'1' } else { b'0' };
    let made_up = [
        "1",
        "6f9d0c1e-0000-4000-8000-000000000000",
        std::str::from_utf8(&changed).unwrap(),
    ];
    for session in made_up {
        refused(&send(shown(FIRST, session)).await, 404, "NOT_FOUND");
    }
    // It is the one's who began it.
    refused(&send(shown(&other, &session)).await, 404, "NOT_FOUND");
    assert_eq!(send(shown(FIRST, &session)).await.0, 200);

    let end = rig
        .request(Method::DELETE, ORCHESTRATOR, "/mcp")
        .bearer_auth(FIRST);
    assert_eq!(send(end.header("mcp-session-id", &session)).await.0, 204);
    refused(&send(shown(FIRST, &session)).await, 404, "NOT_FOUND");
    rig.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a13_a_token_for_another_is_worth_nothing_and_goes_nowhere() {
    let rig = Rig::with(Project::new(), polite, &KEYS).await;
    // Signed by somebody, for somebody else: whoever would pass it on would be that one's confused deputy.
    let token = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCJ9.eyJpc3MiOiJodHRwczovL2lkcC5leGFtcGxlIiwiYXVkIjoiaHR0cHM6Ly9vdGhlci5leGFtcGxlIiwic3ViIjoiYWRtaW4iLCJzY29wZSI6ImFkbWluIn0.c2lnbmF0dXJl";
    for sent in [hello(), list(), json!({ "no": "message" })] {
        let response = message(&rig, token, &sent).send().await.unwrap();
        let challenge = response.headers().get("www-authenticate");
        assert!(challenge.is_some(), "the client is told what to show");
        let answer = read(response.status().as_u16(), &response.text().await.unwrap());
        refused(&answer, 401, "AUTH_FAILED");
    }
    // Who may read only gives no tasks; who is limited sees and calls only what is theirs.
    let reader = make_key(&rig, &json!({ "name": "reader", "scopes": ["read"] })).await;
    refused(
        &send(message(&rig, &reader, &list())).await,
        403,
        "FORBIDDEN",
    );
    let limited = json!({ "name": "limited", "scopes": ["submit"], "agents": ["nobody"] });
    let limited = make_key(&rig, &limited).await;
    let (status, tools) = send(message(&rig, &limited, &list())).await;
    assert_eq!(
        (status, &tools["result"]["tools"]),
        (200, &json!([])),
        "{tools}"
    );
    let call = json!({ "jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": {
        "name": "helper", "arguments": { "message": "hi" } } });
    let said = message(&rig, &limited, &call).send().await.unwrap();
    let said = said.text().await.unwrap();
    assert!(said.contains("there is no agent"), "{said}");
    assert_eq!(rig.provider.count(), 0);

    // A key that is one works, and neither it nor the token is sent on with what the agent does.
    let said = message(&rig, FIRST, &call).send().await.unwrap();
    let said = said.text().await.unwrap();
    assert!(said.contains("hello to you"), "{said}");
    let requests = rig.provider.requests();
    assert_eq!(requests.len(), 1);
    for secret in [token, FIRST] {
        let sent = serde_json::to_string(&requests).unwrap();
        assert!(!sent.contains(secret), "it was passed on: {sent}");
        assert!(!rig.product.log().contains(secret), "it is logged");
    }
    rig.is_well().await;
}
