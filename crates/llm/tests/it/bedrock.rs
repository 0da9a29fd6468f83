//! What is particular to AWS Bedrock: requests, thinking, signatures, and where credentials come from.

use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use agentrunner_llm::{AwsSettings, Key, ProviderSettings, Providers};
use axum::routing::get;
use axum::{Json, Router};
use chrono::{DateTime, Utc};
use domain::definition::Provider::Bedrock;
use domain::retry::ModelErrorClass as Class;
use domain::{Message, Reply};
use serde_json::{Value, json};
use testkit::ProviderStandIn;
use testkit::provider::{Answer, Fault, aws_secret, per_turn};

use crate::support::{
    AWS_KEY, KEY, ask, aws, config, providers, request, result, results, say, settings, tool, user,
};

const CLAUDE: &str = "eu.anthropic.claude-sonnet-4-5-20250929-v1:0";

fn conversation() -> Vec<Message> {
    let reply: Reply = serde_json::from_value(json!({
        "text": "I look.", "stop": "tool_use",
        "tool_calls": [{"id": "c1", "name": "one", "arguments": "{\"a\":1}"},
                       {"id": "c2", "name": "two", "arguments": ""}]
    }))
    .unwrap();
    let failed = Message::Tool {
        call_id: "c2".to_owned(),
        name: "two".to_owned(),
        content: "it failed".to_owned(),
        is_error: true,
    };
    vec![
        user("go"),
        Message::Assistant(reply),
        result("c1", "one", "\n"),
        failed,
        user("and now?"),
    ]
}

async fn sent(more: Value, tools: &[agentrunner_llm::ToolSpec<'_>]) -> Value {
    let stand_in = ProviderStandIn::start(|_| Answer::say("fine"));
    let config = config(Bedrock, more);
    let messages = conversation();
    let answer = ask(&providers(&stand_in), request(&config, &messages, tools)).await;
    assert_eq!(answer.unwrap().reply.text, "fine");
    stand_in.requests().pop().unwrap().request.raw
}

#[tokio::test]
async fn a_request_has_all_that_the_agent_says() {
    let tools = [tool("one"), tool("two")];
    let settings = json!({
        "model": CLAUDE, "temperature": 0.5, "top_p": 0.9, "top_k": 40, "max_tokens": 300,
        "stop_sequences": ["END"],
        "additional_params": {
            "guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"},
            "toolChoice": {"auto": {}}, "thinking": {"type": "enabled", "budget_tokens": 2000},
        },
    });
    let mark = json!({"cachePoint": {"type": "default"}});
    let spec = |name: &str| {
        json!({"toolSpec": {
            "name": name, "description": "does it",
            "inputSchema": {"json": {"type": "object", "properties": {"a": {"type": "integer"}}}}
        }})
    };
    assert_eq!(
        sent(settings, &tools).await,
        json!({
            "toolConfig": {"tools": [spec("one"), spec("two"), mark], "toolChoice": {"auto": {}}},
            "system": [{"text": "You are a test."}, mark],
            "messages": [
                {"role": "user", "content": [{"text": "go"}]},
                {"role": "assistant", "content": [
                    {"text": "I look."},
                    {"toolUse": {"toolUseId": "c1", "name": "one", "input": {"a": 1}}},
                    {"toolUse": {"toolUseId": "c2", "name": "two", "input": {}}},
                ]},
                {"role": "user", "content": [
                    {"toolResult": {"toolUseId": "c1", "content": [{"text": "(no output)"}]}},
                    {"toolResult": {"toolUseId": "c2", "content": [{"text": "it failed"}], "status": "error"}},
                    {"text": "and now?"}, mark,
                ]},
            ],
            "inferenceConfig": {
                "maxTokens": 300, "stopSequences": ["END"], "temperature": 0.5, "topP": 0.9
            },
            "guardrailConfig": {"guardrailIdentifier": "g", "guardrailVersion": "1"},
            "additionalModelRequestFields": {
                "top_k": 40, "thinking": {"type": "enabled", "budget_tokens": 2000}
            },
        })
    );
}

