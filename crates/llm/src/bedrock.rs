//! AWS Bedrock's Converse, streamed.
//!
//! The client is our own: the same connections, bounds and errors as for the other providers. Only what AWS alone
//! knows comes from its crates: where credentials are found, how a request is signed, how its binary frames look.
//! An `output_schema` is told to the model in the system prompt. Thinking is kept and sent back as for Anthropic.
//!
//! A call is authorized by the first of these that there is: the agent's `api_key` or, at an address of AWS or of the
//! operator, the operator's Bedrock key (both go as bearer tokens), the operator's AWS keys, or what AWS's own chain
//! finds. Any other address gets nothing of the operator's.

mod address;
mod aws;
mod error;
mod login;
mod request;
mod secrets_manager;
mod stream;

pub(crate) use aws::{Aws, SERVICE};
pub use login::{AwsKey, AwsLogin};
pub use secrets_manager::SecretsManager;

use url::Url;

use crate::http::{Http, Outgoing, headers, whole_body};
use crate::lines::Framing;
use crate::settings::ProviderSettings;
use crate::wire::{Reading, open};
use crate::{ChatRequest, ChatStream, Error};

/// How long a question about models waits.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(10);

/// Asks.
pub(crate) async fn chat(
    http: &Http,
    aws: &Aws,
    settings: &ProviderSettings,
    request: &ChatRequest<'_>,
) -> Result<ChatStream, Error> {
    let mut place = aws.place(request.config).await?;
    let model = &request.config.model;
    let url = place.url(&["model", model, "converse-stream"]);
    let body = request::body(request)?;
    let mut headers = headers(request.trace_id);
    aws.authorize(&mut headers, &mut place, "POST", &url, &body)
        .await?;
    let patience = settings.patience(request.config);
    let outgoing = Outgoing {
        endpoint: &place.endpoint,
        model,
        url,
        headers,
        body: Some(body),
        patience,
        read_refusal: error::read,
    };
    let response = match http.send(outgoing).await {
        Ok(response) => response,
        Err(error) => {
            // Credentials can be revoked before they expire: the next call looks for others.
            if error.class == domain::retry::ModelErrorClass::Auth {
                aws.forget().await;
            }
            return Err(error);
        }
    };
    let reading = Reading {
        endpoint: place.endpoint,
        model: model.clone(),
        framing: Framing::Frames,
        decoder: stream::Decoder::new(model),
        patience,
        idle: settings.read_timeout,
    };
    open(response, reading).await
}

/// Asks for the models that this region has, which costs nothing and proves address and credentials. The answer is a
/// sentence for people.
pub(crate) async fn probe(http: &Http, aws: &Aws, region: Option<&str>) -> Result<String, Error> {
    let mut place = aws.own_place(region).await?;
    let url: Url = place.control_url(&["foundation-models"]);
    let mut headers = http::HeaderMap::new();
    aws.authorize(&mut headers, &mut place, "GET", &url, &[])
        .await?;
    let endpoint = &place.endpoint;
    let call = Outgoing {
        endpoint,
        model: "",
        url,
        headers,
        body: None,
        patience: PATIENCE,
        read_refusal: error::read,
    };
    let response = match http.send(call).await {
        // Who may call models need not have the right to list them; but AWS knows who it is.
        Err(error) if error::is_known_but_not_allowed(&error) => {
            return Ok(format!(
                "bedrock answers at {} and knows the credentials, which may not list the models",
                endpoint.place()
            ));
        }
        sent => sent?,
    };
    let body = whole_body(endpoint, response, PATIENCE).await?;
    let count = error::models(&body).ok_or_else(|| {
        Error::garbled(format!(
            "bedrock at {} did not list its models",
            endpoint.place()
        ))
    })?;
    Ok(format!(
        "bedrock answers at {} with {count} models",
        endpoint.place()
    ))
}
