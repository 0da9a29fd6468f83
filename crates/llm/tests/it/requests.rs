//! What exactly goes over the wire.

use agentrunner_llm::ChatRequest;
use domain::definition::{LlmConfig, Provider};
use domain::{Message, Reply, Tokens};
use serde_json::{Value, json};
use testkit::ProviderStandIn;
use testkit::provider::{Answer, per_turn};

use crate::support::{ask, config, providers, request, result, results, tool, user};

/// The conversation that all snapshots show.
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
        result("c1", "one", "found"),
        failed,
        user("and now?"),
    ]
}

/// The body that is sent with all tools.
async fn sent(config: &LlmConfig, schema: Option<&Value>, max_tokens: Option<Tokens>) -> Value {
    let stand_in = ProviderStandIn::start(|_| Answer::say("fine"));
    let (messages, tools) = (conversation(), [tool("one"), tool("two")]);
    let asked = ChatRequest {
        output_schema: schema,
        max_tokens,
        ..request(config, &messages, &tools)
    };
    ask(&providers(&stand_in), asked).await.unwrap();
    stand_in.requests().pop().unwrap().request.raw
}

fn everything() -> Value {
    json!({
        "temperature": 0.5, "top_p": 0.9, "top_k": 40, "max_tokens": 300, "seed": 7,
        "frequency_penalty": 0.1, "presence_penalty": 0.2, "stop_sequences": ["END"],
        "num_ctx": 8192, "num_predict": 200, "repeat_penalty": 1.1,
    })
}

#[tokio::test]
async fn openai() {
    let mut settings = everything();
    settings["additional_params"] = json!({"user": "u", "temperature": 0.7, "model": "not-this"});
    let raw = sent(&config(Provider::Openai, settings), None, None).await;
    let function = |name: &str| {
        json!({"type": "function", "function": {
            "name": name, "description": "does it",
            "parameters": {"type": "object", "properties": {"a": {"type": "integer"}}}
        }})
    };
    let call = |id: &str, name: &str, arguments: &str| json!({"id": id, "type": "function", "function": {"name": name, "arguments": arguments}});
    assert_eq!(
        raw,
        json!({
            "model": "a-model",
            "messages": [
                {"role": "system", "content": "You are a test."},
                {"role": "user", "content": "go"},
                {"role": "assistant", "content": "I look.",
                 "tool_calls": [call("c1", "one", "{\"a\":1}"), call("c2", "two", "{}")]},
                {"role": "tool", "content": "found", "tool_call_id": "c1"},
                {"role": "tool", "content": "it failed", "tool_call_id": "c2"},
                {"role": "user", "content": "and now?"},
            ],
            "stream": true,
            "stream_options": {"include_usage": true},
            "tools": [function("one"), function("two")],
            "max_completion_tokens": 300,
            "top_p": 0.9, "frequency_penalty": 0.1, "presence_penalty": 0.2, "stop": ["END"],
            "seed": 7, "user": "u", "temperature": 0.7,
        })
    );
}

#[tokio::test]
async fn openai_models_that_think_are_not_asked_for_what_they_refuse() {
    let mut settings = everything();
    settings["model"] = json!("gpt-5-mini");
    let raw = sent(&config(Provider::Openai, settings), None, None).await;
    assert_eq!(raw["max_completion_tokens"], 300);
    for absent in [
        "temperature",
        "top_p",
        "max_tokens",
        "stop",
        "presence_penalty",
    ] {
        assert!(raw.get(absent).is_none(), "{absent}");
    }
}

#[tokio::test]
async fn openai_enforces_a_schema_and_a_compatible_server_is_told() {
    let strict = json!({
        "type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"],
        "additionalProperties": false
    });
    let loose = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    for (schema, is_strict) in [(&strict, true), (&loose, false)] {
        let config = config(Provider::Openai, json!({}));
        let raw = sent_with_schema(&config, schema).await;
        let wanted = json!({"type": "json_schema", "json_schema": {
            "name": "answer", "schema": schema, "strict": is_strict
        }});
        assert_eq!(raw["response_format"], wanted);
        assert_eq!(raw["messages"][0]["content"], "You are a test.");
    }
    let other = ProviderStandIn::start(|_| Answer::say("fine"));
    let settings =
        json!({"api_base": other.openai_url(), "api_key": "k", "max_tokens": 9, "top_k": 5});
    let config = config(Provider::Openai, settings);
    let messages = conversation();
    let mut asked = request(&config, &messages, &[]);
    asked.output_schema = Some(&strict);
    // The stand-in refuses `top_k`, as OpenAI does; what was sent is what counts here.
    drop(ask(&providers(&other_than(&other)), asked).await);
    let raw = other.requests().pop().unwrap().request.raw;
    assert!(raw.get("response_format").is_none());
    assert_eq!((&raw["max_tokens"], &raw["top_k"]), (&json!(9), &json!(5)));
    let system = raw["messages"][0]["content"].as_str().unwrap();
    assert!(system.contains(&strict.to_string()), "{system}");
}

