//! What the provider refuses, face by face: one wrong request each, beside a right one.

use agentrunner_testkit::ProviderStandIn;
use agentrunner_testkit::provider::say;
use reqwest::{Client, RequestBuilder};
use serde_json::{Value, json};

/// Sends `right` changed by each of `wrong`. Expects a refusal that says the given words.
async fn refuses(
    request: impl Fn(&ProviderStandIn) -> RequestBuilder,
    right: Value,
    wrong: Vec<(&str, Value, &str)>,
) {
    let provider = ProviderStandIn::start(say("yes"));
    let answer = request(&provider).json(&right).send().await.unwrap();
    let status = answer.status();
    assert_eq!(status, 200, "{}", answer.text().await.unwrap());
    for (pointer, value, words) in wrong {
        let mut body = right.clone();
        set(&mut body, pointer, value);
        let answer = request(&provider).json(&body).send().await.unwrap();
        let (status, said) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 400, "{pointer}: {said}");
        assert!(said.contains(words), "{pointer}: {said}");
        assert!(
            provider
                .rejections()
                .last()
                .unwrap()
                .contains(&words.replace("\\\"", "\""))
        );
    }
}

/// Sets the member that a JSON pointer names. A `-` at the end of an array appends; null removes.
fn set(body: &mut Value, pointer: &str, value: Value) {
    let (parent, member) = pointer.rsplit_once('/').unwrap();
    match body.pointer_mut(parent).unwrap() {
        Value::Array(items) if member == "-" => items.push(value),
        Value::Array(items) if value.is_null() => drop(items.remove(member.parse().unwrap())),
        Value::Array(items) => items[member.parse::<usize>().unwrap()] = value,
        Value::Object(members) if value.is_null() => drop(members.remove(member)),
        Value::Object(members) => drop(members.insert(member.to_owned(), value)),
        other => panic!("{pointer} is not in {other}"),
    }
}

fn call(id: &str) -> Value {
    json!({"id": id, "type": "function", "function": {"name": "look", "arguments": "{\"a\":1}"}})
}

fn look() -> Value {
    json!({"type": "function", "function": {
        "name": "look", "description": "Looks.", "parameters": {"type": "object", "properties": {}}}})
}

#[tokio::test]
async fn openai() {
    let right = json!({
        "model": "gpt-4o-mini", "temperature": 0.5, "max_tokens": 10, "stream": false,
        "tools": [look()], "tool_choice": "auto", "parallel_tool_calls": true,
        "messages": [
            {"role": "system", "content": "Be kind."},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
            {"role": "assistant", "content": null, "tool_calls": [call("a"), call("b")]},
            {"role": "tool", "tool_call_id": "b", "content": ""},
            {"role": "tool", "tool_call_id": "a", "content": "x"},
            {"role": "assistant", "content": "Well."},
            {"role": "user", "content": "and?"},
        ],
    });
    let wrong = vec![
        (
            "/messages/4",
            Value::Null,
            "did not have response messages: a",
        ),
        (
            "/messages/4/tool_call_id",
            json!("b"),
            "must be a response to a preceeding message",
        ),
        (
            "/messages/-",
            json!({"role": "tool", "tool_call_id": "a", "content": "x"}),
            "preceeding",
        ),
        (
            "/messages/-",
            json!({"role": "assistant", "tool_calls": [call("z")]}),
            "response messages: z",
        ),
        (
            "/messages/-",
            json!({"role": "bot", "content": "x"}),
            "Supported values are: 'system'",
        ),
        ("/messages/5/content", json!(""), "non-empty string"),
        (
            "/messages/6/content",
            Value::Null,
            "expected a string, got null",
        ),
        (
            "/messages/2/tool_calls/0/function/arguments",
            json!({"a": 1}),
            "function.arguments",
        ),
        (
            "/messages/2/tool_calls/0/type",
            Value::Null,
            "Missing required parameter",
        ),
        ("/messages", json!([]), "empty array"),
        ("/model", Value::Null, "must provide a model"),
        ("/model", json!("gpt-5-mini"), "max_completion_tokens"),
        (
            "/top_k",
            json!(3),
            "Unrecognized request argument supplied: top_k",
        ),
        ("/temperature", json!(2.5), "Invalid 'temperature'"),
        ("/max_tokens", json!(0), "integer below minimum value"),
        ("/tools", json!([]), "empty array"),
        (
            "/tools",
            Value::Null,
            "only allowed when 'tools' are specified",
        ),
        (
            "/tools/0/function/name",
            json!("look up"),
            "does not match pattern",
        ),
        (
            "/tools/0/function/parameters",
            json!({}),
            "type: \\\"object\\\"",
        ),
        (
            "/tools/0/function/parameters/properties",
            json!({"a": {"type": "array"}}),
            "missing items",
        ),
        (
            "/stream_options",
            json!({"include_usage": true}),
            "only allowed when 'stream' is enabled",
        ),
        (
            "/response_format",
            json!({"type": "json_object"}),
            "must contain the word 'json'",
        ),
    ];
    let to = |provider: &ProviderStandIn| {
        let url = format!("{}/chat/completions", provider.openai_url());
        Client::new().post(url).bearer_auth("k")
    };
    refuses(to, right, wrong).await;
}

