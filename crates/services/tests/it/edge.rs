//! What every service does alike: refusals, traces, guards, health, metrics, shutdown.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;

use agentrunner_services::http::{Service, Settings};
use agentrunner_services::server::Server;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::harness::{System, Workers, agent, error, read};

#[tokio::test]
async fn refusals_are_json_of_one_shape() {
    let system = System::start(Workers::Absent).await;
    let post = || system.ask(Method::POST, "/tasks");
    let json_type = "application/json";
    let task = |text: &str| {
        post()
            .header("content-type", json_type)
            .body(text.to_owned())
    };
    let deep = format!(
        "{{\"task_data\": {}{}}}",
        "[".repeat(10_000),
        "]".repeat(10_000)
    );
    let unknown = r#"{"agent_name": "helper", "task_data": {}, "priorty": "high"}"#;
    let cases = [
        (
            system.ask(Method::GET, "/nowhere"),
            404,
            "NOT_FOUND",
            "there is no route /nowhere",
        ),
        (
            system.ask(Method::PUT, "/tasks"),
            405,
            "METHOD_NOT_ALLOWED",
            "/tasks has no method PUT",
        ),
        (
            post().body("x"),
            415,
            "UNSUPPORTED_MEDIA_TYPE",
            "send Content-Type: application/json",
        ),
        (
            post().header("content-type", "text/xml").body("<x/>"),
            415,
            "UNSUPPORTED_MEDIA_TYPE",
            "text/xml",
        ),
        (
            task("{}").header("content-encoding", "gzip"),
            415,
            "UNSUPPORTED_MEDIA_TYPE",
            "gzip",
        ),
        (
            task(&"x".repeat((1 << 20) + 1)),
            413,
            "PAYLOAD_TOO_LARGE",
            "larger than 1048576 bytes",
        ),
        (
            task("{\n  \"task_data\" 1}"),
            400,
            "INVALID_REQUEST",
            "at line 2, column 15",
        ),
        (task(""), 400, "INVALID_REQUEST", "the body is empty"),
        (task(&deep), 400, "INVALID_REQUEST", "nested more than 128"),
        (
            post()
                .header("content-type", json_type)
                .body(vec![b'{', 0xff]),
            400,
            "INVALID_REQUEST",
            "byte 1",
        ),
        (task("[]"), 400, "INVALID_TASK_DATA", ""),
        (
            task(unknown),
            400,
            "INVALID_TASK_DATA",
            "priorty: unknown field; did you mean priority?",
        ),
        (
            task(r#"{"task_data": {}, "priority": "hi"}"#),
            400,
            "INVALID_TASK_DATA",
            "priority: \"hi\"",
        ),
        (
            task(r#"{"task_data": {}}"#),
            400,
            "INVALID_TASK_DATA",
            "agent_name: the field is missing",
        ),
        (
            task(r#"{"agent_name": "helpr", "task_data": {}}"#),
            404,
            "AGENT_NOT_FOUND",
            "did you mean helper?",
        ),
        (
            system.ask(Method::GET, "/tasks?limt=1"),
            400,
            "INVALID_REQUEST",
            "did you mean limit?",
        ),
        (
            system.ask(Method::GET, "/tasks?limit=0"),
            400,
            "INVALID_REQUEST",
            "it is 1 to 1000",
        ),
        (
            system.ask(Method::GET, "/tasks?status=done"),
            400,
            "INVALID_REQUEST",
            "is not a status",
        ),
        (
            system.ask(Method::GET, "/tasks?cursor=1-x"),
            400,
            "INVALID_REQUEST",
            "cursor",
        ),
        (
            system.ask(Method::GET, "/tasks/42"),
            404,
            "EXECUTION_NOT_FOUND",
            "is a UUID",
        ),
        (
            system.ask(Method::GET, "/agents/%ff"),
            400,
            "INVALID_REQUEST",
            "encoding",
        ),
        (
            system.ask(Method::GET, "/agents/..%2f..%2fetc"),
            404,
            "AGENT_NOT_FOUND",
            "",
        ),
    ];
    for (request, status, code, words) in cases {
        let shown = format!("{request:?}");
        let (got, body) = read(request.send().await.unwrap()).await;
        assert_eq!(got.as_u16(), status, "{shown}: {body}");
        let (got, message) = error(&body);
        assert_eq!(got, code, "{shown}: {body}");
        assert!(message.contains(words), "{shown}: {message}");
    }
}

#[tokio::test]
async fn a_body_that_is_announced_too_large_is_not_waited_for() {
    let system = System::start(Workers::Absent).await;
    let mut stream = TcpStream::connect(system.address(Service::AgentOrchestrator))
        .await
        .unwrap();
    let head = "POST /tasks HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 104857600\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = first_bytes(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
}

#[tokio::test]
async fn too_many_headers_are_refused() {
    let system = System::start(Workers::Absent).await;
    let mut stream = TcpStream::connect(system.address(Service::AgentOrchestrator))
        .await
        .unwrap();
    let headers: String = (0..5000).map(|n| format!("X-{n}: x\r\n")).collect();
    let head = format!("GET /tasks HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n");
    let _may_be_closed = stream.write_all(head.as_bytes()).await;
    let answer = first_bytes(&mut stream).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    let (status, _) = system.tasks("/health/live").await;
    assert_eq!(status, StatusCode::OK);
}

async fn first_bytes(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 4096];
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read(&mut bytes));
    let n = read.await.expect("an answer").unwrap();
    String::from_utf8_lossy(&bytes[..n]).into_owned()
}

#[tokio::test]
async fn a_panic_is_one_failed_request_and_tells_nothing() {
    let system = System::start(Workers::Absent).await;
    let id = system.submit("helper", "hello").await;
    system.panic_once.store(true, Ordering::SeqCst);
    let (status, body) = system.tasks(&format!("/tasks/{id}")).await;
    assert_eq!(status, StatusCode::INTERNAL_SERVER_ERROR);
    assert_eq!(error(&body).0, "INTERNAL");
    assert!(!body.to_string().contains("clock"), "{body}");
    let (status, _) = system.tasks(&format!("/tasks/{id}")).await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test]
async fn traces_come_back_and_reach_the_execution() {
    let system = System::start(Workers::Absent).await;
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let response = system
        .ask(Method::POST, "/tasks")
        .header("traceparent", format!("00-{trace}-b7ad6b7169203331-01"))
        .header("x-request-id", "order-17")
        .json(&json!({"agent_name": "helper", "task_data": "hello"}))
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["x-request-id"], "order-17");
    let parent = response.headers()["traceparent"]
        .to_str()
        .unwrap()
        .to_owned();
    assert!(parent.starts_with(&format!("00-{trace}-")) && !parent.contains("b7ad6b7169203331"));
    let (_, accepted) = read(response).await;
    assert_eq!(accepted["trace_id"], trace);
    let (_, found) = system.tasks(&format!("/tasks?trace_id={trace}")).await;
    assert_eq!(found[0]["execution_id"], accepted["execution_id"]);

    let response = system.ask(Method::GET, "/nowhere").send().await.unwrap();
    let made = response.headers()["x-request-id"]
        .to_str()
        .unwrap()
        .to_owned();
    let (_, body) = read(response).await;
    assert_eq!(body["error"]["trace_id"], made);
}

