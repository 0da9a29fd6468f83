//! Anthropic's messages.
//!
//! An `output_schema` is told to the model in the system prompt. The prompt is cached unless the agent says
//! `prompt_cache: false`: tools, system prompt and the conversation so far are each marked. Thinking blocks are
//! kept in [`Reply::provider_data`](domain::Reply) with their place in the answer, and go back unchanged to the
//! model that wrote them; another model could not read them.

mod error;
mod request;
mod stream;

use http::{HeaderMap, HeaderName, HeaderValue};

pub(crate) use error::read as read_refusal;
#[cfg(feature = "bedrock")]
pub(crate) use request::takes_sampling;

use crate::endpoint::Endpoint;
use crate::http::{Http, Outgoing, headers, secret};
use crate::lines::Framing;
use crate::settings::ProviderSettings;
use crate::wire::{Reading, open};
use crate::{ChatRequest, ChatStream, Error};

/// The version of the format that is spoken.
const VERSION: &str = "2023-06-01";

/// Asks.
pub(crate) async fn chat(
    http: &Http,
    settings: &ProviderSettings,
    request: &ChatRequest<'_>,
) -> Result<ChatStream, Error> {
    let endpoint = Endpoint::of(request.config, &settings.anthropic)?;
    let mut headers = headers(request.trace_id);
    authorize(&mut headers, &endpoint)?;
    let patience = settings.patience(request.config);
    let outgoing = Outgoing {
        endpoint: &endpoint,
        model: &request.config.model,
        url: endpoint.url(path(&endpoint, &["v1", "messages"])),
        headers,
        body: Some(request::body(request)?),
        patience,
        read_refusal,
    };
    let response = http.send(outgoing).await?;
    let reading = Reading {
        endpoint,
        model: request.config.model.clone(),
        framing: Framing::Events,
        decoder: stream::Decoder::new(&request.config.model),
        patience,
        idle: settings.read_timeout,
    };
    open(response, reading).await
}

/// Adds key and version.
pub(crate) fn authorize(headers: &mut HeaderMap, endpoint: &Endpoint) -> Result<(), Error> {
    if let Some(key) = &endpoint.key {
        headers.insert(HeaderName::from_static("x-api-key"), secret("", key)?);
    }
    headers.insert(
        HeaderName::from_static("anthropic-version"),
        HeaderValue::from_static(VERSION),
    );
    Ok(())
}

/// The path below the base, which may or may not end with `v1`.
pub(crate) fn path<'a>(endpoint: &Endpoint, path: &'a [&'a str]) -> &'a [&'a str] {
    if endpoint.ends_with("/v1") {
        path.get(1..).unwrap_or_default()
    } else {
        path
    }
}
