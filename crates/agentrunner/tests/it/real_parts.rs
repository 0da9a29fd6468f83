//! The built binary with real MCP servers from npm, and a provider stand-in on the true wire of each provider (that the
//! stand-in is right is proved with the official client libraries, in the testkit's own tests).

use serde_json::{Value, json};
use testkit::provider::{AWS_KEY_ID, Answer, ErrorKind, Fault, Request, aws_secret};
use testkit::{CommandLine, ProviderStandIn, npm_servers};

use crate::product::{Product, Project};

const FACES: [&str; 4] = ["openai", "anthropic", "ollama", "bedrock"];

fn variables(provider: &ProviderStandIn) -> Vec<(&'static str, String)> {
    vec![
        ("OPENAI_API_KEY", "sk-test-openai".to_owned()),
        ("OPENAI_BASE_URL", provider.openai_url()),
        ("ANTHROPIC_API_KEY", "sk-ant-test".to_owned()),
        ("ANTHROPIC_BASE_URL", provider.url()),
        ("OLLAMA_BASE_URL", provider.url()),
        ("AWS_BEDROCK_ENDPOINT", provider.url()),
        ("AWS_REGION", "eu-central-1".to_owned()),
        ("AWS_ACCESS_KEY_ID", AWS_KEY_ID.to_owned()),
        ("AWS_SECRET_ACCESS_KEY", aws_secret(AWS_KEY_ID)),
        ("AWS_SESSION_TOKEN", "sk-test-session".to_owned()),
    ]
}

async fn up(project: &Project, provider: &ProviderStandIn) -> Product {
    let variables = variables(provider);
    let variables: Vec<(&str, &str)> = variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect();
    Product::up(project, &variables).await
}

fn agent(face: &str, name: &str, server: &CommandLine) -> String {
    let args = server
        .args
        .iter()
        .map(|arg| format!("{arg:?}"))
        .collect::<Vec<_>>()
        .join(", ");
    let program = &server.program;
    format!(
        "name: {face}-{name}\nexecution_mode: autonomous\nllm_config: {{ provider: {face}, model: test-model }}\n\
         system_prompt: Use your tools.\ntools:\n  \
         - {{ name: {name}, type: mcp, command: {program}, args: [{args}], effect: read_only }}\n"
    )
}

