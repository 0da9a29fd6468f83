//! OpenAI's chat completions, and the many servers that speak the same.
//!
//! The operator's address counts as OpenAI itself, an agent's `api_base` as a compatible server. They differ in
//! two things. The limit of the answer is `max_completion_tokens` at OpenAI and `max_tokens` elsewhere. And an
//! `output_schema` is enforced by `response_format` at OpenAI, while a compatible server, which may not know it,
//! is told the schema in the system prompt; set `llm_config.response_format` where it does.

mod error;
mod request;
mod stream;

use http::{HeaderMap, HeaderName, HeaderValue, header};

pub(crate) use error::read as read_refusal;
pub(crate) use request::Tools;
pub(crate) use stream::arguments_of;

use crate::endpoint::Endpoint;
use crate::http::{Http, Outgoing, headers, secret};
use crate::lines::Framing;
use crate::settings::ProviderSettings;
use crate::wire::{Reading, open};
use crate::{ChatRequest, ChatStream, Error};

/// Asks.
pub(crate) async fn chat(
    http: &Http,
    settings: &ProviderSettings,
    request: &ChatRequest<'_>,
) -> Result<ChatStream, Error> {
    let endpoint = Endpoint::of(request.config, &settings.openai)?;
    let mut headers = headers(request.trace_id);
    authorize(&mut headers, &endpoint, settings)?;
    let patience = settings.patience(request.config);
    let outgoing = Outgoing {
        endpoint: &endpoint,
        model: &request.config.model,
        url: endpoint.url(&["chat", "completions"]),
        headers,
        body: Some(request::body(request, endpoint.is_own)?),
        patience,
        read_refusal,
    };
    let response = http.send(outgoing).await?;
    let reading = Reading {
        endpoint,
        model: request.config.model.clone(),
        framing: Framing::Events,
        decoder: stream::Decoder::default(),
        patience,
        idle: settings.read_timeout,
    };
    open(response, reading).await
}

/// Adds the key, and at OpenAI itself whom the call is counted to.
pub(crate) fn authorize(
    headers: &mut HeaderMap,
    endpoint: &Endpoint,
    settings: &ProviderSettings,
) -> Result<(), Error> {
    if let Some(key) = &endpoint.key {
        headers.insert(header::AUTHORIZATION, secret("Bearer ", key)?);
    }
    let labels = [
        ("openai-organization", &settings.openai_organization),
        ("openai-project", &settings.openai_project),
    ];
    for (name, value) in labels {
        if endpoint.is_own
            && let Some(value) = value
            && let Ok(value) = HeaderValue::from_str(value)
        {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
    Ok(())
}