#[tokio::test]
async fn each_family_gets_what_it_takes() {
    let tools = [tool("one"), tool("two")];
    let nova = sent(
        json!({"model": "us.amazon.nova-pro-v1:0", "top_k": 5}),
        &tools,
    )
    .await;
    assert_eq!(
        nova["additionalModelRequestFields"],
        json!({"inferenceConfig": {"topK": 5}})
    );
    // Nova marks system prompt and conversation, not tools.
    assert_eq!(nova.to_string().matches("cachePoint").count(), 2);
    let llama = "meta.llama3-3-70b-instruct-v1:0";
    let other = sent(json!({"model": llama}), &tools).await;
    assert!(!other.to_string().contains("cachePoint"), "{other}");
    assert!(!other.to_string().contains("\"status\""), "{other}");
    let profile = "arn:aws:bedrock:eu-central-1:1:application-inference-profile/x";
    let asked = sent(json!({"model": profile, "prompt_cache": true}), &tools).await;
    assert_eq!(asked.to_string().matches("cachePoint").count(), 3);
    let new = json!({"model": "global.anthropic.claude-sonnet-5-5-v1:0", "temperature": 0.3, "top_k": 3, "prompt_cache": false});
    let new = sent(new, &tools).await;
    assert!(!new.to_string().contains("cachePoint"), "{new}");
    assert!(new.get("inferenceConfig").is_none(), "takes no sampling");
    assert!(new.get("additionalModelRequestFields").is_none());
}

