//! Asking a server: AgentOrchestrator's HTTP API as the commands use it.

mod events;
mod trust;

use std::time::Duration;

use anyhow::Context as _;
use domain::ExecutionId;
use reqwest::{Method, RequestBuilder, Response, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

use crate::settings::Trust;
pub(crate) use events::Events;

const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(30);
/// The longest body that is read of an answer.
const MAX_BODY_BYTES: usize = 64 << 20;

/// A server that speaks the contract.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    base: String,
    key: Option<SecretString>,
    http: reqwest::Client,
}

/// Nobody answers there.
#[derive(Debug, thiserror::Error)]
#[error(
    "no server answers at {url}{}; start one with `agentrunner up`, or name another with --server",
    trust::hint(source)
)]
pub(crate) struct Unreachable {
    url: String,
    #[source]
    source: reqwest::Error,
}

/// The server understood and said no.
#[derive(Debug, thiserror::Error)]
#[error("{message} ({code})")]
pub(crate) struct Refused {
    pub(crate) status: StatusCode,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Client {
    /// Does not ask anything yet.
    ///
    /// # Errors
    /// A file of certificates can't be used, or TLS not be set up.
    pub(crate) fn new(base: &str, trust: &Trust) -> anyhow::Result<Self> {
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT)
            .user_agent(concat!("agentrunner/", env!("CARGO_PKG_VERSION")));
        let is_local = is_loopback(base);
        let builder = match (is_local, base.starts_with("http:")) {
            // A company's proxy can't reach this machine, and reading certificates takes longer than asking it.
            (true, true) => builder.no_proxy().tls_certs_only([]),
            (true, false) => trust::apply(builder.no_proxy(), trust, true)?,
            (false, true) => builder,
            (false, false) => trust::apply(builder, trust, false)?,
        };
        let http = builder.build()?;
        Ok(Self {
            base: base.trim_end_matches('/').to_owned(),
            key: None,
            http,
        })
    }

    /// The same, with a key to show.
    #[must_use]
    pub(crate) fn with_key(mut self, key: Option<SecretString>) -> Self {
        self.key = key;
        self
    }

    /// Its address.
    pub(crate) fn base(&self) -> &str {
        &self.base
    }

    /// Whether an AgentRunner answers there, soon.
    pub(crate) async fn answers(&self) -> bool {
        let probe = self
            .http
            .get(format!("{}/health/live", self.base))
            .timeout(CONNECT)
            .send();
        match probe.await {
            Ok(response) => read(response)
                .await
                .is_ok_and(|body| body.get("status").is_some_and(|status| status == "alive")),
            Err(_) => false,
        }
    }

    /// The health of the server, whatever it is; `None` when it is not ready.
    pub(crate) async fn readiness(&self) -> anyhow::Result<(bool, Value)> {
        let response = self
            .send(self.request(Method::GET, "/health/ready"))
            .await?;
        let is_ready = response.status().is_success();
        Ok((is_ready, serde_json::from_slice(&body(response).await?)?))
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        read(self.send(self.request(Method::GET, path)).await?).await
    }

    pub(crate) async fn get_with(
        &self,
        path: &str,
        query: &[(&str, String)],
    ) -> anyhow::Result<Value> {
        read(
            self.send(self.request(Method::GET, path).query(query))
                .await?,
        )
        .await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        read(
            self.send(self.request(Method::POST, path).json(body))
                .await?,
        )
        .await
    }

    /// Sends a text of this type as it is.
    pub(crate) async fn post_text(
        &self,
        path: &str,
        content_type: &'static str,
        text: String,
    ) -> anyhow::Result<Value> {
        let request = self.request(Method::POST, path);
        let request = request.header("content-type", content_type).body(text);
        read(self.send(request).await?).await
    }

    /// Sends a message of MCP and answers whatever comes back, however long that takes.
    pub(crate) async fn post_message(
        &self,
        path: &str,
        headers: http::HeaderMap,
        message: &Value,
    ) -> anyhow::Result<Response> {
        let url = format!("{}{path}", self.base);
        let request = self.http.request(Method::POST, url).headers(headers);
        let request = request.header("accept", "application/json, text/event-stream");
        self.send(self.shown(request.json(message))).await
    }

