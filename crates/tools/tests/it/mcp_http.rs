//! MCP over streamable HTTP, against a server by hand that can forget sessions, refuse credentials and fall silent.

use std::collections::HashSet;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use agentrunner_tools::Toolkit;
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use domain::definition::Tool;
use futures::stream::{self, StreamExt};
use serde_json::{Value, json};
use tokio::sync::broadcast;

use crate::support::{entry, failure, names, offers, run, run_for, serve, text, toolkit, unknown};

/// The server's state: what it knows and what it was asked.
struct Server {
    sessions: Mutex<HashSet<String>>,
    counter: Mutex<u32>,
    tools: Mutex<Vec<&'static str>>,
    /// The credential that it wants, as a header and its value.
    wants: Mutex<Option<(&'static str, String)>>,
    calls: Mutex<Vec<String>>,
    tokens: Mutex<Vec<(String, String)>>,
    life: u64,
    notify: broadcast::Sender<Value>,
}

type Shared = Arc<Server>;

fn new() -> Shared {
    Arc::new(Server {
        sessions: Mutex::default(),
        counter: Mutex::default(),
        tools: Mutex::new(vec!["echo", "never", "cut"]),
        wants: Mutex::default(),
        calls: Mutex::default(),
        tokens: Mutex::default(),
        life: 3600,
        notify: broadcast::channel(16).0,
    })
}

async fn start(server: &Shared) -> SocketAddr {
    let router = Router::new()
        .route(
            "/mcp",
            post(message)
                .get(listen)
                .delete(|| async { StatusCode::OK }),
        )
        .route("/token", post(token))
        .with_state(server.clone());
    serve("127.0.0.1:0", router).await
}

impl Server {
    fn next(&self) -> u32 {
        let mut counter = self.counter.lock().unwrap();
        *counter += 1;
        *counter
    }

    fn lets_in(&self, headers: &HeaderMap) -> bool {
        let wants = self.wants.lock().unwrap();
        wants.as_ref().is_none_or(|(name, value)| {
            headers
                .get(*name)
                .is_some_and(|got| got.as_bytes() == value.as_bytes())
        })
    }

    fn knows(&self, headers: &HeaderMap) -> bool {
        let session = headers
            .get("mcp-session-id")
            .and_then(|value| value.to_str().ok());
        session.is_some_and(|session| self.sessions.lock().unwrap().contains(session))
    }
}

async fn message(State(server): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    if !server.lets_in(&headers) {
        let challenge = [("www-authenticate", "Bearer")];
        return (StatusCode::UNAUTHORIZED, challenge).into_response();
    }
    let message: Value = serde_json::from_slice(&body).unwrap();
    let (id, method) = (
        message["id"].clone(),
        message["method"].as_str().unwrap_or_default(),
    );
    let reply = |result: Value| json!({"jsonrpc": "2.0", "id": id, "result": result});
    if method == "initialize" {
        let session = format!("session-{}", server.next());
        server.sessions.lock().unwrap().insert(session.clone());
        let result = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": {"tools": {"listChanged": true}},
            "serverInfo": {"name": "test", "version": "1"},
        });
        return ([("mcp-session-id", session)], axum::Json(reply(result))).into_response();
    }
    if !server.knows(&headers) {
        return StatusCode::NOT_FOUND.into_response();
    }
    match method {
        "tools/list" => {
            let tools = server.tools.lock().unwrap().clone();
            let tool = |name: &&str| json!({"name": name, "inputSchema": {"type": "object"}});
            let tools: Vec<Value> = tools.iter().map(tool).collect();
            axum::Json(reply(json!({"tools": tools}))).into_response()
        }
        "tools/call" => {
            let name = message["params"]["name"].as_str().unwrap().to_owned();
            server.calls.lock().unwrap().push(name.clone());
            called(&name, &message, reply)
        }
        _ if id.is_null() => {
            server.calls.lock().unwrap().push(method.to_owned());
            StatusCode::ACCEPTED.into_response()
        }
        _ => axum::Json(reply(json!({}))).into_response(),
    }
}

