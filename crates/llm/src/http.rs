//! One HTTP client for all providers: sends a request, bounds what comes back, and says what went wrong.

use std::error::Error as StdError;
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

use domain::definition::Provider;
use domain::retry::ModelErrorClass as Class;
use http::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder, Response};
use secrecy::{ExposeSecret, SecretString};
use tokio::time::timeout;
use url::{Host, Url};

use crate::Error;
use crate::endpoint::Endpoint;
use crate::failure::{Report, refused};

/// The largest answer that comes in one piece, in bytes.
const LARGEST_BODY: usize = 16 << 20;
/// How much of a refusal is read, in bytes, and for how long.
const LARGEST_REFUSAL: usize = 64 << 10;
const REFUSAL_PATIENCE: Duration = Duration::from_secs(10);
/// Idle connections that are kept for each host: as many as there may be calls at once.
const IDLE_CONNECTIONS: usize = 1024;

/// The clients, each built at its first use.
#[derive(Debug)]
pub(crate) struct Http {
    /// For the world: through the system's proxy if it has one, with the system's certificates. Reading those takes
    /// longer than a start should.
    far: OnceLock<Result<Client, String>>,
    /// For plain HTTP on this machine: no proxy could reach it, and no certificate is needed.
    near: OnceLock<Result<Client, String>>,
    connect_timeout: Duration,
}

/// One request on its way out.
pub(crate) struct Outgoing<'a> {
    /// Where to and for whom.
    pub(crate) endpoint: &'a Endpoint,
    /// The model that is asked, for messages.
    pub(crate) model: &'a str,
    /// The address.
    pub(crate) url: Url,
    /// The headers.
    pub(crate) headers: HeaderMap,
    /// The body of a POST; without one it is a GET.
    pub(crate) body: Option<Vec<u8>>,
    /// How long the first byte may take.
    pub(crate) patience: Duration,
    /// Reads a refusal in the provider's own shape.
    pub(crate) read_refusal: fn(&[u8]) -> Report,
}

impl Http {
    pub(crate) const fn new(connect_timeout: Duration) -> Self {
        Self {
            far: OnceLock::new(),
            near: OnceLock::new(),
            connect_timeout,
        }
    }