/// The text of the last tool result, as the model saw it.
fn seen(request: &Request) -> String {
    request.last_tool_result().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_filesystem_server_is_read_through_every_face() {
    let project = Project::new();
    let folder = project.path().join("documents");
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("note.txt"), "the cat is on the mat").unwrap();
    let path = folder.join("note.txt").display().to_string();
    let provider = ProviderStandIn::start(move |request| match request.turn {
        0 => Answer::call("read_text_file", json!({ "path": path })),
        _ => Answer::say(format!("It says: {}", seen(request))),
    });
    for face in FACES {
        project.agent(
            face,
            &agent(face, "files", &npm_servers().filesystem(&folder)),
        );
    }
    let product = up(&project, &provider).await;
    for face in FACES {
        let result = product.run(&format!("{face}-files"), "read the note").await;
        assert_eq!(result["status"], "completed", "{face}: {result}");
        assert!(
            result["output"]
                .as_str()
                .unwrap()
                .contains("the cat is on the mat"),
            "{face}: {result}"
        );
    }
    assert!(
        provider.rejections().is_empty(),
        "{:?}",
        provider.rejections()
    );
    assert!(
        provider
            .requests()
            .iter()
            .all(|recorded| recorded.request.stream),
        "answers are streamed"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_real_everything_server_is_called_in_parallel() {
    let project = Project::new();
    let provider = ProviderStandIn::start(|request| match request.turn {
        0 => Answer::call("echo", json!({ "message": "hello" }))
            .and_call("get-sum", json!({ "a": 2, "b": 40 })),
        _ => {
            let all: Vec<String> = request
                .messages
                .iter()
                .flat_map(|m| m.tool_results.iter().map(|r| r.text.clone()))
                .collect();
            Answer::say(all.join(" | "))
        }
    });
    for face in FACES {
        project.agent(
            face,
            &agent(face, "everything", &npm_servers().everything()),
        );
    }
    let product = up(&project, &provider).await;
    for face in FACES {
        let result = product.run(&format!("{face}-everything"), "try them").await;
        let output = result["output"].as_str().unwrap_or_default();
        assert!(
            output.contains("hello") && output.contains("42"),
            "{face}: {result}"
        );
        let id = result["execution_id"].as_str().unwrap();
        let steps = product.get_state(&format!("/executions/{id}/steps")).await;
        let kinds: Vec<&str> = steps
            .as_array()
            .unwrap()
            .iter()
            .map(|s| s["kind"].as_str().unwrap())
            .collect();
        assert_eq!(
            kinds,
            [
                "model_call",
                "tool_intent",
                "tool_intent",
                "tool_result",
                "tool_result",
                "model_call",
                "finished"
            ],
            "{face}"
        );
    }
    assert!(
        provider.rejections().is_empty(),
        "{:?}",
        provider.rejections()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_providers_do_wrong_is_retried_or_said() {
    let project = Project::new();
    for face in FACES {
        project.agent(
            face,
            &format!(
                "name: {face}\nexecution_mode: autonomous\nllm_config: {{ provider: {face}, model: test-model }}\n\
                 system_prompt: Answer.\nretry_config: {{ retry_delay_seconds: 0.01 }}\n"
            ),
        );
    }
    let provider = ProviderStandIn::start(|request| {
        let say = || Answer::say("whole at last");
        match (request.last_user(), request.attempt) {
            ("cut", 1) => say().fault(Fault::Cut { after: None }),
            ("limited", 1) => Answer::rate_limited(0),
            ("key", _) => Answer::error(ErrorKind::Unauthorized),
            _ => say(),
        }
    });
    let product = up(&project, &provider).await;
    for face in FACES {
        for prompt in ["cut", "limited"] {
            let result = product.run(face, prompt).await;
            assert_eq!(
                result["output"], "whole at last",
                "{face}, {prompt}: {result}"
            );
        }
        let result = product.run(face, "key").await;
        assert_eq!(
            (&result["status"], &result["error"]["code"]),
            (&json!("failed"), &json!("MODEL_REJECTED")),
            "{face}: {result}"
        );
        let text = result.to_string();
        assert!(
            !text.contains("sk-test") && !text.contains("sk-ant"),
            "a key is in the answer: {text}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn words_stream_while_they_are_said_and_the_stream_resumes() {
    let project = Project::new();
    project.agent(
        "openai",
        "name: talker\nexecution_mode: autonomous\nllm_config: { provider: openai, model: m }\nsystem_prompt: Talk.\n",
    );
    let provider = ProviderStandIn::start(|_| Answer::say("one two three four five six"));
    let product = up(&project, &provider).await;
    let accepted = product
        .post(
            "/tasks",
            &json!({ "agent_name": "talker", "task_data": { "prompt": "go" } }),
        )
        .await;
    let id = accepted["execution_id"].as_str().unwrap();
    let url = format!("{}/tasks/{id}/events", product.orchestrator);
    let text = reqwest::get(&url).await.unwrap().text().await.unwrap();
    let events: Vec<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("event: ").or(line.strip_prefix("event:")))
        .map(str::trim)
        .collect();
    assert_eq!(events.last(), Some(&"done"), "{text}");
    let steps = events.iter().filter(|event| **event == "step").count();
    assert_eq!(steps, 2, "{text}");

    let first = text
        .lines()
        .find_map(|line| line.strip_prefix("id:"))
        .unwrap()
        .trim();
    let after_step = if first.contains('.') { "1" } else { first };
    let client = reqwest::Client::new();
    let resumed = client
        .get(&url)
        .header("last-event-id", after_step)
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let ids: Vec<&str> = resumed
        .lines()
        .filter_map(|line| line.strip_prefix("id:"))
        .map(str::trim)
        .collect();
    assert!(
        !ids.contains(&"1") && ids.contains(&"2"),
        "resumed after 1: {resumed}"
    );
    let _: Value = product.get(&format!("/tasks/{id}")).await;
}