#[tokio::test]
async fn calls_in_a_conversation_want_tools_even_if_none_are_offered() {
    let raw = sent(json!({}), &[]).await;
    let names: Vec<_> = raw["toolConfig"]["tools"]
        .as_array()
        .unwrap()
        .iter()
        .map(|tool| tool["toolSpec"]["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["one", "two"]);
}

#[tokio::test]
async fn a_model_is_named_in_the_path_and_what_was_signed_is_what_was_sent() {
    let stand_in = ProviderStandIn::start(|_| Answer::say("fine"));
    let arn = "arn:aws:bedrock:eu-central-1:1:inference-profile/eu.anthropic.claude-sonnet-4-6";
    for model in [CLAUDE, arn, "odd/%41 name?#é"] {
        let config = config(Bedrock, json!({"model": model}));
        let answer = ask(&providers(&stand_in), request(&config, &[user("hi")], &[])).await;
        answer.unwrap();
        assert_eq!(stand_in.requests().pop().unwrap().request.model, model);
    }
    let headers = stand_in.requests().pop().unwrap().request.headers;
    assert!(headers["authorization"].contains("/eu-central-1/bedrock/aws4_request"));
    assert_eq!(headers["x-amz-security-token"], KEY);
    assert!(!format!("{headers:?}").contains(&aws_secret(AWS_KEY)));
    assert_eq!(stand_in.rejections(), [""; 0]);
}

#[tokio::test]
async fn a_wrong_secret_is_refused_and_nothing_of_it_is_shown() {
    let stand_in = ProviderStandIn::start(|_| Answer::say("never"));
    let providers = Providers::new(ProviderSettings {
        bedrock: AwsSettings {
            secret_access_key: Key::fixed("not-the-secret"),
            ..aws(stand_in.url())
        },
        ..settings(&stand_in)
    });
    let error = say(&providers, Bedrock, "hi").await.unwrap_err();
    assert_eq!(error.class, Class::Auth, "{error}");
    // AWS shows what it signed, and our session token is a part of that.
    assert!(error.message.contains("Canonical String"), "{error}");
    let told = format!("{error:?} {error}");
    assert!(
        !told.contains(KEY) && !told.contains("not-the-secret"),
        "{told}"
    );
    assert!(told.contains("set AWS_ACCESS_KEY_ID"), "{told}");
}

#[tokio::test]
async fn bedrocks_own_key_goes_before_aws_keys() {
    let stand_in = ProviderStandIn::start(|_| Answer::say("fine"));
    let providers = Providers::new(ProviderSettings {
        bedrock: AwsSettings {
            token: Key::fixed("bedrock-api-key-1"),
            ..aws(stand_in.url())
        },
        ..settings(&stand_in)
    });
    say(&providers, Bedrock, "hi").await.unwrap();
    let headers = stand_in.requests().pop().unwrap().request.headers;
    assert_eq!(headers["authorization"], "Bearer bedrock-api-key-1");
    assert!(!headers.contains_key("x-amz-security-token"));
}

#[tokio::test]
async fn thoughts_go_back_in_their_place_to_the_model_that_had_them() {
    let thoughtful = Answer {
        text: "I look. ".to_owned(),
        ..Answer::call("one", json!({})).thinking("Let me see: é")
    };
    let stand_in = ProviderStandIn::start(per_turn([thoughtful, Answer::say("done")]));
    let providers = providers(&stand_in);
    let first = config(Bedrock, json!({"model": CLAUDE}));
    let other = config(Bedrock, json!({"model": "us.amazon.nova-pro-v1:0"}));
    let tools = [tool("one")];
    let mut messages = vec![user("go")];
    let asked = request(&first, &messages, &tools);
    let reply = ask(&providers, asked).await.unwrap().reply;
    let reply: Reply = serde_json::from_str(&serde_json::to_string(&reply).unwrap()).unwrap();
    messages.push(Message::Assistant(reply.clone()));
    messages.extend(results(&reply));
    for (config, has_thoughts) in [(&first, true), (&other, false)] {
        let asked = request(config, &messages, &tools);
        ask(&providers, asked).await.unwrap();
        let raw = stand_in.requests().pop().unwrap().request.raw;
        let thought = json!({"reasoningContent": {"reasoningText": {
            "text": "Let me see: é", "signature": "dGVzdGtpdA=="
        }}});
        let first = &raw["messages"][1]["content"][0];
        assert_eq!(*first == thought, has_thoughts, "{raw}");
        assert_eq!(raw.to_string().contains("reasoning"), has_thoughts);
    }
    assert_eq!(stand_in.rejections(), [""; 0]);
}

#[tokio::test]
async fn a_frame_with_a_wrong_checksum_is_no_answer() {
    let stand_in = ProviderStandIn::start(|_| Answer::say("one two three").in_chunks_of(7));
    // Every byte of an answer is covered by a checksum: the cut in the middle of a frame is seen too.
    for after in [1, 9, 30] {
        stand_in.behave(move |_| {
            let fault = Fault::Garbage { after: Some(after) };
            Answer::say("one two three").in_chunks_of(7).fault(fault)
        });
        let error = say(&providers(&stand_in), Bedrock, "hi").await.unwrap_err();
        assert_eq!(error.class, Class::Garbled, "{after}: {error}");
    }
}

#[tokio::test]
async fn without_a_region_nothing_is_sent() {
    let stand_in = ProviderStandIn::start(|_| Answer::say("fine"));
    let mut all = settings(&stand_in);
    all.bedrock.region = None;
    let with_region = config(Bedrock, json!({"region": "ap-south-1"}));
    let providers = Providers::new(all);
    let asked = request(&with_region, &[], &[]);
    drop(ask(&providers, asked).await);
    let headers = stand_in.requests().pop().unwrap().request.headers;
    assert!(headers["authorization"].contains("/ap-south-1/"));
    let odd = config(Bedrock, json!({"region": "evil.example/"}));
    let error = ask(&providers, request(&odd, &[user("hi")], &[]))
        .await
        .unwrap_err();
    assert!(error.message.contains("is no AWS region"), "{error}");
    assert_eq!(stand_in.count(), 1);
}

/// A container's service of credentials, whose first ones end within a minute.
async fn container(lookups: Arc<AtomicUsize>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let lend = move || {
        let count = lookups.fetch_add(1, Ordering::SeqCst);
        let lasts = if count == 0 { 60 } else { 3600 };
        let end = DateTime::<Utc>::from(SystemTime::now() + Duration::from_secs(lasts));
        let id = format!("ASIATESTKIT{count:09}");
        let lent = json!({
            "AccessKeyId": id, "SecretAccessKey": aws_secret(&id), "Token": "lent",
            "Expiration": end.to_rfc3339_opts(chrono::SecondsFormat::Secs, true),
        });
        async move { Json(lent) }
    };
    let router = Router::new().route("/credentials", get(lend));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    format!("http://{address}/credentials")
}

/// Runs a test of this file that is left out otherwise, in a process with this environment and nothing else of AWS.
async fn in_a_process(test: &str, stand_in: &ProviderStandIn, variables: &[(&str, &str)]) {
    let mut command = Command::new(std::env::current_exe().unwrap());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("AWS_")) {
        command.env_remove(name);
    }
    command
        .args(["--ignored", "--exact", &format!("bedrock::{test}")])
        .env("STAND_IN", stand_in.url())
        .env("HOME", "/nonexistent")
        .env("AWS_EC2_METADATA_DISABLED", "true")
        .envs(variables.iter().copied());
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}"
    );
}

