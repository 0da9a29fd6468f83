//! A25, and terminal codes in what tools say (A15).

use reqwest::Method;
use reqwest::header::HeaderValue;
use serde_json::{Value, json};

use super::rig::{ORCHESTRATOR, Rig, polite, refused, send};

#[tokio::test(flavor = "multi_thread")]
async fn a25_line_breaks_and_terminal_codes_make_no_line_of_the_log() {
    let rig = Rig::new(polite).await;
    let forged = "x\r\n{\"level\":\"ERROR\",\"message\":\"forged\"}\u{1b}[2J\u{1b}]0;owned\u{7}\u{9b}31m\u{202e}";
    let body = json!({ "agent_name": forged, "task_data": "hi", "metadata": { "n": forged } });
    let request = rig
        .request(Method::POST, ORCHESTRATOR, "/tasks")
        .json(&body);
    refused(&send(request).await, 404, "AGENT_NOT_FOUND");
    let body = json!({ "agent_name": "helper", "task_data": { "prompt": forged }, "conversation_id": forged });
    let request = rig
        .request(Method::POST, ORCHESTRATOR, "/tasks")
        .json(&body);
    assert_eq!(send(request).await.0, 400);
    let result = rig.product.run("helper", forged).await;
    assert_eq!(result["status"], "completed");
    let agent = HeaderValue::from_bytes(b"evil\x1b[2J\xff\t").ok();
    for value in agent.into_iter().chain([HeaderValue::from_static("a\tb")]) {
        let request = rig.request(Method::GET, ORCHESTRATOR, "/agents");
        let request = request
            .header("user-agent", value.clone())
            .header("x-request-id", value);
        assert_eq!(send(request).await.0, 200);
    }
    let path = "/agents/x%0d%0aforged%1b%5B2J";
    assert_eq!(
        send(rig.request(Method::GET, ORCHESTRATOR, path)).await.0,
        404
    );
    let reason = format!(
        "/tasks/{}?reason=a%0d%0ab%1b%5B2J",
        result["execution_id"].as_str().unwrap()
    );
    assert_eq!(
        send(rig.request(Method::DELETE, ORCHESTRATOR, &reason))
            .await
            .0,
        409
    );
    rig.is_well().await;

    let log = rig.product.log();
    for line in log.lines() {
        let parsed: Value =
            serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line:?}"));
        assert_ne!(parsed["message"], "forged");
        assert!(parsed["timestamp"].is_string(), "{line}");
    }
    let is_control = |c: char| c.is_control() && c != '\n';
    assert!(!log.contains(is_control), "a terminal would act on it");
}
