//! The binary: a script, the control API, and a hold that a test in another process places.

use agentrunner_testkit::process::Process;
use reqwest::{Client, Response};
use serde_json::{Value, json};

async fn get(process: &Process, path: &str) -> Response {
    Client::new()
        .get(format!("{}{path}", process.url()))
        .send()
        .await
        .unwrap()
}

async fn post(process: &Process, path: &str, body: Value) -> Response {
    Client::new()
        .post(format!("{}{path}", process.url()))
        .json(&body)
        .send()
        .await
        .unwrap()
}

fn chat(text: &str) -> Value {
    json!({"model": "m", "stream": false, "messages": [{"role": "user", "content": text}]})
}

#[tokio::test]
async fn a_provider_by_script() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("script.yaml");
    let script = "
rules:
  - when: { contains: hello, face: ollama }
    times: 1
    answer: { text: 'Hello, {{conversation}}.' }
  - calls: { turns: 1, tool: look, arguments: { at: '{{last_user}}' }, then: seen }
";
    std::fs::write(&path, script).unwrap();
    let provider = Process::provider(Some(&path));
    let first = post(&provider, "/api/chat", chat("hello"))
        .await
        .json::<Value>()
        .await
        .unwrap();
    assert_eq!(first["message"]["content"], "Hello, hello.");
    let second = post(&provider, "/api/chat", chat("hello"))
        .await
        .json::<Value>()
        .await
        .unwrap();
    let call = &second["message"]["tool_calls"][0]["function"];
    assert_eq!(
        (&call["name"], &call["arguments"]),
        (&json!("look"), &json!({"at": "hello"}))
    );

    let replaced = post(
        &provider,
        "/_control/script",
        json!({"otherwise": {"text": "new"}}),
    )
    .await;
    assert_eq!(replaced.status(), 204);
    let third = post(&provider, "/api/chat", chat("x"))
        .await
        .json::<Value>()
        .await
        .unwrap();
    assert_eq!(third["message"]["content"], "new");
    let wrong = post(
        &provider,
        "/_control/script",
        json!({"rules": [{"times": 1}]}),
    )
    .await;
    assert_eq!(wrong.status(), 400);
    assert!(
        wrong
            .text()
            .await
            .unwrap()
            .contains("rule 1: give exactly one of")
    );
    let recorded = get(&provider, "/_control/requests?n=3&wait=5000").await;
    let recorded = recorded.json::<Value>().await.unwrap();
    assert_eq!(recorded.as_array().unwrap().len(), 3);
    assert_eq!(recorded[2]["messages"][0]["text"], "x");
}

#[tokio::test]
async fn effects_held_from_another_process() {
    let effects = Process::effects();
    let hold = json!({"filter": {"route": "charge", "point": "after_effect"}, "limit": 1});
    assert_eq!(
        post(&effects, "/_control/hold", hold)
            .await
            .json::<Value>()
            .await
            .unwrap()["id"],
        1
    );
    let none = get(&effects, "/_control/held?n=1").await;
    assert_eq!(
        (none.status().as_u16(), none.text().await.unwrap()),
        (408, "{\"held\":0}".into())
    );
    let charge = Client::new().post(format!("{}/charge", effects.url()));
    let charge = tokio::spawn(charge.header("idempotency-key", "k").send());
    assert_eq!(
        get(&effects, "/_control/held?n=1&wait=5000").await.status(),
        200
    );
    let calls = get(&effects, "/_control/calls")
        .await
        .json::<Value>()
        .await
        .unwrap();
    assert_eq!(
        (&calls[0]["key"], &calls[0]["effect"]),
        (&json!("k"), &json!(1))
    );
    assert_eq!(calls[0]["outcome"], "open");
    assert_eq!(
        post(&effects, "/_control/release", json!({}))
            .await
            .status(),
        200
    );
    assert_eq!(charge.await.unwrap().unwrap().status(), 200);
    let fault =
        json!({"when": {"route": "read"}, "times": 1, "fault": {"kind": "status", "status": 503}});
    assert_eq!(
        post(&effects, "/_control/faults", fault).await.status(),
        204
    );
    assert_eq!(get(&effects, "/read/x").await.status(), 503);
    assert_eq!(get(&effects, "/read/x").await.status(), 200);
}
