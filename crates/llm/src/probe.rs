//! Cheap questions about a provider, asked before there is work: does it answer, and which models has it?

use std::time::Duration;

use chrono::{DateTime, Utc};
use domain::definition::Provider;
use http::{HeaderMap, header};
use serde::Deserialize;

use crate::endpoint::Endpoint;
use crate::error::quote;
use crate::http::{Http, Outgoing, headers, secret, whole_body};
use crate::settings::Host;
use crate::{Error, Providers, anthropic, ollama, openai};

/// How long a probe waits.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long we wait for an Ollama that may not be there.
const LOCAL_PATIENCE: Duration = Duration::from_secs(1);

/// What a provider that was asked a cheap question answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// For people.
    pub sentence: String,
    /// What its clock says, to the second, where it says so.
    pub date: Option<DateTime<Utc>>,
}

impl Probed {
    fn saying(sentence: String) -> Self {
        let date = None;
        Self { sentence, date }
    }
}

impl Providers {
    /// Asks a provider for its models, which costs nothing and proves address and key.
    ///
    /// # Errors
    /// What a call would meet: no key, a wrong key, nobody there.
    pub async fn probe(&self, provider: Provider) -> Result<Probed, Error> {
        let host = match provider {
            Provider::Openai => &self.settings.openai,
            Provider::Anthropic => &self.settings.anthropic,
            Provider::Ollama => &self.settings.ollama,
            Provider::Scripted => return Ok(Probed::saying(self.scripts())),
            Provider::Bedrock => return self.probe_bedrock(None).await.map(Probed::saying),
        };
        let endpoint = Endpoint::own(provider, host)?;
        let mut headers = headers("");
        match (provider, &endpoint.key) {
            (Provider::Openai, _) => openai::authorize(&mut headers, &endpoint, &self.settings)?,
            (Provider::Anthropic, _) => anthropic::authorize(&mut headers, &endpoint)?,
            (_, Some(key)) => drop(headers.insert(header::AUTHORIZATION, secret("Bearer ", key)?)),
            (_, None) => {}
        }
        let shows_key = endpoint.key.is_some();
        let (models, date) = models(&self.http, &endpoint, headers, PATIENCE).await?;
        let sentence = format!(
            "{} answers at {}{} with {}",
            provider.as_str(),
            endpoint.place(),
            if shows_key { ", takes the key," } else { "" },
            count(models.len())
        );
        Ok(Probed { sentence, date })
    }

    /// Asks AWS Bedrock for its models in this region, or in the operator's.
    ///
    /// # Errors
    /// What a call would meet: no credentials, wrong ones, no region, nobody there.
    #[cfg(feature = "bedrock")]
    pub async fn probe_bedrock(&self, region: Option<&str>) -> Result<String, Error> {
        crate::bedrock::probe(&self.http, &self.aws, region).await
    }

    /// Says that Bedrock is not there.
    ///
    /// # Errors
    /// Always.
    #[cfg(not(feature = "bedrock"))]
    #[expect(clippy::unused_async, reason = "the same signature in every build")]
    pub async fn probe_bedrock(&self, _region: Option<&str>) -> Result<String, Error> {
        Err(crate::providers::without_bedrock())
    }

    fn scripts(&self) -> String {
        let root = self.settings.scripts_root.display();
        format!("scripted answers from the scripts below {root}, without any model")
    }
}

/// The models of the Ollama at this address, if one answers within a second.
///
/// # Errors
/// Unavailable when nobody is there.
pub async fn ollama_models(base_url: &str) -> Result<Vec<String>, Error> {
    let endpoint = Endpoint::own(Provider::Ollama, &Host::new(base_url))?;
    let http = Http::new(LOCAL_PATIENCE);
    let (models, _) = models(&http, &endpoint, HeaderMap::new(), LOCAL_PATIENCE).await?;
    Ok(models)
}

fn count(models: usize) -> String {
    match models {
        1 => "1 model".to_owned(),
        n => format!("{n} models"),
    }
}

/// The list of models in any of the three shapes.
#[derive(Deserialize)]
struct Models {
    #[serde(alias = "data")]
    models: Option<Vec<Model>>,
}

#[derive(Deserialize)]
struct Model {
    #[serde(alias = "id")]
    name: String,
}

async fn models(
    http: &Http,
    endpoint: &Endpoint,
    headers: HeaderMap,
    patience: Duration,
) -> Result<(Vec<String>, Option<DateTime<Utc>>), Error> {
    let (path, read_refusal): (&[&str], _) = match endpoint.provider {
        Provider::Ollama => (&["api", "tags"], ollama::read_refusal as fn(&[u8]) -> _),
        Provider::Anthropic => (
            anthropic::path(endpoint, &["v1", "models"]),
            anthropic::read_refusal as fn(&[u8]) -> _,
        ),
        _ => (&["models"], openai::read_refusal as fn(&[u8]) -> _),
    };
    let call = Outgoing {
        endpoint,
        model: "",
        url: endpoint.url(path),
        headers,
        body: None,
        patience,
        read_refusal,
    };
    let response = http.send(call).await?;
    let date = response.headers().get(header::DATE);
    let date = date.and_then(|date| DateTime::parse_from_rfc2822(date.to_str().ok()?).ok());
    let body = whole_body(endpoint, response, patience).await?;
    let list: Models = serde_json::from_slice(&body).map_err(|error| {
        let beginning = String::from_utf8_lossy(body.get(..100).unwrap_or(&body));
        Error::garbled(format!(
            "{} at {} did not list its models but sent {}",
            endpoint.provider.as_str(),
            endpoint.place(),
            quote(&beginning)
        ))
        .because(error)
    })?;
    let models = list.models.unwrap_or_default();
    let names = models.into_iter().map(|model| model.name).collect();
    Ok((names, date.map(|date| date.to_utc())))
}