/// A stand-in whose address is not that of `_other`.
fn other_than(_other: &ProviderStandIn) -> ProviderStandIn {
    ProviderStandIn::start(|_| Answer::say("fine"))
}

async fn sent_with_schema(config: &LlmConfig, schema: &Value) -> Value {
    let stand_in = ProviderStandIn::start(|_| Answer::say("{}"));
    let messages = conversation();
    let mut asked = request(config, &messages, &[]);
    asked.output_schema = Some(schema);
    ask(&providers(&stand_in), asked).await.unwrap();
    stand_in.requests().pop().unwrap().request.raw
}

#[tokio::test]
async fn anthropic() {
    let raw = sent(&config(Provider::Anthropic, everything()), None, None).await;
    let mark = json!({"type": "ephemeral"});
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    assert_eq!(
        raw,
        json!({
            "model": "a-model",
            "max_tokens": 300,
            "stream": true,
            "tools": [
                {"name": "one", "description": "does it", "input_schema": schema},
                {"name": "two", "description": "does it", "input_schema": schema, "cache_control": mark},
            ],
            "system": [{"type": "text", "text": "You are a test.", "cache_control": mark}],
            "messages": [
                {"role": "user", "content": [{"type": "text", "text": "go"}]},
                {"role": "assistant", "content": [
                    {"type": "text", "text": "I look."},
                    {"type": "tool_use", "id": "c1", "name": "one", "input": {"a": 1}},
                    {"type": "tool_use", "id": "c2", "name": "two", "input": {}},
                ]},
                {"role": "user", "content": [
                    {"type": "tool_result", "tool_use_id": "c1", "content": "found"},
                    {"type": "tool_result", "tool_use_id": "c2", "content": "it failed", "is_error": true},
                    {"type": "text", "text": "and now?", "cache_control": mark},
                ]},
            ],
            "stop_sequences": ["END"],
            "temperature": 0.5, "top_p": 0.9, "top_k": 40,
        })
    );
}

#[tokio::test]
async fn anthropic_without_cache_and_limit() {
    let settings = json!({"prompt_cache": false, "model": "claude-sonnet-5-5", "temperature": 0.3});
    let config = config(Provider::Anthropic, settings);
    let schema = json!({"type": "object"});
    let raw = sent_with_schema(&config, &schema).await;
    assert!(!raw.to_string().contains("cache_control"));
    assert!(raw.get("temperature").is_none(), "this model takes none");
    assert_eq!(raw["max_tokens"], 8192);
    let system = raw["system"][0]["text"].as_str().unwrap();
    assert!(system.ends_with("{\"type\":\"object\"}"), "{system}");
}

#[tokio::test]
async fn anthropic_thoughts_go_back_in_their_place_to_the_model_that_had_them() {
    let thoughtful = Answer::call("one", json!({})).thinking("Let me see: é");
    let thoughtful = Answer {
        text: "I look. ".to_owned(),
        ..thoughtful
    };
    let stand_in = ProviderStandIn::start(per_turn([thoughtful, Answer::say("done")]));
    let providers = providers(&stand_in);
    let first = config(Provider::Anthropic, json!({}));
    let other = config(Provider::Anthropic, json!({"model": "another-model"}));
    let tools = [tool("one")];
    let mut messages = vec![user("go")];
    let reply = ask(&providers, request(&first, &messages, &tools))
        .await
        .unwrap()
        .reply;
    // What is journaled is what comes back from the journal.
    let reply: Reply = serde_json::from_str(&serde_json::to_string(&reply).unwrap()).unwrap();
    messages.push(Message::Assistant(reply.clone()));
    messages.extend(results(&reply));
    for (config, has_thoughts) in [(&first, true), (&other, false)] {
        ask(&providers, request(config, &messages, &tools))
            .await
            .unwrap();
        let raw = stand_in.requests().pop().unwrap().request.raw;
        let blocks = raw["messages"][1]["content"].as_array().unwrap().clone();
        let id = &reply.tool_calls[0].id;
        let mut wanted = vec![
            json!({"type": "text", "text": if has_thoughts { "I look. " } else { "I look." }}),
            json!({"type": "tool_use", "id": id, "name": "one", "input": {}}),
        ];
        if has_thoughts {
            wanted.insert(
                0,
                json!({
                    "type": "thinking", "thinking": "Let me see: é", "signature": "dGVzdGtpdA=="
                }),
            );
        }
        assert_eq!(blocks, wanted);
    }
    assert_eq!(stand_in.rejections(), [""; 0]);
}