#[tokio::test]
async fn anthropic() {
    let used = |id: &str| json!({"type": "tool_use", "id": id, "name": "look", "input": {"a": 1}});
    let result = |id: &str| json!({"type": "tool_result", "tool_use_id": id, "content": "x"});
    let right = json!({
        "model": "claude-sonnet-5", "max_tokens": 10, "system": "Be kind.",
        "tools": [{"name": "look", "input_schema": {"type": "object"}}],
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": [{"type": "text", "text": "Well."}, used("a"), used("b")]},
            {"role": "user", "content": [result("b"), result("a"), {"type": "text", "text": "so?"}]},
        ],
    });
    let wrong = vec![
        (
            "/messages/2/content/0",
            Value::Null,
            "ids were found without `tool_result`",
        ),
        (
            "/messages/2",
            Value::Null,
            "ids were found without `tool_result`",
        ),
        (
            "/messages/2/content/0",
            json!({"type": "text", "text": "first"}),
            "ids were found without",
        ),
        (
            "/messages/2/content/-",
            result("z"),
            "unexpected `tool_use_id`",
        ),
        ("/messages/2/content/2", result("a"), "single result"),
        ("/messages/1/content/2", used("a"), "ids must be unique"),
        (
            "/messages/1/content/1/input",
            json!("{}"),
            "valid dictionary",
        ),
        ("/messages/1/content/1/id", json!("a b"), "match pattern"),
        ("/messages/1/content/0/text", json!(""), "must be non-empty"),
        ("/messages/0/content", json!(" "), "non-whitespace"),
        ("/messages/0/content", json!(""), "non-empty content"),
        (
            "/messages/0/role",
            json!("assistant"),
            "first message must use the",
        ),
        ("/messages/0/role", json!("tool"), "messages.0.role"),
        ("/messages", json!([]), "at least one message"),
        ("/max_tokens", Value::Null, "max_tokens: Field required"),
        ("/temperature", json!(0.5), "not supported for this model"),
        (
            "/frequency_penalty",
            json!(1),
            "frequency_penalty: Extra inputs are not permitted",
        ),
        ("/system", json!(""), "non-empty"),
        ("/tools/0/input_schema", json!({}), "input_schema"),
        (
            "/tools/-",
            json!({"name": "look", "input_schema": {"type": "object"}}),
            "must be unique",
        ),
    ];
    let to = |provider: &ProviderStandIn| {
        let request = Client::new().post(format!("{}/v1/messages", provider.url()));
        request
            .header("x-api-key", "k")
            .header("anthropic-version", "2023-06-01")
    };
    refuses(to, right, wrong).await;
}