fn called(name: &str, message: &Value, reply: impl Fn(Value) -> Value) -> Response {
    match name {
        "never" => Sse::new(stream::pending::<Result<Event, Infallible>>()).into_response(),
        // The stream ends before the answer.
        "cut" => Sse::new(stream::empty::<Result<Event, Infallible>>()).into_response(),
        _ => {
            let arguments = message["params"]["arguments"].to_string();
            let result = json!({"content": [{"type": "text", "text": arguments}]});
            axum::Json(reply(result)).into_response()
        }
    }
}

async fn listen(State(server): State<Shared>, headers: HeaderMap) -> Response {
    if !server.knows(&headers) {
        return StatusCode::NOT_FOUND.into_response();
    }
    let messages = stream::unfold(server.notify.subscribe(), async |mut messages| {
        let message = messages.recv().await.ok()?;
        let event = Event::default().data(message.to_string());
        Some((Ok::<_, Infallible>(event), messages))
    });
    Sse::new(messages.boxed()).into_response()
}

async fn token(State(server): State<Shared>, headers: HeaderMap, body: String) -> Response {
    let authorization = headers["authorization"].to_str().unwrap().to_owned();
    server.tokens.lock().unwrap().push((authorization, body));
    let token = format!("token-{}", server.next());
    *server.wants.lock().unwrap() = Some(("authorization", format!("Bearer {token}")));
    axum::Json(json!({"access_token": token, "token_type": "bearer", "expires_in": server.life}))
        .into_response()
}

fn tool(address: SocketAddr, more: Value) -> Tool {
    let mut whole = json!({"name": "srv", "type": "mcp", "url": format!("http://{address}/mcp")});
    let more = more.as_object().unwrap().clone();
    whole.as_object_mut().unwrap().extend(more);
    entry(whole)
}

fn plain() -> Toolkit {
    toolkit(|settings| settings.mcp_connect_timeout = Duration::from_secs(5))
}

#[tokio::test]
async fn a_lost_session_is_made_again_and_the_call_goes_through_once() {
    let server = new();
    let toolkit = plain();
    let tool = tool(start(&server).await, json!({}));
    assert_eq!(
        text(run(&toolkit, &tool, "echo", json!({"n": 1})).await),
        r#"{"n":1}"#
    );
    // As after a restart: the server knows no session, and has another list.
    server.sessions.lock().unwrap().clear();
    server.tools.lock().unwrap().push("new");
    assert_eq!(
        text(run(&toolkit, &tool, "echo", json!({"n": 2})).await),
        r#"{"n":2}"#
    );
    let echoes = server
        .calls
        .lock()
        .unwrap()
        .iter()
        .filter(|name| *name == "echo")
        .count();
    assert_eq!(echoes, 2);
    let offered = offers(&toolkit, "1", &[tool]).await.unwrap();
    assert!(names(&offered).contains(&"new"));
    toolkit.shutdown().await;
}

/// The reference server, listening on a port.
async fn everything_on(port: u16) -> tokio::process::Child {
    let line = testkit::npm_servers().everything();
    let script = line.args.first().unwrap();
    let child = tokio::process::Command::new(&line.program)
        .args([script.as_str(), "streamableHttp"])
        .env("PORT", port.to_string())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let listens = async {
        while tokio::net::TcpStream::connect(("127.0.0.1", port))
            .await
            .is_err()
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), listens)
        .await
        .unwrap();
    child
}

#[tokio::test]
async fn the_everything_server_works_also_after_a_restart() {
    let port = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap().port()
    };
    let mut server = everything_on(port).await;
    let toolkit = plain();
    let tool = tool(SocketAddr::from(([127, 0, 0, 1], port)), json!({}));
    let echo = async || run(&toolkit, &tool, "echo", json!({"message": "hello"})).await;
    assert!(text(echo().await).contains("hello"));
    server.kill().await.unwrap();
    let mut server = everything_on(port).await;
    assert!(
        text(echo().await).contains("hello"),
        "the session is made again"
    );
    toolkit.shutdown().await;
    server.kill().await.unwrap();
}

