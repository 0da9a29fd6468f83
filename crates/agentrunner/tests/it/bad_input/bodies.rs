//! Bodies that no client should send.

use axum::body::Bytes;
use serde_json::Value;

use super::rig::{Rig, says};

/// The refusal of a body: its status, code and message.
#[track_caller]
fn refused(answer: &(u16, Value), status: u16, code: &str, parts: &[&str]) {
    let (got, body) = answer;
    assert_eq!(*got, status, "{body}");
    assert_eq!(body["error"]["code"], code, "{body}");
    says(body["error"]["message"].as_str().unwrap(), parts);
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_that_are_too_large_too_deep_or_no_text_are_refused() {
    let rig = Rig::new().await;

    // 100 MB, announced, and then in pieces without a length.
    let huge = Bytes::from(vec![b' '; 100_000_000]);
    let piece = huge.slice(..65_536);
    let answer = rig.product.send("/tasks", huge).await;
    refused(
        &answer,
        413,
        "PAYLOAD_TOO_LARGE",
        &["larger than", "MAX_BODY_BYTES"],
    );
    let pieces = (0..1526).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
    let body = reqwest::Body::wrap_stream(futures::stream::iter(pieces));
    let answer = rig.product.send("/tasks", body).await;
    refused(
        &answer,
        413,
        "PAYLOAD_TOO_LARGE",
        &["larger than", "MAX_BODY_BYTES"],
    );

    let deep = format!(
        "{{\"agent_name\": \"openai\", \"task_data\": {{\"prompt\": {}1{}}}}}",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let answer = rig.product.send("/tasks", deep).await;
    refused(
        &answer,
        400,
        "INVALID_REQUEST",
        &["nested more than 128 deep", "flatten"],
    );

    let answer = rig
        .product
        .send("/tasks", b"{\"agent_name\": \"\xff\"}".to_vec())
        .await;
    refused(
        &answer,
        400,
        "INVALID_REQUEST",
        &["byte 16", "not UTF-8", "send UTF-8"],
    );

    let answer = rig.product.send("/tasks", "{\"agent_name\": ").await;
    refused(&answer, 400, "INVALID_REQUEST", &["line 1"]);

    let answer = rig
        .product
        .send(
            "/tasks",
            "{\"agent_nam\": \"openai\", \"task_data\": {\"prompt\": \"hello\"}}",
        )
        .await;
    refused(
        &answer,
        400,
        "INVALID_TASK_DATA",
        &["agent_nam", "agent_name"],
    );

    rig.is_well().await;
}