#[tokio::test]
async fn ollama() {
    let mut settings = everything();
    settings["additional_params"] =
        json!({"keep_alive": "5m", "options": {"mirostat": 1, "seed": 8}});
    let limit = Some(Tokens(100));
    let raw = sent(&config(Provider::Ollama, settings), None, limit).await;
    let call = |id: &str, name: &str, arguments: Value| json!({"id": id, "function": {"name": name, "arguments": arguments}});
    assert_eq!(
        raw["messages"],
        json!([
            {"role": "system", "content": "You are a test."},
            {"role": "user", "content": "go"},
            {"role": "assistant", "content": "I look.",
             "tool_calls": [call("c1", "one", json!({"a": 1})), call("c2", "two", json!({}))]},
            {"role": "tool", "content": "found", "tool_name": "one", "tool_call_id": "c1"},
            {"role": "tool", "content": "it failed", "tool_name": "two", "tool_call_id": "c2"},
            {"role": "user", "content": "and now?"},
        ])
    );
    assert_eq!(
        raw["options"],
        json!({
            "num_ctx": 8192, "num_predict": 100, "repeat_penalty": 1.1, "temperature": 0.5,
            "top_k": 40, "top_p": 0.9, "frequency_penalty": 0.1, "presence_penalty": 0.2,
            "stop": ["END"], "mirostat": 1, "seed": 8,
        })
    );
    assert_eq!(
        (&raw["stream"], &raw["keep_alive"]),
        (&json!(true), &json!("5m"))
    );
    assert_eq!(raw["tools"][1]["function"]["name"], "two");
}

#[tokio::test]
async fn ollama_enforces_a_schema_unless_there_are_tools() {
    let config = config(Provider::Ollama, json!({}));
    let schema = json!({"type": "object"});
    let raw = sent_with_schema(&config, &schema).await;
    assert_eq!(raw["format"], schema);
    let raw = sent(&config, Some(&schema), None).await;
    assert!(raw.get("format").is_none());
    assert!(
        raw["messages"][0]["content"]
            .as_str()
            .unwrap()
            .contains("JSON Schema")
    );
}

#[tokio::test]
async fn ollama_thoughts_go_back_with_the_results() {
    let stand_in = ProviderStandIn::start(per_turn([
        Answer::call("one", json!({})).thinking("hm, 你"),
        Answer::say("done").thinking("aha"),
    ]));
    let providers = providers(&stand_in);
    let config = config(Provider::Ollama, json!({}));
    let tools = [tool("one")];
    let mut messages = vec![user("go")];
    let reply = ask(&providers, request(&config, &messages, &tools))
        .await
        .unwrap()
        .reply;
    messages.push(Message::Assistant(reply.clone()));
    messages.extend(results(&reply));
    let last = ask(&providers, request(&config, &messages, &tools))
        .await
        .unwrap()
        .reply;
    assert_eq!((last.text.as_str(), last.provider_data), ("done", None));
    let raw = stand_in.requests().pop().unwrap().request.raw;
    assert_eq!(raw["messages"][2]["thinking"], "hm, 你");
}

#[tokio::test]
async fn the_trace_goes_along() {
    let stand_in = ProviderStandIn::start(|_| Answer::say("fine"));
    for face in crate::support::FACES {
        crate::support::say(&providers(&stand_in), face, "hi")
            .await
            .unwrap();
    }
    for recorded in stand_in.requests() {
        assert_eq!(recorded.request.headers["x-client-request-id"], "trace-1");
    }
}