    /// The message of MCP that an answer is, also of one that refuses; null when it is empty.
    pub(crate) async fn message_of(&self, response: Response) -> anyhow::Result<Value> {
        let status = response.status();
        let bytes = body(response).await?;
        if status.is_success() && bytes.is_empty() {
            return Ok(Value::Null);
        }
        match serde_json::from_slice::<Value>(&bytes) {
            Ok(message) if status.is_success() || message.get("jsonrpc").is_some() => Ok(message),
            _ => Err(refusal(status, &bytes).into()),
        }
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        read(
            self.send(self.request(Method::PATCH, path).json(body))
                .await?,
        )
        .await
    }

    pub(crate) async fn delete(&self, path: &str) -> anyhow::Result<Value> {
        read(self.send(self.request(Method::DELETE, path)).await?).await
    }

    /// Follows an execution from its beginning.
    pub(crate) fn events(&self, id: ExecutionId) -> Events {
        Events::new(self.clone(), id)
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        let url = format!("{}{path}", self.base);
        self.shown(self.http.request(method, url).timeout(ANSWER))
    }

    /// A request that shows the key, if there is one.
    fn shown(&self, request: RequestBuilder) -> RequestBuilder {
        match &self.key {
            // As a bearer, because that header goes to no other host after a redirect.
            Some(key) => request.bearer_auth(key.expose_secret()),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> anyhow::Result<Response> {
        request.send().await.map_err(|source| {
            // Who shows no certificate learns it after the handshake, from the first answer.
            let is_refused = !trust::hint(&source).is_empty();
            if source.is_connect() || source.is_timeout() || is_refused {
                Unreachable {
                    url: self.base.clone(),
                    source,
                }
                .into()
            } else {
                anyhow::Error::new(source).context(format!("asking {}", self.base))
            }
        })
    }
}

fn is_loopback(base: &str) -> bool {
    let url = reqwest::Url::parse(base).ok();
    let host = url
        .as_ref()
        .and_then(reqwest::Url::host_str)
        .unwrap_or_default();
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// The body of an answer as JSON, or what the server refuses for.
async fn read(response: Response) -> anyhow::Result<Value> {
    let status = response.status();
    let bytes = body(response).await?;
    if status.is_success() {
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        return serde_json::from_slice(&bytes).context("the server's answer is not JSON");
    }
    Err(refusal(status, &bytes).into())
}

fn refusal(status: StatusCode, bytes: &[u8]) -> Refused {
    let body: Value = serde_json::from_slice(bytes).unwrap_or_default();
    let text = |pointer: &str| {
        body.pointer(pointer)
            .and_then(Value::as_str)
            .map(str::to_owned)
    };
    let hint = match text("/error/code").as_deref() {
        Some("AUTH_FAILED") => {
            "; set AGENTRUNNER_API_KEY to a valid key, or AGENTRUNNER_API_KEY_FILE to its file"
        }
        _ => "",
    };
    Refused {
        status,
        code: text("/error/code").unwrap_or_else(|| status.as_u16().to_string()),
        message: text("/error/message").map_or_else(
            || format!("the server answered {status}; is it AgentRunner?"),
            |message| format!("{message}{hint}"),
        ),
    }
}

async fn body(mut response: Response) -> anyhow::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        anyhow::ensure!(
            bytes.len() + chunk.len() <= MAX_BODY_BYTES,
            "the server's answer is longer than {MAX_BODY_BYTES} bytes"
        );
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::is_loopback;

    #[test]
    fn this_machine_is_asked_past_every_proxy() {
        for local in [
            "http://127.0.0.1:8003",
            "http://localhost:1",
            "http://[::1]:8003",
            "http://127.9.9.9",
        ] {
            assert!(is_loopback(local), "{local}");
        }
        for other in [
            "http://10.0.0.1",
            "https://agents.example.com",
            "http://127.0.0.1.example.com",
            "nonsense",
        ] {
            assert!(!is_loopback(other), "{other}");
        }
    }
}
