//! Servers that speak OpenAI's format nearly, and how connections are used.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use agentrunner_llm::{Host, ProviderSettings, Providers};
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, State};
use axum::response::Response;
use axum::routing::post;
use domain::StopReason;
use domain::definition::Provider;
use domain::retry::ModelErrorClass as Class;
use serde_json::json;
use tokio::net::TcpListener;

use crate::support::{ask, config, request, say, tool, user};

/// A server that answers every chat with these bytes.
struct Odd {
    address: SocketAddr,
    clients: Arc<Mutex<HashSet<SocketAddr>>>,
    task: tokio::task::JoinHandle<()>,
}

type Shared = (Arc<Mutex<HashSet<SocketAddr>>>, &'static str, String);

impl Odd {
    async fn answering(content_type: &'static str, body: impl Into<String>) -> Self {
        let clients = Arc::<Mutex<HashSet<SocketAddr>>>::default();
        let shared: Shared = (clients.clone(), content_type, body.into());
        let router = Router::new()
            .route("/v1/chat/completions", post(answer))
            .with_state(shared)
            .into_make_service_with_connect_info::<SocketAddr>();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self {
            address,
            clients,
            task,
        }
    }

    fn providers(&self) -> Providers {
        Providers::new(ProviderSettings {
            openai: Host::new(format!("http://{}/v1/", self.address)),
            ..ProviderSettings::default()
        })
    }
}

impl Drop for Odd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    State((clients, content_type, body)): State<Shared>,
    ConnectInfo(client): ConnectInfo<SocketAddr>,
) -> Response {
    clients.lock().unwrap().insert(client);
    // In two frames, so that the end of the body is not the end of the last event.
    let half = body.len() / 2;
    let (one, two) = body.split_at(half);
    let parts = [one.to_owned(), two.to_owned()].map(Ok::<_, std::io::Error>);
    Response::builder()
        .header("content-type", content_type)
        .body(Body::from_stream(futures::stream::iter(parts)))
        .unwrap()
}

const EVENTS: &str = "text/event-stream";

fn events(all: &[serde_json::Value]) -> String {
    let lines: String = all
        .iter()
        .map(|event| format!("data: {event}\n\n"))
        .collect();
    lines + "data: [DONE]\n\n"
}

fn hello() -> String {
    events(&[
        json!({"choices": [{"index": 0, "delta": {"content": "hello"}, "finish_reason": "stop"}]}),
        json!({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 1}}),
    ])
}

#[tokio::test]
async fn one_connection_serves_many_calls() {
    let server = Odd::answering(EVENTS, hello()).await;
    let providers = server.providers();
    for _ in 0..20 {
        let answer = say(&providers, Provider::Openai, "hi").await.unwrap();
        assert_eq!(answer.reply.text, "hello");
        assert_eq!(answer.usage.input_tokens.0, 3);
    }
    assert_eq!(server.clients.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn an_answer_in_one_piece_is_understood() {
    let whole = json!({"choices": [{
        "index": 0, "finish_reason": "stop",
        "message": {"role": "assistant", "content": "I look.", "tool_calls": [
            {"type": "function", "function": {"name": "one", "arguments": {"a": 1}}},
            {"type": "function", "function": {"name": "one", "arguments": "{\"a\":2}"}},
        ]}
    }], "usage": {"prompt_tokens": 5, "completion_tokens": 6, "prompt_tokens_details": null}});
    let server = Odd::answering("application/json", whole.to_string()).await;
    let config = config(Provider::Openai, json!({}));
    let messages = [user("hi")];
    let tools = [tool("one")];
    let asked = request(&config, &messages, &tools);
    let answer = ask(&server.providers(), asked).await.unwrap();
    assert_eq!(answer.reply.text, "I look.");
    assert_eq!(answer.reply.stop, StopReason::ToolUse);
    let arguments: Vec<_> = answer
        .reply
        .tool_calls
        .iter()
        .map(|call| &call.arguments)
        .collect();
    assert_eq!(arguments, ["{\"a\":1}", "{\"a\":2}"]);
    assert_eq!(answer.usage.total().0, 11);
}

#[tokio::test]
async fn a_stream_without_done_is_whole_if_it_says_why_it_ended() {
    let finish =
        json!({"choices": [{"index": 0, "delta": {"content": "hello"}, "finish_reason": "stop"}]});
    for body in [format!("data: {finish}\n\n"), format!("data: {finish}")] {
        let server = Odd::answering(EVENTS, body).await;
        let answer = say(&server.providers(), Provider::Openai, "hi")
            .await
            .unwrap();
        assert_eq!(answer.reply.text, "hello");
    }
    let server = Odd::answering(EVENTS, "data: [DONE]\n\n").await;
    let error = say(&server.providers(), Provider::Openai, "hi")
        .await
        .unwrap_err();
    assert_eq!(error.class, Class::Garbled);
}

#[tokio::test]
async fn a_whole_answer_is_not_larger_than_memory_allows() {
    let body = format!("{{\"choices\":[],\"x\":\"{}\"}}", "x".repeat(17 << 20));
    let server = Odd::answering("application/json", body).await;
    let error = say(&server.providers(), Provider::Openai, "hi")
        .await
        .unwrap_err();
    assert_eq!(error.class, Class::Garbled);
    assert!(error.message.contains("16 MiB"), "{error}");
}

#[tokio::test]
async fn half_of_a_character_is_no_answer() {
    // A lone surrogate is no text, and what is no text can't be journaled.
    let body =
        r#"data: {"choices":[{"index":0,"delta":{"content":"\ud83e"},"finish_reason":"stop"}]}"#;
    let server = Odd::answering(EVENTS, format!("{body}\n\ndata: [DONE]\n\n")).await;
    let answer = say(&server.providers(), Provider::Openai, "hi").await;
    assert_eq!(answer.unwrap_err().class, Class::Garbled);
}
