//! A21, A22: what comes on a socket and is no honest request.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::rig::{ORCHESTRATOR, Rig, polite, send};
use crate::product::Project;

async fn connect(rig: &Rig) -> TcpStream {
    let port = rig.product.ports()[ORCHESTRATOR];
    TcpStream::connect(("127.0.0.1", port)).await.unwrap()
}

/// The first line of what is answered; empty when the connection is closed without a word.
async fn say(rig: &Rig, bytes: &[u8]) -> String {
    let mut stream = connect(rig).await;
    // It may be closed before all of it is sent.
    let _sent = stream.write_all(bytes).await;
    let mut answer = vec![0; 512];
    let read = tokio::time::timeout(Duration::from_secs(30), stream.read(&mut answer));
    let length = read
        .await
        .expect("it is answered or closed")
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&answer[..length]).into_owned();
    text.lines().next().unwrap_or_default().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a21_requests_that_are_none_are_refused_or_hung_up_on() {
    let rig = Rig::new(polite).await;
    let host = "Host: 127.0.0.1\r\n";
    let smuggled = "GET /tasks HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n";
    let many: String = (0..5000).map(|n| format!("X-{n}: y\r\n")).collect();
    let long = "y".repeat(100 << 10);
    let requests = [
        format!(
            "POST /tasks HTTP/1.1\r\n{host}Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!(
            "POST /tasks HTTP/1.1\r\n{host}Content-Length: 5\r\nContent-Length: 6\r\n\r\n{{}}    {smuggled}"
        ),
        format!("POST /tasks HTTP/1.1\r\n{host}Transfer-Encoding: xchunked\r\n\r\n{smuggled}"),
        format!("POST /tasks HTTP/1.1\r\n{host}Content-Length: -1\r\n\r\n"),
        format!("GET /agents HTTP/1.1\r\n{host}{many}\r\n"),
        format!("GET /agents HTTP/1.1\r\n{host}X-Long: {long}\r\n\r\n"),
        format!("GET /{long} HTTP/1.1\r\n{host}\r\n"),
        format!("GET /agents HTTP/1.1\r\n{host}X Y: z\r\n\r\n"),
        "\u{0}\u{1}\u{2}\u{3} no protocol at all\r\n\r\n".to_owned(),
        "\u{16}\u{3}\u{1}\u{2}\u{0}\u{1}\u{0}\u{1}\u{fc}".to_owned(),
    ];
    for request in requests {
        let shown: String = request.chars().take(80).collect();
        let answer = say(&rig, request.as_bytes()).await;
        let is_refusal = answer.is_empty() || answer.starts_with("HTTP/1.1 4");
        assert!(is_refusal, "{shown:?}: {answer}");
    }

    // 200 that send a byte and no more: others are served meanwhile, and all of them are let go.
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut stream = connect(&rig).await;
        stream
            .write_all(b"GET /agents HTTP/1.1\r\nHost: 127")
            .await
            .unwrap();
        slow.push(stream);
    }
    let agents = send(rig.request(Method::GET, ORCHESTRATOR, "/agents")).await;
    assert_eq!(agents.0, 200);
    let mut closed = tokio::task::JoinSet::new();
    for mut stream in slow {
        closed.spawn(async move {
            let mut rest = Vec::new();
            let end = stream.read_to_end(&mut rest);
            tokio::time::timeout(Duration::from_secs(30), end)
                .await
                .is_ok()
        });
    }
    while let Some(is_closed) = closed.join_next().await {
        assert!(is_closed.unwrap(), "it is let go");
    }
    rig.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a22_watchers_that_never_read_cost_little_and_keep_nobody_out() {
    let project = Project::new();
    let asking = "tools:\n  - { name: ask_human, type: function }\n";
    project.agent("asker", &super::rig::agent("asker", asking));
    let ask = |request: &testkit::provider::Request| match request.turn {
        0 => testkit::provider::Answer::call("ask_human", json!({ "question": "Which?" })),
        _ => testkit::provider::Answer::say("so be it"),
    };
    let rig = Rig::with(project, ask, &[]).await;
    let task = json!({ "task_data": { "prompt": "x".repeat(500_000) } });
    let accepted = rig.product.post("/agents/asker/invoke", &task).await;
    let id = accepted["execution_id"].as_str().unwrap().to_owned();
    rig.product
        .until(&id, |task| task["status"] == "waiting_for_input")
        .await;
    let mut watchers = Vec::new();
    for _ in 0..300 {
        let mut stream = connect(&rig).await;
        let request = format!("GET /tasks/{id}/events HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut line = [0; 12];
        stream.read_exact(&mut line).await.unwrap();
        assert_eq!(&line, b"HTTP/1.1 200");
        watchers.push(stream);
    }
    let agents = send(rig.request(Method::GET, ORCHESTRATOR, "/agents")).await;
    assert_eq!(agents.0, 200, "whoever does not watch is served");
    rig.is_well().await;
    drop(watchers);
    let answer = json!({ "text": "the red one" });
    rig.product
        .post(&format!("/tasks/{id}/input"), &answer)
        .await;
    rig.product
        .until(&id, |task| task["status"] == "completed")
        .await;
}
