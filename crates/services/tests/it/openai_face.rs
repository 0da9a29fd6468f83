//! Agents as OpenAI's models: by hand, and by the official client libraries.

use std::path::Path;

use domain::{ExecutionId, Message};
use http::header::CONTENT_TYPE;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use testkit::{node_folder, python};
use tokio::process::Command;

use crate::harness::{System, Workers, agent, read};

async fn system() -> System {
    let talker = agent("talker").replace("autonomous", "continuous");
    let files = [("helper.yml", agent("helper")), ("talker.yml", talker)];
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(name, text)| (*name, text.as_str()))
        .collect();
    System::with(
        Workers::Running,
        agentrunner_services::http::Settings::default(),
        &files,
    )
    .await
}

fn ask(model: &str, text: &str) -> Value {
    json!({"model": model, "messages": [{"role": "user", "content": text}]})
}

const CHAT: &str = "/v1/chat/completions";

#[tokio::test(flavor = "multi_thread")]
async fn the_official_libraries_take_an_agent_for_a_model() {
    let system = system().await;
    let url = system.url(agentrunner_services::Service::AgentOrchestrator, "");
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients");
    let mut by_python = Command::new(python());
    by_python
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .arg(scripts.join("openai_face.py"));
    let mut by_node = Command::new("node");
    by_node
        .current_dir(node_folder())
        .arg(scripts.join("openai_face.mjs"));
    for mut command in [by_python, by_node] {
        let output = command
            .env("NO_PROXY", "127.0.0.1")
            .arg(&url)
            .output()
            .await
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let complained = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && said.contains("passed"),
            "{said}\n{complained}"
        );
    }
}

#[tokio::test]
async fn what_was_said_before_comes_along() {
    let system = system().await;
    let body = json!({"model": "helper", "user": "ann", "messages": [
        {"role": "system", "content": "Be kind."},
        {"role": "user", "content": "I am Ann."},
        {"role": "assistant", "content": "Hello Ann."},
        {"role": "user", "content": "hello"},
    ]});
    let response = system
        .ask(Method::POST, CHAT)
        .json(&body)
        .send()
        .await
        .unwrap();
    let id: ExecutionId = response.headers()["x-execution-id"]
        .to_str()
        .unwrap()
        .parse()
        .unwrap();
    let (status, answer) = read(response).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let execution = system.store.execution(id).await.unwrap().unwrap().execution;
    assert_eq!(execution.input, json!({"prompt": "hello"}));
    assert_eq!(execution.metadata, json!({"user": "ann"}));
    assert_eq!(execution.conversation, None);
    let said: Vec<&str> = execution
        .history
        .iter()
        .map(|message| match message {
            Message::User { text } => text.as_str(),
            Message::Assistant(reply) => reply.text.as_str(),
            Message::Tool { .. } => panic!("no tool was called"),
        })
        .collect();
    assert_eq!(said, ["Be kind.", "I am Ann.", "Hello Ann."]);
    let version = system
        .get(
            agentrunner_services::Service::AgentOrchestrator,
            "/agents/helper",
        )
        .await;
    assert_eq!(answer["system_fingerprint"], version.1["config_version"]);
}

#[tokio::test]
async fn an_agent_that_holds_conversations_knows_the_caller_by_name() {
    let system = system().await;
    for text in ["one", "two"] {
        let mut body = ask("talker", text);
        body["user"] = json!("ann");
        let (status, answer) = system.post(CHAT, &body).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }
    let mut elsewhere = ask("talker", "three");
    elsewhere["user"] = json!("ann");
    let response = system
        .ask(Method::POST, CHAT)
        .header("x-conversation-id", "room 7")
        .json(&elsewhere);
    assert_eq!(response.send().await.unwrap().status(), StatusCode::OK);
    let said = async |conversation: &str| {
        let path = format!("/agents/talker/state?conversation_id={conversation}");
        let (_, state) = system
            .get(agentrunner_services::Service::StateManager, &path)
            .await;
        let messages = state["conversation_history"]
            .as_array()
            .unwrap_or_else(|| panic!("{state}"));
        messages.len()
    };
    assert_eq!(said("ann").await, 4);
    assert_eq!(said("room%207").await, 2);
}