#[tokio::test]
async fn strange_hosts_and_pages_of_other_origins_are_refused() {
    let system = System::start(Workers::Absent).await;
    for (name, value) in [
        ("host", "rebound.example:8003"),
        ("origin", "https://evil.example"),
        ("origin", "null"),
    ] {
        let request = system.ask(Method::GET, "/agents").header(name, value);
        let (status, body) = read(request.send().await.unwrap()).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{name}: {value}");
        assert_eq!(error(&body).0, "FORBIDDEN");
    }
    let address = system.address(Service::AgentOrchestrator);
    let own = system
        .ask(Method::GET, "/agents")
        .header("origin", format!("http://{address}"));
    assert_eq!(own.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn browsers_of_allowed_origins_are_answered() {
    let settings = Settings {
        allowed_origins: vec!["https://ops.example".to_owned()],
        ..Settings::default()
    };
    let system = System::with(Workers::Absent, settings, &[("a.yml", &agent("a"))]).await;
    let preflight = system
        .ask(Method::OPTIONS, "/tasks")
        .header("origin", "https://ops.example")
        .header("access-control-request-method", "POST");
    let response = preflight.send().await.unwrap();
    assert_eq!(
        response.headers()["access-control-allow-origin"],
        "https://ops.example"
    );
    let get = system
        .ask(Method::GET, "/agents")
        .header("origin", "https://ops.example");
    assert_eq!(get.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn health_tells_the_truth() {
    let system = System::start(Workers::Absent).await;
    for service in Service::ALL {
        let (status, body) = system.get(service, "/health/live").await;
        assert_eq!((status, body), (StatusCode::OK, json!({"status": "alive"})));
        let (status, body) = system.get(service, "/health/ready").await;
        assert_eq!(status, StatusCode::OK);
        let ok = json!({"database": "ok", "cache": "ok", "message_queue": "ok"});
        assert_eq!(body, json!({"status": "ready", "dependencies": ok}));
        let (status, body) = system.get(service, "/health").await;
        assert_eq!(status, StatusCode::OK);
        assert_eq!(body["status"], "healthy");
        assert!(body["version"].is_string() && body["uptime_seconds"].is_u64());
    }
    system.store.close().await.unwrap();
    let (status, body) = system.tasks("/health/ready").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(body["status"], "not_ready");
    assert_eq!(body["dependencies"]["database"], "unavailable");
    assert!(body["failing"][0].as_str().unwrap().contains("database"));
    let (status, _) = system.tasks("/health/live").await;
    assert_eq!(status, StatusCode::OK);
    let response = system.ask(Method::GET, "/tasks").send().await.unwrap();
    assert_eq!(response.headers()["retry-after"], "1");
    let (status, body) = read(response).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(error(&body).0, "DEPENDENCY_UNAVAILABLE");
}

#[tokio::test]
async fn metrics_docs_and_description_are_served() {
    let system = System::start(Workers::Absent).await;
    let response = system.ask(Method::GET, "/metrics").send().await.unwrap();
    assert!(
        response.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
    let request = system
        .ask(Method::GET, "/metrics")
        .header("accept", "application/json");
    let (status, body) = read(request.send().await.unwrap()).await;
    assert!(status.is_success() && body.is_object());
    let page = system.ask(Method::GET, "/docs/").send().await.unwrap();
    assert_eq!(page.status(), StatusCode::OK);
    assert!(page.text().await.unwrap().contains("swagger-ui"));
}

#[tokio::test]
async fn answers_are_compressed_when_asked_for() {
    let system = System::start(Workers::Absent).await;
    let request = system
        .ask(Method::GET, "/openapi.json")
        .header("accept-encoding", "gzip");
    let response = request.send().await.unwrap();
    // The client takes the encoding off again: what is left to see is that the length was not known.
    assert!(response.content_length().is_none());
    assert!(response.json::<Value>().await.unwrap()["paths"].is_object());
}

#[tokio::test]
async fn what_is_under_way_is_bounded() {
    let settings = Settings {
        max_streams: 1,
        ..Settings::default()
    };
    let system = System::with(
        Workers::Absent,
        settings,
        &[("helper.yml", &agent("helper"))],
    )
    .await;
    let id = system.submit("helper", "hello").await;
    let path = format!("/tasks/{id}/events");
    let first = system.ask(Method::GET, &path).send().await.unwrap();
    assert_eq!(first.status(), StatusCode::OK);
    let second = system.ask(Method::GET, &path).send().await.unwrap();
    assert_eq!(second.headers()["retry-after"], "1");
    let (status, body) = read(second).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(error(&body).0, "QUEUE_FULL");
}

#[tokio::test]
async fn a_port_in_use_is_named_with_what_to_do() {
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = holder.local_addr().unwrap();
    let wanted = BTreeMap::from([(Service::AgentOrchestrator, address)]);
    let message = Server::bind(&wanted).await.unwrap_err().to_string();
    let port = address.port().to_string();
    for part in [
        port.as_str(),
        "ORCHESTRATOR_PORT",
        "ss -ltnp",
        "agent-orchestrator",
    ] {
        assert!(message.contains(part), "{message}");
    }
}

#[tokio::test]
async fn shutting_down_ends_streams_and_frees_ports() {
    let mut system = System::start(Workers::Absent).await;
    let id = system.submit("helper", "hello").await;
    let stream = system
        .ask(Method::GET, &format!("/tasks/{id}/events"))
        .send()
        .await
        .unwrap();
    let address = system.address(Service::AgentOrchestrator);
    system.shutdown.cancel();
    let server = system.server.take().unwrap();
    tokio::time::timeout(Duration::from_secs(2), server)
        .await
        .expect("it ends")
        .unwrap();
    assert!(!stream.text().await.unwrap().contains("event: done"));
    assert!(TcpStream::connect(address).await.is_err());
}
