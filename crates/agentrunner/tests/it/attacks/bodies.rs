//! A2, A3: bodies.

use reqwest::{Body, Method};
use serde_json::json;

use super::rig::{CONFIG, ORCHESTRATOR, Rig, STATE, polite, refused, send};

#[tokio::test(flavor = "multi_thread")]
async fn a2_what_is_too_large_too_deep_or_no_text_is_refused_unread() {
    let rig = Rig::new(polite).await;
    let post = |path: &str| {
        let request = rig.request(Method::POST, ORCHESTRATOR, path);
        request.header("content-type", "application/json")
    };
    let task = |data: &str| format!("{{\"agent_name\": \"helper\", \"task_data\": {data}}}");
    let deep = |open: &str, close: &str| {
        task(&format!(
            "{}1{}",
            open.repeat(100_000),
            close.repeat(100_000)
        ))
    };
    for path in ["/tasks", "/events", "/v1/chat/completions"] {
        for body in [
            "{\"agent_name\": \"helper\", \"task_da".to_owned(),
            deep("[", "]"),
            deep("{\"a\":", "}"),
            task(&"9".repeat(5000)),
            task("1e999999"),
            "<?xml version=\"1.0\"?><!DOCTYPE x [<!ENTITY a SYSTEM \"file:///etc/passwd\">]><x>&a;</x>".to_owned(),
        ] {
            let (status, answer) = send(post(path).body(body)).await;
            assert_eq!(status, 400, "{path}: {answer}");
        }
        let (status, answer) = send(post(path).body(b"{\"a\": \"\xff\xfe\"}".to_vec())).await;
        assert_eq!(status, 400, "{path}: {answer}");
        // A bomb is not unpacked, and need not be one.
        for encoding in ["gzip", "br", "deflate", "zstd"] {
            let request = post(path).header("content-encoding", encoding);
            let (status, answer) = send(request.body(vec![0x1f, 0x8b, 8, 0])).await;
            assert_eq!(status, 415, "{path}: {answer}");
        }
        // 64 MiB, announced and in pieces.
        let piece = vec![b' '; 1 << 16];
        let pieces = (0..1024).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
        let body = Body::wrap_stream(futures::stream::iter(pieces));
        if let Ok(response) = post(path).body(body).send().await {
            assert_eq!(response.status(), 413, "{path}");
        }
        let announced = post(path).header("content-length", (64_u64 << 20).to_string());
        if let Ok(response) = announced.body("{").send().await {
            assert!(response.status().is_client_error(), "{path}");
        }
    }
    rig.is_well().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a3_a_body_that_poses_as_another_reads_no_file() {
    let rig = Rig::new(polite).await;
    let records = [
        json!({ "files": { "file": { "filepath": "/etc/passwd", "originalFilename": "x.yml" } } }),
        json!({ "path": "/etc/passwd", "filename": "x.yml", "size": 1 }),
        json!({ "$ref": "file:///etc/passwd" }),
    ];
    for record in records {
        for path in ["/configs/upload", "/configs/validate"] {
            let request = rig.request(Method::POST, CONFIG, path).json(&record);
            let response = request.send().await.unwrap();
            let text = response.text().await.unwrap();
            assert!(!text.contains("root:"), "{text}");
            assert!(
                text.contains("INVALID_CONFIG") || text.contains("\"valid\":false"),
                "{text}"
            );
        }
    }
    let other = [
        (CONFIG, "/configs/upload", "multipart/form-data; boundary=x"),
        (
            CONFIG,
            "/configs/validate",
            "application/x-www-form-urlencoded",
        ),
        (ORCHESTRATOR, "/tasks", "text/plain"),
        (ORCHESTRATOR, "/tasks", "application/xml"),
        (
            ORCHESTRATOR,
            "/v1/responses",
            "multipart/form-data; boundary=x",
        ),
        (STATE, "/agents/helper/conversation", "text/html"),
    ];
    for (service, path, kind) in other {
        let request = rig.request(Method::POST, service, path);
        let (status, answer) = send(request.header("content-type", kind).body("{}")).await;
        assert_eq!(status, 415, "{path}: {answer}");
    }
    let request = rig.request(Method::POST, ORCHESTRATOR, "/tasks");
    refused(
        &send(request.body("{}")).await,
        415,
        "UNSUPPORTED_MEDIA_TYPE",
    );
    rig.is_well().await;
}