    /// Sends a request. Whatever is not 2xx is an error.
    pub(crate) async fn send(&self, call: Outgoing<'_>) -> Result<Response, Error> {
        let client = self.client(&call.url)?;
        let request = match call.body {
            Some(body) => client.post(call.url).body(body),
            None => client.get(call.url),
        };
        let sent = timeout(call.patience, request.headers(call.headers).send()).await;
        let response = sent
            .map_err(|_| silent(call.endpoint, call.patience))?
            .map_err(|error| unreachable(call.endpoint, error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let headers = response.headers().clone();
        let body = timeout(REFUSAL_PATIENCE, beginning(response, LARGEST_REFUSAL)).await;
        let report = (call.read_refusal)(&body.unwrap_or_default()).named_by(&headers);
        Err(refused(
            call.endpoint,
            call.model,
            status.as_u16(),
            &headers,
            &report,
        ))
    }

    fn client(&self, url: &Url) -> Result<&Client, Error> {
        let built = if is_near(url) {
            self.near.get_or_init(|| {
                let plain = self.settings().no_proxy().tls_certs_only([]);
                plain.build().map_err(|error| chain(&error))
            })
        } else {
            self.far
                .get_or_init(|| self.settings().build().map_err(|error| chain(&error)))
        };
        built.as_ref().map_err(|reason| {
            Error::unavailable(format!("the HTTP client can't be set up: {reason}"))
        })
    }

    /// HTTP/1.1 only: one HTTP/2 connection carries about a hundred streams, and a thousand calls would wait for it.
    fn settings(&self) -> ClientBuilder {
        Client::builder()
            .user_agent(concat!("agentrunner/", env!("CARGO_PKG_VERSION")))
            .http1_only()
            .redirect(Policy::none())
            .referer(false)
            .no_gzip()
            .connect_timeout(self.connect_timeout)
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(Duration::from_secs(60))
            .tcp_nodelay(true)
            .tcp_keepalive(Duration::from_secs(30))
    }
}

/// Whether an address is plain HTTP on this machine.
fn is_near(url: &Url) -> bool {
    let is_local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback(),
        Some(Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    };
    is_local && url.scheme() == "http"
}

/// The headers of every call that carries JSON.
pub(crate) fn headers(trace_id: &str) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(
        http::header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    if let Ok(value) = HeaderValue::from_str(trace_id)
        && !trace_id.is_empty()
    {
        headers.insert(HeaderName::from_static("x-client-request-id"), value);
    }
    headers
}

/// A header that holds a key. A key that no header can hold is an error.
pub(crate) fn secret(prefix: &str, key: &SecretString) -> Result<HeaderValue, Error> {
    let text = format!("{prefix}{}", key.expose_secret().trim());
    let mut value = HeaderValue::from_str(&text).map_err(|_| {
        Error::new(
            Class::Auth,
            "the key has characters that no key has, perhaps a line break: set it again",
        )
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// A whole body, if it is not larger than any honest one.
pub(crate) async fn whole_body(
    endpoint: &Endpoint,
    mut response: Response,
    patience: Duration,
) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    loop {
        let read = timeout(patience, response.chunk()).await;
        let piece = read
            .map_err(|_| silent(endpoint, patience))?
            .map_err(|error| cut_off(endpoint).because(error.without_url()))?;
        let Some(piece) = piece else {
            return Ok(body);
        };
        if body.len() + piece.len() > LARGEST_BODY {
            return Err(Error::garbled(format!(
                "{} at {} sent more than {} MiB in one piece",
                endpoint.provider.as_str(),
                endpoint.place(),
                LARGEST_BODY >> 20
            )));
        }
        body.extend_from_slice(&piece);
    }
}

/// As much of a body as is wanted and as comes without trouble.
async fn beginning(mut response: Response, limit: usize) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(Some(piece)) = response.chunk().await {
        body.extend_from_slice(&piece);
        if body.len() >= limit {
            body.truncate(limit);
            break;
        }
    }
    body
}

/// The error for a provider that says nothing.
pub(crate) fn silent(endpoint: &Endpoint, patience: Duration) -> Error {
    Error::new(
        Class::TimedOut,
        format!(
            "{} at {} said nothing for {} s",
            endpoint.provider.as_str(),
            endpoint.place(),
            patience.as_secs_f64()
        ),
    )
}

/// The error for an answer without its end.
pub(crate) fn cut_off(endpoint: &Endpoint) -> Error {
    Error::garbled(format!(
        "{} at {} broke off in the middle of its answer",
        endpoint.provider.as_str(),
        endpoint.place()
    ))
}

/// The error for a call that got no answer at all.
fn unreachable(endpoint: &Endpoint, error: reqwest::Error) -> Error {
    let error = error.without_url();
    let place = endpoint.place();
    let name = endpoint.provider.as_str();
    if error.is_builder() {
        return Error::invalid(format!(
            "the request to {place} can't be built: {}",
            chain(&error)
        ));
    }
    let causes = chain(&error);
    let lower = causes.to_lowercase();
    let what = if is_refused(&error) {
        format!("nothing listens at {place}")
    } else if error.is_timeout() {
        format!("{place} does not take connections in time")
    } else if lower.contains("dns error") || lower.contains("failed to lookup") {
        format!("the host of {place} can't be found: check the address and the network")
    } else if TLS_TROUBLE.iter().any(|word| lower.contains(word)) {
        format!("{place} can't be trusted or does not speak TLS ({causes})")
    } else if error.is_connect() {
        format!("{place} can't be reached ({causes})")
    } else {
        format!("{place} closed the connection without an answer")
    };
    let hint = match endpoint.provider {
        Provider::Ollama if error.is_connect() => {
            "; is Ollama running? start it with `ollama serve`, or set OLLAMA_BASE_URL to where it runs"
        }
        _ => "",
    };
    Error::unavailable(format!("{name} is not available: {what}{hint}")).because(error)
}

/// Words by which rustls' errors are known; their type is hidden inside reqwest's.
const TLS_TROUBLE: [&str; 4] = ["certificate", "tls", "corrupt message", "handshake"];

fn is_refused(error: &reqwest::Error) -> bool {
    causes(error)
        .filter_map(|cause| cause.downcast_ref::<io::Error>())
        .any(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
}

fn causes<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| error.source()).take(16)
}

fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut texts: Vec<String> = Vec::new();
    for cause in causes(error) {
        let text = cause.to_string();
        if texts.last() != Some(&text) {
            texts.push(text);
        }
    }
    texts.join(": ")
}