#[tokio::test]
async fn ollama() {
    let used = json!({"function": {"name": "look", "arguments": {"a": 1}}});
    let right = json!({
        "model": "llama3.2", "stream": false, "options": {"num_ctx": 10}, "tools": [look()],
        "messages": [
            {"role": "user", "content": "hi"},
            {"role": "assistant", "content": "", "tool_calls": [used, used]},
            {"role": "tool", "tool_name": "look", "content": "x"},
            {"role": "tool", "tool_name": "look", "content": ""},
        ],
    });
    let wrong = vec![
        (
            "/messages/3",
            Value::Null,
            "1 tool calls have no tool message",
        ),
        (
            "/messages/3/tool_name",
            json!("see"),
            "without a preceding tool call",
        ),
        (
            "/messages/1/tool_calls/0/function/arguments",
            json!("{}"),
            "cannot unmarshal string",
        ),
        (
            "/messages/0/content",
            json!([{"type": "text", "text": "hi"}]),
            "cannot unmarshal array",
        ),
        ("/messages/0/content", json!(""), "empty message"),
        ("/messages/0/role", json!("developer"), "invalid role"),
        ("/model", Value::Null, "model is required"),
        ("/tools/0/function/parameters", json!({}), "invalid tool"),
        ("/format", json!("yaml"), "invalid format"),
    ];
    let to =
        |provider: &ProviderStandIn| Client::new().post(format!("{}/api/chat", provider.url()));
    refuses(to, right, wrong).await;
}

#[tokio::test]
async fn bedrock() {
    let used = |id: &str| json!({"toolUse": {"toolUseId": id, "name": "look", "input": {"a": 1}}});
    let result = |id: &str| json!({"toolResult": {"toolUseId": id, "content": [{"text": "x"}]}});
    let right = json!({
        "inferenceConfig": {"maxTokens": 10, "temperature": 0.5}, "system": [{"text": "Be kind."}],
        "toolConfig": {"tools": [{"toolSpec": {
            "name": "look", "description": "Looks.", "inputSchema": {"json": {"type": "object"}}}}]},
        "messages": [
            {"role": "user", "content": [{"text": "hi"}]},
            {"role": "assistant", "content": [{"text": "Well."}, used("a"), used("b")]},
            {"role": "user", "content": [result("b"), result("a"), {"text": "so?"}]},
        ],
    });
    let spec = "/toolConfig/tools/0/toolSpec";
    let (schema, described) = (
        format!("{spec}/inputSchema/json"),
        format!("{spec}/description"),
    );
    let wrong = vec![
        (
            "/messages/2/content/0",
            Value::Null,
            "for the following Ids: b",
        ),
        ("/messages/2", Value::Null, "for the following Ids: a, b"),
        (
            "/messages/2/content/-",
            result("z"),
            "exceeds the number of toolUse blocks",
        ),
        (
            "/messages/-",
            json!({"role": "user", "content": [{"text": "x"}]}),
            "must alternate",
        ),
        (
            "/messages/0/role",
            json!("assistant"),
            "must start with a user message",
        ),
        ("/messages/0/role", json!("tool"), "enum value set"),
        ("/messages/0/content", json!([]), "is empty"),
        ("/messages/0/content/0/text", json!(" "), "is blank"),
        (
            "/messages/2/content/0/toolResult/content/0/text",
            json!(""),
            "is blank",
        ),
        (
            "/messages/1/content/1/toolUse/input",
            json!("{}"),
            "Provide a json object",
        ),
        (
            "/messages/1/content/1/toolUse/toolUseId",
            json!("a b"),
            "regular expression",
        ),
        (
            "/messages/1/content/0",
            json!({"type": "text", "text": "x"}),
            "must set one of",
        ),
        ("/messages", json!([]), "at least one message"),
        (
            "/toolConfig",
            Value::Null,
            "toolConfig field must be defined",
        ),
        (
            "/toolConfig/tools",
            json!([]),
            "length greater than or equal",
        ),
        (
            schema.as_str(),
            json!({}),
            "must be one of the following: object",
        ),
        (
            described.as_str(),
            json!(""),
            "length greater than or equal",
        ),
        ("/inferenceConfig/maxTokens", json!(0), "greater than"),
        ("/inferenceConfig/temperature", json!(1.5), "less than"),
        ("/inferenceConfig/topK", json!(5), "no field 'topK'"),
        ("/system/0/text", json!(""), "is blank"),
        ("/max_tokens", json!(5), "no field 'max_tokens'"),
    ];
    let to = |provider: &ProviderStandIn| {
        let url = format!("{}/model/some.model-v1%3A0/converse", provider.url());
        Client::new().post(url).bearer_auth("k")
    };
    refuses(to, right, wrong).await;
}
