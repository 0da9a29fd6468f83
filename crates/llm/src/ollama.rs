//! Ollama's chat.
//!
//! An `output_schema` is enforced by `format`, unless the agent has tools: a model that must write the schema's
//! JSON can't write a tool call, so it is then told the schema in the system prompt. What a model thinks is not
//! part of its answer; when it calls tools, it gets its thoughts back with the results.

mod error;
mod request;
mod stream;

use http::header;

pub(crate) use error::read as read_refusal;

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
    let endpoint = Endpoint::of(request.config, &settings.ollama)?;
    let mut headers = headers(request.trace_id);
    // Ollama itself wants no key, but what stands before it may.
    if let Some(key) = &endpoint.key {
        headers.insert(header::AUTHORIZATION, secret("Bearer ", key)?);
    }
    let patience = settings.patience(request.config);
    let outgoing = Outgoing {
        endpoint: &endpoint,
        model: &request.config.model,
        url: endpoint.url(&["api", "chat"]),
        headers,
        body: Some(request::body(request)?),
        patience,
        read_refusal,
    };
    let response = http.send(outgoing).await?;
    let reading = Reading {
        endpoint,
        model: request.config.model.clone(),
        framing: Framing::Lines,
        decoder: stream::Decoder::default(),
        patience,
        idle: settings.read_timeout,
    };
    open(response, reading).await
}
