//! What the tests share: providers that point to a stand-in, and short ways to ask.

use std::sync::LazyLock;
use std::time::Duration;

use agentrunner_llm::{
    Answer, AwsSettings, ChatModel, ChatRequest, ChatStream, Chunk, Error, Host, Key, Limits,
    ProviderSettings, Providers, ToolSpec, fold,
};
use domain::definition::{LlmConfig, Provider};
use domain::{Message, Reply};
use futures::StreamExt;
use serde_json::{Value, json};
use testkit::ProviderStandIn;
use testkit::provider::aws_secret;

pub(crate) const FACES: [Provider; 4] = [
    Provider::Openai,
    Provider::Anthropic,
    Provider::Ollama,
    Provider::Bedrock,
];
pub(crate) const KEY: &str = "sk-operator-0123456789";

/// The id of an AWS key that was lent: its session token goes over the wire, as [`KEY`] does elsewhere.
pub(crate) const AWS_KEY: &str = "ASIATESTKIT000000001";

/// Settings of Bedrock with keys of the operator.
pub(crate) fn aws(endpoint: String) -> AwsSettings {
    AwsSettings {
        region: Some("eu-central-1".to_owned()),
        endpoint: Some(endpoint),
        access_key_id: Key::fixed(AWS_KEY),
        secret_access_key: Key::fixed(aws_secret(AWS_KEY)),
        session_token: Key::fixed(KEY),
        ..AwsSettings::default()
    }
}

/// Settings whose every provider is the stand-in.
pub(crate) fn settings(stand_in: &ProviderStandIn) -> ProviderSettings {
    ProviderSettings {
        openai: Host::new(stand_in.openai_url()).with_key(Key::fixed(KEY)),
        anthropic: Host::new(stand_in.url()).with_key(Key::fixed(KEY)),
        bedrock: aws(stand_in.url()),
        ollama: Host::new(stand_in.url()),
        ..ProviderSettings::default()
    }
}

pub(crate) fn providers(stand_in: &ProviderStandIn) -> Providers {
    Providers::new(settings(stand_in))
}

/// A stand-in's providers that give up on silence soon.
pub(crate) fn impatient(stand_in: &ProviderStandIn) -> Providers {
    Providers::new(ProviderSettings {
        read_timeout: Duration::from_millis(100),
        ..settings(stand_in)
    })
}

pub(crate) fn config(provider: Provider, more: Value) -> LlmConfig {
    let mut all = json!({"provider": provider, "model": "a-model", "timeout": 0});
    let members = all.as_object_mut().unwrap();
    members.extend(more.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

pub(crate) fn user(text: &str) -> Message {
    Message::User {
        text: text.to_owned(),
    }
}

pub(crate) fn result(call_id: &str, name: &str, content: &str) -> Message {
    Message::Tool {
        call_id: call_id.to_owned(),
        name: name.to_owned(),
        content: content.to_owned(),
        is_error: false,
    }
}

/// The results of all calls of a reply, each `result of <name>`.
pub(crate) fn results(reply: &Reply) -> Vec<Message> {
    let calls = reply.tool_calls.iter();
    calls
        .map(|call| result(&call.id, &call.name, &format!("result of {}", call.name)))
        .collect()
}

static PARAMETERS: LazyLock<Value> =
    LazyLock::new(|| json!({"type": "object", "properties": {"a": {"type": "integer"}}}));

pub(crate) fn tool(name: &str) -> ToolSpec<'_> {
    ToolSpec {
        name,
        description: "does it",
        parameters: &PARAMETERS,
    }
}

pub(crate) fn request<'a>(
    config: &'a LlmConfig,
    messages: &'a [Message],
    tools: &'a [ToolSpec<'a>],
) -> ChatRequest<'a> {
    ChatRequest {
        config,
        system: "You are a test.",
        messages,
        tools,
        output_schema: None,
        max_tokens: None,
        trace_id: "trace-1",
    }
}

/// Asks and folds.
pub(crate) async fn ask(providers: &Providers, request: ChatRequest<'_>) -> Result<Answer, Error> {
    let stream = providers.chat(request).await?;
    fold(stream, |_| {}, &Limits::default()).await
}

/// Asks one thing, without tools.
pub(crate) async fn say(
    providers: &Providers,
    provider: Provider,
    text: &str,
) -> Result<Answer, Error> {
    let config = config(provider, json!({}));
    ask(providers, request(&config, &[user(text)], &[])).await
}

pub(crate) async fn chunks(mut stream: ChatStream) -> Vec<Chunk> {
    let mut all = Vec::new();
    while let Some(chunk) = stream.next().await {
        all.push(chunk.unwrap());
    }
    all
}