/// Providers that know nothing but an address and what AWS's chain finds.
fn found_by_the_chain() -> Providers {
    Providers::new(ProviderSettings {
        bedrock: AwsSettings {
            endpoint: Some(std::env::var("STAND_IN").unwrap()),
            ..AwsSettings::default()
        },
        ..ProviderSettings::default()
    })
}

#[tokio::test]
async fn credentials_are_kept_and_renewed_before_they_end() {
    let stand_in = ProviderStandIn::start(|_| Answer::say("fine"));
    let lookups = Arc::new(AtomicUsize::new(0));
    let url = container(lookups.clone()).await;
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", url.as_str()),
        ("AWS_REGION", "eu-west-1"),
    ];
    in_a_process("asks_five_times", &stand_in, &variables).await;
    let used: Vec<_> = stand_in
        .requests()
        .iter()
        .map(|heard| heard.request.headers["authorization"].clone())
        .collect();
    assert!(used[0].contains("ASIATESTKIT000000000/"), "{used:?}");
    assert!(used[0].contains("/eu-west-1/bedrock/"), "{used:?}");
    assert!(
        used[1..]
            .iter()
            .all(|used| used.contains("ASIATESTKIT000000001/")),
        "{used:?}"
    );
    assert_eq!((used.len(), lookups.load(Ordering::SeqCst)), (5, 2));
}

#[tokio::test]
#[ignore = "runs in a process of its own"]
async fn asks_five_times() {
    let providers = found_by_the_chain();
    say(&providers, Bedrock, "hi").await.unwrap();
    // One of them renews what is about to end, the others wait for it.
    let ask = || say(&providers, Bedrock, "hi");
    for answer in futures::future::join_all([ask(), ask(), ask(), ask()]).await {
        assert_eq!(answer.unwrap().reply.text, "fine");
    }
}

#[tokio::test]
async fn a_profile_in_a_file_is_enough() {
    let stand_in = ProviderStandIn::start(|_| Answer::say("fine"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("config");
    let secret = aws_secret("AKIATESTKIT000000009");
    let text = format!(
        "[profile ops]\nregion = us-west-2\naws_access_key_id = AKIATESTKIT000000009\naws_secret_access_key = {secret}\n"
    );
    std::fs::write(&file, text).unwrap();
    let variables = [
        ("AWS_CONFIG_FILE", file.to_str().unwrap()),
        ("AWS_PROFILE", "ops"),
    ];
    in_a_process("asks_once", &stand_in, &variables).await;
    let headers = stand_in.requests().pop().unwrap().request.headers;
    assert!(headers["authorization"].contains("AKIATESTKIT000000009/"));
    assert!(headers["authorization"].contains("/us-west-2/bedrock/"));
    assert_eq!(stand_in.rejections(), [""; 0]);
}

#[tokio::test]
#[ignore = "runs in a process of its own"]
async fn asks_once() {
    say(&found_by_the_chain(), Bedrock, "hi").await.unwrap();
}

#[tokio::test]
async fn without_credentials_it_is_said_what_to_set() {
    let stand_in = ProviderStandIn::start(|_| Answer::say("never"));
    let variables = [("AWS_REGION", "eu-west-1")];
    in_a_process("is_told_what_to_set", &stand_in, &variables).await;
    in_a_process("is_told_to_name_a_region", &stand_in, &[]).await;
    assert_eq!(stand_in.count(), 0);
}

#[tokio::test]
#[ignore = "runs in a process of its own"]
async fn is_told_what_to_set() {
    let error = say(&found_by_the_chain(), Bedrock, "hi").await.unwrap_err();
    assert_eq!(error.class, Class::Auth, "{error}");
    let words = "there are no AWS credentials for bedrock";
    assert!(error.message.starts_with(words), "{error}");
    assert!(error.message.contains("set AWS_ACCESS_KEY_ID"), "{error}");
}

#[tokio::test]
#[ignore = "runs in a process of its own"]
async fn is_told_to_name_a_region() {
    let error = say(&found_by_the_chain(), Bedrock, "hi").await.unwrap_err();
    assert_eq!(error.class, Class::InvalidRequest, "{error}");
    assert!(error.message.contains("set AWS_REGION"), "{error}");
}