#[tokio::test]
async fn the_list_is_read_again_when_the_server_says_that_it_changed() {
    let server = new();
    let toolkit = plain();
    let entries = [tool(start(&server).await, json!({}))];
    let first = offers(&toolkit, "1", &entries).await.unwrap();
    assert_eq!(first.len(), 3);
    server.tools.lock().unwrap().push("new");
    // The stream for notifications is opened in the background.
    let told = async {
        loop {
            let change = json!({"jsonrpc": "2.0", "method": "notifications/tools/list_changed"});
            server.notify.send(change).ok();
            tokio::time::sleep(Duration::from_millis(10)).await;
            let now = offers(&toolkit, "1", &entries).await.unwrap();
            if names(&now).contains(&"new") {
                break;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(20), told)
        .await
        .unwrap();
    toolkit.shutdown().await;
}

#[tokio::test]
async fn a_silent_or_broken_answer_is_unknown() {
    let server = new();
    let toolkit = plain();
    let address = start(&server).await;
    let unsafe_tool = tool(address, json!({}));
    let read = tool(address, json!({"effect": "read_only"}));
    // Connected first, however busy this machine is: the short time is the call's alone.
    for tool in [&unsafe_tool, &read] {
        text(run(&toolkit, tool, "echo", json!({})).await);
    }
    let short = Duration::from_millis(300);
    unknown(run_for(&toolkit, &unsafe_tool, "never", json!({}), short).await);
    unknown(run(&toolkit, &unsafe_tool, "cut", json!({})).await);
    failure(run_for(&toolkit, &read, "never", json!({}), short).await);
    failure(run(&toolkit, &read, "cut", json!({})).await);
    let calls = server.calls.lock().unwrap().clone();
    assert_eq!(
        calls.iter().filter(|name| *name == "cut").count(),
        2,
        "never repeated"
    );
    toolkit.shutdown().await;
}

#[tokio::test]
async fn a_server_that_is_down_is_told() {
    let address = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.local_addr().unwrap()
    };
    let toolkit = toolkit(|settings| settings.mcp_connect_timeout = Duration::from_millis(300));
    let tool = tool(address, json!({}));
    let error = offers(&toolkit, "1", std::slice::from_ref(&tool))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("unavailable"), "{error}");
    let reason = failure(run(&toolkit, &tool, "echo", json!({})).await);
    assert!(reason.contains("not called"), "{reason}");
}

#[tokio::test]
async fn tokens_and_keys_are_sent() {
    for (wants, auth) in [
        (
            ("authorization", "Bearer t0ken"),
            json!({"type": "bearer_token", "token": "t0ken"}),
        ),
        (
            ("x-api-key", "k3y"),
            json!({"type": "api_key", "key": "k3y"}),
        ),
        (
            ("x-mine", "k3y"),
            json!({"type": "api_key", "key": "k3y", "header": "X-Mine"}),
        ),
    ] {
        let server = new();
        *server.wants.lock().unwrap() = Some((wants.0, wants.1.to_owned()));
        let toolkit = plain();
        let address = start(&server).await;
        let with = tool(address, json!({"auth": auth}));
        text(run(&toolkit, &with, "echo", json!({})).await);
        let without = tool(address, json!({}));
        failure(run(&toolkit, &without, "echo", json!({})).await);
        toolkit.shutdown().await;
    }
}

#[tokio::test]
async fn an_access_token_is_had_by_client_credentials_and_renewed_when_refused() {
    let server = new();
    let toolkit = plain();
    let address = start(&server).await;
    *server.wants.lock().unwrap() = Some(("authorization", "nothing yet".to_owned()));
    let auth = json!({
        "type": "oauth2", "token_url": format!("http://{address}/token"),
        "client_id": "me", "client_secret": "s3:cret", "scopes": ["a", "b"],
    });
    let tool = tool(address, json!({"auth": auth}));
    text(run(&toolkit, &tool, "echo", json!({})).await);
    text(run(&toolkit, &tool, "echo", json!({})).await);
    let asked = server.tokens.lock().unwrap().clone();
    // "me:s3%3Acret" in Base64.
    let basic = "Basic bWU6czMlM0FjcmV0".to_owned();
    let form = "grant_type=client_credentials&scope=a+b".to_owned();
    assert_eq!(asked, [(basic, form)]);
    // The server no longer takes the token: that call fails, the next one has a new token.
    *server.wants.lock().unwrap() = Some(("authorization", "another".to_owned()));
    failure(run(&toolkit, &tool, "echo", json!({})).await);
    text(run(&toolkit, &tool, "echo", json!({})).await);
    assert_eq!(server.tokens.lock().unwrap().len(), 2);
    toolkit.shutdown().await;
}
