//! Access tokens by OAuth 2.1 client credentials, kept until shortly before they expire.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use domain::definition::McpAuth;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderMap, HeaderValue, Method};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use tokio::time::Instant;
use url::{Url, form_urlencoded};

use crate::egress::{Egress, Origin, Request};

/// How long before its end a token is replaced.
const MARGIN: Duration = Duration::from_secs(30);
/// How long a token is kept when the server does not say.
const USUAL_LIFE: u64 = 300;
/// How long asking for a token may take.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// There is no token, so that the request was not sent.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct NoToken(pub(super) String);

/// Gets tokens for one server.
pub(super) struct TokenSource {
    egress: Arc<Egress>,
    token_url: String,
    client_id: String,
    client_secret: SecretString,
    scopes: Vec<String>,
    token: RwLock<Option<(SecretString, Instant)>>,
    /// One asks, the others wait.
    asking: Mutex<()>,
}

#[derive(Deserialize)]
struct Answer {
    access_token: SecretString,
    #[serde(default)]
    expires_in: Option<u64>,
}

impl TokenSource {
    pub(super) fn of(auth: Option<&McpAuth>, egress: Arc<Egress>) -> Option<Self> {
        match auth? {
            McpAuth::Oauth2 {
                token_url,
                client_id,
                client_secret,
                scopes,
            } => Some(Self {
                egress,
                token_url: token_url.clone(),
                client_id: client_id.clone(),
                client_secret: client_secret.clone().into(),
                scopes: scopes.clone(),
                token: RwLock::new(None),
                asking: Mutex::new(()),
            }),
            McpAuth::BearerToken { .. } | McpAuth::ApiKey { .. } => None,
        }
    }

    /// A token that is still good.
    ///
    /// # Errors
    /// Why there is none, without anything secret.
    pub(super) async fn current(&self) -> Result<String, String> {
        if let Some(token) = self.known() {
            return Ok(token);
        }
        let _asking = self.asking.lock().await;
        if let Some(token) = self.known() {
            return Ok(token);
        }
        let answer = self.ask().await?;
        let life = Duration::from_secs(answer.expires_in.unwrap_or(USUAL_LIFE));
        let until = Instant::now() + life.saturating_sub(MARGIN).min(Duration::from_secs(86_400));
        let token = answer.access_token.expose_secret().to_owned();
        self.set(Some((answer.access_token, until)));
        Ok(token)
    }

    /// Forgets the token, because the server refused it.
    pub(super) fn forget(&self) {
        self.set(None);
    }

    fn known(&self) -> Option<String> {
        let token = self.token.read().unwrap_or_else(PoisonError::into_inner);
        token
            .as_ref()
            .filter(|(_, until)| Instant::now() < *until)
            .map(|(token, _)| token.expose_secret().to_owned())
    }

    fn set(&self, token: Option<(SecretString, Instant)>) {
        *self.token.write().unwrap_or_else(PoisonError::into_inner) = token;
    }

    async fn ask(&self) -> Result<Answer, String> {
        let url: Url = self
            .token_url
            .parse()
            .map_err(|error| format!("token_url is not an address: {error}"))?;
        let request = Request {
            method: Method::POST,
            written: Origin::of(&url),
            url,
            headers: self.headers()?,
            body: Some(Bytes::from(self.form())),
            hosts: &[],
            timeout: TIMEOUT,
            max_bytes: MAX_ANSWER,
            reuse: true,
        };
        let response = self
            .egress
            .send(request)
            .await
            .map_err(|error| format!("no access token: {error}"))?;
        if !response.status.is_success() {
            return Err(format!("no access token: HTTP {}", response.status));
        }
        // The parser's own words could quote the token.
        serde_json::from_slice(&response.body)
            .map_err(|_| "no access token: the answer is not that of a token endpoint".to_owned())
    }

    fn form(&self) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair("grant_type", "client_credentials");
        if !self.scopes.is_empty() {
            form.append_pair("scope", &self.scopes.join(" "));
        }
        form.finish()
    }

    fn headers(&self) -> Result<HeaderMap, String> {
        let encode =
            |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let secret = self.client_secret.expose_secret();
        let pair = format!("{}:{}", encode(&self.client_id), encode(secret));
        let mut authorization = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)))
            .map_err(|_| "the client's credentials do not fit into a header".to_owned())?;
        authorization.set_sensitive(true);
        let mut headers = HeaderMap::new();
        headers.insert(AUTHORIZATION, authorization);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(
            CONTENT_TYPE,
            HeaderValue::from_static("application/x-www-form-urlencoded"),
        );
        Ok(headers)
    }
}
