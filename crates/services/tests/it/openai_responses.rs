//! Responses of OpenAI's format: what was said before, and what is refused. The official clients are in `openai_face`.

use domain::{ExecutionId, Message};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::harness::{System, Workers, agent, read};

const RESPONSES: &str = "/v1/responses";

async fn system() -> System {
    let talker = agent("talker").replace("autonomous", "continuous");
    let files = [("helper.yml", agent("helper")), ("talker.yml", talker)];
    let files = files.each_ref().map(|(name, text)| (*name, text.as_str()));
    let settings = agentrunner_services::http::Settings::default();
    System::with(Workers::Running, settings, &files).await
}

async fn create(system: &System, body: &Value) -> Value {
    let (status, response) = system.post(RESPONSES, body).await;
    assert_eq!(status, StatusCode::OK, "{response}");
    response
}

/// What an execution was told before its task.
async fn before(system: &System, response: &Value) -> Vec<String> {
    let id = response["id"].as_str().unwrap().strip_prefix("resp_");
    let id: ExecutionId = id.unwrap().parse().unwrap();
    let execution = system.store.execution(id).await.unwrap().unwrap().execution;
    let said = execution.history.iter().map(|message| match message {
        Message::User { text } => text.clone(),
        Message::Assistant(reply) => reply.text.clone(),
        Message::Tool { .. } => panic!("no tool was called"),
    });
    said.collect()
}

#[tokio::test]
async fn what_was_said_before_comes_along_without_the_instructions() {
    let system = system().await;
    let first = json!({"model": "helper", "input": "I am Ann.", "instructions": "Be kind."});
    let first = create(&system, &first).await;
    assert_eq!(before(&system, &first).await, ["Be kind."]);
    let second = create(
        &system,
        &json!({"model": "helper", "input": "hello", "previous_response_id": first["id"], "instructions": "Be brief."}),
    )
    .await;
    let greeting = "Hello from the script.";
    let told = before(&system, &second).await;
    assert_eq!(told, ["Be brief.", "I am Ann.", greeting]);
    let third = create(
        &system,
        &json!({"model": "helper", "previous_response_id": second["id"], "input": [
            {"role": "assistant", "content": "And?"},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "bye"}]},
        ]}),
    )
    .await;
    let told = before(&system, &third).await;
    assert_eq!(told, ["I am Ann.", greeting, "hello", greeting, "And?"]);
    let (_, shown) = system
        .tasks(&format!("/v1/responses/{}", second["id"].as_str().unwrap()))
        .await;
    assert_eq!(shown, second);
    assert_eq!(shown["metadata"], json!({}));
}

#[tokio::test]
async fn a_conversation_that_is_kept_here_goes_on_there() {
    let system = system().await;
    let first = json!({"model": "talker", "input": "one", "user": "ann"});
    let first = create(&system, &first).await;
    let next = json!({"model": "talker", "input": "two", "previous_response_id": first["id"]});
    let second = create(&system, &next).await;
    assert_eq!(before(&system, &second).await, [""; 0]);
    let path = "/agents/talker/state?conversation_id=ann";
    let (_, state) = system
        .get(agentrunner_services::Service::StateManager, path)
        .await;
    assert_eq!(state["conversation_history"].as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn what_an_agent_can_not_do_is_refused_in_the_formats_own_shape() {
    let system = system().await;
    let failed = json!({"model": "helper", "input": "fail", "background": true});
    let failed = create(&system, &failed).await;
    let id = failed["id"].as_str().unwrap().to_owned();
    system
        .until(id.strip_prefix("resp_").unwrap(), "failed")
        .await;
    let with = |field: &str, value: Value| {
        let mut body = json!({"model": "helper", "input": "hello"});
        body[field] = value;
        body
    };
    let cases = [
        (with("tools", json!([{"type": "function"}])), "tools"),
        (with("input", json!([])), "input"),
        (with("input", json!(" ")), "input"),
        (
            with("input", json!([{"role": "assistant", "content": "last"}])),
            "input",
        ),
        (
            with("input", json!([{"role": "robot", "content": "x"}])),
            "input[0].role",
        ),
        (
            with(
                "input",
                json!([{"type": "function_call_output", "output": "x"}]),
            ),
            "input[0].type",
        ),
        (
            with(
                "input",
                json!([{"role": "user", "content": [{"type": "input_image"}]}]),
            ),
            "input[0].content",
        ),
        (with("metadata", json!({"a": 1})), "metadata"),
        (
            with("previous_response_id", json!(id)),
            "previous_response_id",
        ),
    ];
    for (body, param) in cases {
        let (status, answer) = system.post(RESPONSES, &body).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{body}: {answer}");
        let error = &answer["error"];
        assert_eq!(error["type"], "invalid_request_error", "{answer}");
        assert_eq!(error["param"], param, "{answer}");
        assert!(error["message"].as_str().unwrap().len() > 20, "{answer}");
    }
    for id in [
        "resp_0",
        "0190c2f4-a1b2-7c3d-8e4f-5a6b7c8d9e0f",
        "resp_0190c2f4-a1b2-7c3d-8e4f-5a6b7c8d9e0f",
    ] {
        let (status, answer) = system.tasks(&format!("/v1/responses/{id}")).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{answer}");
    }
}

#[tokio::test]
async fn a_repeated_request_with_a_key_is_one_response() {
    let system = system().await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let request = system.ask(Method::POST, RESPONSES);
        let request = request.header("idempotency-key", "k-1");
        let body = json!({"model": "helper", "input": "hello"});
        let (status, answer) = read(request.json(&body).send().await.unwrap()).await;
        assert_eq!(status, StatusCode::OK);
        ids.push(answer["id"].clone());
    }
    assert_eq!(ids[0], ids[1]);
}