#[tokio::test]
async fn only_standard_frames_are_sent() {
    let system = system().await;
    let mut body = ask("helper", "hello");
    body["stream"] = json!(true);
    let response = system
        .ask(Method::POST, CHAT)
        .json(&body)
        .send()
        .await
        .unwrap();
    assert!(response.headers().contains_key("x-execution-id"));
    assert_eq!(response.headers()[CONTENT_TYPE], "text/event-stream");
    let text = response.text().await.unwrap();
    let frames: Vec<&str> = text
        .split("\n\n")
        .filter(|frame| !frame.is_empty())
        .collect();
    assert_eq!(frames.last(), Some(&"data: [DONE]"), "{text}");
    for frame in &frames[..frames.len() - 1] {
        let frame: Value = serde_json::from_str(frame.strip_prefix("data: ").unwrap()).unwrap();
        let mut names: Vec<_> = frame
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect();
        names.sort_unstable();
        assert_eq!(
            names,
            [
                "choices",
                "created",
                "id",
                "model",
                "object",
                "system_fingerprint"
            ]
        );
        assert_eq!(frame["object"], "chat.completion.chunk");
    }
}

#[tokio::test]
async fn what_an_agent_can_not_do_is_refused_in_the_formats_own_shape() {
    let system = system().await;
    let with = |field: &str, value: Value| {
        let mut body = ask("helper", "hello");
        body[field] = value;
        body
    };
    let messages = |messages: Value| with("messages", messages);
    for (body, param) in [
        (with("n", json!(3)), "n"),
        (with("tools", json!([{"type": "function"}])), "tools"),
        (messages(json!([])), "messages"),
        (
            messages(json!([{"role": "assistant", "content": "I am last"}])),
            "messages",
        ),
        (
            messages(json!([{"role": "user", "content": " "}])),
            "messages",
        ),
        (
            messages(json!([{"role": "robot", "content": "x"}])),
            "messages[0].role",
        ),
        (
            messages(
                json!([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]),
            ),
            "messages[0].content",
        ),
        (
            messages(json!([{"role": "assistant", "tool_calls": [{}]}])),
            "messages[0].tool_calls",
        ),
        (with("messages", json!("hello")), "messages"),
    ] {
        let (status, answer) = system.post(CHAT, &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {answer}");
        let error = &answer["error"];
        assert_eq!(error["type"], "invalid_request_error", "{answer}");
        assert_eq!(error["param"], param, "{answer}");
        assert!(error["message"].as_str().unwrap().len() > 20, "{answer}");
    }
    let (status, answer) = system.post(CHAT, &ask("helpr", "hello")).await;
    assert_eq!(
        (status, &answer["error"]["code"]),
        (StatusCode::NOT_FOUND, &json!("model_not_found"))
    );
    let (status, answer) = system.tasks("/v1/nowhere").await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{answer}");
    // What failed once it had begun is not asked again by itself.
    let response = system
        .ask(Method::POST, CHAT)
        .json(&ask("helper", "fail"))
        .send()
        .await
        .unwrap();
    assert_eq!(response.headers()["x-should-retry"], "false");
    assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn a_repeated_request_with_a_key_is_one_execution() {
    let system = system().await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let request = system
            .ask(Method::POST, CHAT)
            .header("idempotency-key", "k-1");
        let response = request.json(&ask("helper", "hello")).send().await.unwrap();
        let (status, answer) = read(response).await;
        assert_eq!(status, StatusCode::OK);
        ids.push(answer["id"].clone());
    }
    assert_eq!(ids[0], ids[1]);
}
