//! A server behind streamable HTTP: the SDK's transport over the guard's client.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use domain::definition::{McpAuth, McpTool};
use futures::stream::BoxStream;
use http::{HeaderName, HeaderValue};
use rmcp::model::{ClientJsonRpcMessage, ErrorData, ServerJsonRpcMessage};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::common::client_side_sse::ExponentialBackoff;
use rmcp::transport::streamable_http_client::{
    SseError, StreamableHttpClient, StreamableHttpClientTransportConfig, StreamableHttpError,
    StreamableHttpPostResponse, StreamableHttpResponseLimits,
};
use sse_stream::Sse;
use url::Url;

use super::Surroundings;
use super::server::ConnectError;
use super::token::{NoToken, TokenSource};
use crate::egress::Origin;

/// The longest message of a server, in bytes.
const MAX_MESSAGE: usize = 20 << 20;

/// Makes the transport to a server. The address is the operator's: it may be private.
pub(super) fn transport(
    url: &str,
    mcp: &McpTool,
    tokens: Option<Arc<TokenSource>>,
    surroundings: &Surroundings,
) -> Result<StreamableHttpClientTransport<Client>, ConnectError> {
    let parsed: Url = url
        .parse()
        .map_err(|error| ConnectError::lasting(format!("its url is not an address: {error}")))?;
    let origin = Origin::of(&parsed);
    let inner = surroundings
        .egress
        .client_for(&parsed, origin.as_ref())
        .map_err(|error| ConnectError::lasting(error.to_string()))?;
    let mut backoff = ExponentialBackoff::default();
    backoff.max_delay = Some(Duration::from_secs(30));
    let mut config = StreamableHttpClientTransportConfig::with_uri(url)
        // A new session may be another version of the server: its list of tools must be read again.
        .reinit_on_expired_session(false)
        .max_json_response_size(MAX_MESSAGE)
        .max_sse_event_size(MAX_MESSAGE);
    config.retry_config = Arc::new(backoff);
    match &mcp.auth {
        Some(McpAuth::BearerToken { token }) => config = config.auth_header(token.clone()),
        Some(McpAuth::ApiKey { key, header }) => {
            let (name, value) = key_header(header, key)?;
            config = config.custom_headers(HashMap::from([(name, value)]));
        }
        Some(McpAuth::Oauth2 { .. }) | None => {}
    }
    Ok(StreamableHttpClientTransport::with_client(
        Client { inner, tokens },
        config,
    ))
}

fn key_header(name: &str, key: &str) -> Result<(HeaderName, HeaderValue), ConnectError> {
    let parsed = HeaderName::from_bytes(name.as_bytes());
    let value = HeaderValue::from_str(key);
    match (parsed, value) {
        (Ok(name), Ok(mut value)) => {
            value.set_sensitive(true);
            Ok((name, value))
        }
        _ => Err(ConnectError::lasting(
            "auth: the header or the key has characters that no header may have",
        )),
    }
}

/// Whether an error says that the server knows nothing of our session. The protocol wants HTTP 404; servers on the
/// TypeScript SDK often answer 400 with one of these, before they look at the message.
fn is_lost_session(error: &ErrorData) -> bool {
    let of_transport = matches!(error.code.0, -32_000 | -32_001 | -32_600);
    let phrases = ["session id", "session not found", "server not initialized"];
    let message = error.message.to_ascii_lowercase();
    of_transport && phrases.iter().any(|phrase| message.contains(phrase))
}

/// The guard's client, with a fresh access token on every request where the server wants one.
#[derive(Clone)]
pub(super) struct Client {
    inner: reqwest::Client,
    tokens: Option<Arc<TokenSource>>,
}

type Headers = HashMap<HeaderName, HeaderValue>;
type Failure = StreamableHttpError<reqwest::Error>;

impl Client {
    async fn token(&self, fixed: Option<String>) -> Result<Option<String>, Failure> {
        match &self.tokens {
            None => Ok(fixed),
            Some(tokens) => match tokens.current().await {
                Ok(token) => Ok(Some(token)),
                Err(message) => Err(StreamableHttpError::Io(io::Error::other(NoToken(message)))),
            },
        }
    }

    /// A token that was refused is not used again.
    fn seen<T>(&self, result: Result<T, Failure>) -> Result<T, Failure> {
        if let (Some(tokens), Err(StreamableHttpError::AuthRequired(_))) = (&self.tokens, &result) {
            tokens.forget();
        }
        result
    }
}

impl StreamableHttpClient for Client {
    type Error = reqwest::Error;

    async fn post_message(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let limits = StreamableHttpResponseLimits::default();
        self.post_message_with_response_limits(uri, message, session, auth, headers, limits)
            .await
    }

    async fn post_message_with_response_limits(
        &self,
        uri: Arc<str>,
        message: ClientJsonRpcMessage,
        session: Option<Arc<str>>,
        auth: Option<String>,
        headers: Headers,
        limits: StreamableHttpResponseLimits,
    ) -> Result<StreamableHttpPostResponse, Failure> {
        let auth = self.token(auth).await?;
        let request = match &message {
            ClientJsonRpcMessage::Request(request) => Some(request.id.clone()),
            _ => None,
        };
        let posted = self
            .inner
            .post_message_with_response_limits(uri, message, session, auth, headers, limits)
            .await;
        match self.seen(posted)? {
            StreamableHttpPostResponse::Json(ServerJsonRpcMessage::Error(answer), session) => {
                if is_lost_session(&answer.error) {
                    return Err(StreamableHttpError::SessionExpired);
                }
                // Without an id the error would belong to no request, and ours would wait for ever.
                let id = answer.id.or(request);
                let answer = ServerJsonRpcMessage::error(answer.error, id);
                Ok(StreamableHttpPostResponse::Json(answer, session))
            }
            answer => Ok(answer),
        }
    }

    async fn delete_session(
        &self,
        uri: Arc<str>,
        session: Arc<str>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<(), Failure> {
        let auth = self.token(auth).await?;
        self.inner.delete_session(uri, session, auth, headers).await
    }

    async fn get_stream(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        auth: Option<String>,
        headers: Headers,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failure> {
        self.get_stream_with_max_sse_event_size(
            uri,
            session,
            last_event,
            auth,
            headers,
            MAX_MESSAGE,
        )
        .await
    }

    async fn get_stream_with_max_sse_event_size(
        &self,
        uri: Arc<str>,
        session: Option<Arc<str>>,
        last_event: Option<String>,
        auth: Option<String>,
        headers: Headers,
        max: usize,
    ) -> Result<BoxStream<'static, Result<Sse, SseError>>, Failure> {
        let auth = self.token(auth).await?;
        let inner = &self.inner;
        self.seen(
            inner
                .get_stream_with_max_sse_event_size(uri, session, last_event, auth, headers, max)
                .await,
        )
    }
}
