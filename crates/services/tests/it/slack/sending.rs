//! What is sent is sent once, as slowly as Slack wants it, and nothing is dropped.

use std::time::Duration;

use agentrunner_services::Service;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use super::rig::{ANN, GENERAL, GREETING, Rig, nothing, of_thread};
use crate::harness::{error, read};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slack_says_to_wait_and_it_is_waited_for_without_losing_a_word() {
    let rig = Rig::start().await;
    rig.slack.limit("chat.postMessage", 1, 1);
    rig.slack.limit("chat.update", 1, 1);
    let thread = rig.mention(ANN, GENERAL, "hello").await;
    rig.said(GENERAL, &thread, GREETING).await;
    for method in ["chat.postMessage", "chat.update"] {
        let calls = rig.slack.calls();
        let calls: Vec<_> = calls.iter().filter(|call| call.method == method).collect();
        let (limited, next) = (calls[0], calls[1]);
        assert_eq!((limited.status, next.status), (429, 200), "{method}");
        assert!(
            next.at - limited.at >= Duration::from_millis(990),
            "{method}"
        );
    }
    rig.slack.limit("chat.postMessage", 2, 1);
    let mut threads = Vec::new();
    for _ in 0..3 {
        threads.push(rig.mention(ANN, GENERAL, "hello").await);
    }
    for thread in &threads {
        rig.said(GENERAL, thread, GREETING).await;
        assert_eq!(of_thread(&rig, GENERAL, thread).len(), 1);
    }
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_was_lost_is_not_sent_twice() {
    let rig = Rig::start().await;
    rig.slack.swallow("chat.postMessage", 1);
    rig.slack.fail("chat.update", 1, "internal_error");
    let thread = rig.mention(ANN, GENERAL, "hello").await;
    rig.said(GENERAL, &thread, GREETING).await;
    assert_eq!(of_thread(&rig, GENERAL, &thread).len(), 1);
    rig.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_send_change_and_remove_messages() {
    let rig = Rig::start().await;
    let message = json!({ "channel": GENERAL, "text": "The report is *ready*." });
    let send = |key: &'static str, body: Value| {
        let request = rig
            .system
            .request(Method::POST, Service::SlackGateway, "/slack/send-message")
            .header("idempotency-key", key);
        async move { read(request.json(&body).send().await.unwrap()).await }
    };
    let (status, sent) = send("k1", message.clone()).await;
    assert_eq!(
        (status, &sent["status"]),
        (StatusCode::OK, &json!("sent")),
        "{sent}"
    );
    assert_eq!(
        send("k1", message.clone()).await,
        (StatusCode::OK, sent.clone())
    );
    let (status, other) = send("k1", json!({ "channel": GENERAL, "text": "other" })).await;
    assert_eq!(
        (status, error(&other).0),
        (StatusCode::CONFLICT, "IDEMPOTENCY_MISMATCH")
    );
    assert_eq!(rig.slack.messages(GENERAL).len(), 1);

    let at = format!("/slack/messages/{}", sent["ts"].as_str().unwrap());
    let change = json!({ "channel": GENERAL, "text": "It is *gone*." });
    assert_eq!(rig.api(Method::PUT, &at, &change).await.0, StatusCode::OK);
    assert_eq!(rig.slack.messages(GENERAL)[0].text, "It is *gone*.");
    let remove = format!("{at}?channel={GENERAL}");
    assert_eq!(
        rig.api(Method::DELETE, &remove, &nothing()).await.0,
        StatusCode::OK
    );
    assert!(rig.slack.messages(GENERAL).is_empty());
    let (status, gone) = rig.api(Method::DELETE, &remove, &nothing()).await;
    assert_eq!(
        (status, error(&gone).0),
        (StatusCode::NOT_FOUND, "NOT_FOUND")
    );

    rig.slack.hide_channel("C00000009");
    for (body, status, word) in [
        (
            json!({ "channel": "C00000009", "text": "x" }),
            404,
            "channel_not_found",
        ),
        (json!({ "channel": GENERAL }), 400, "text"),
        (json!({ "channel": "", "text": "x" }), 400, "channel"),
        (
            json!({ "channel": GENERAL, "text": "x", "thread_ts": "now" }),
            400,
            "thread_ts",
        ),
        (
            json!({ "channel": GENERAL, "text": "x".repeat(40_001) }),
            400,
            "40,000",
        ),
        (
            json!({ "channel": GENERAL, "text": "x", "blocks": vec![json!({}); 51] }),
            400,
            "blocks",
        ),
    ] {
        let (got, answer) = rig.api(Method::POST, "/slack/send-message", &body).await;
        assert_eq!(got.as_u16(), status, "{answer}");
        assert!(error(&answer).1.contains(word), "{answer}");
    }
    rig.end().await;
}
