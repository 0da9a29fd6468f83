//! The egress guard: the only way out for requests whose address a model, a user or a tool may influence.
//!
//! A name is resolved by us, the addresses are checked, and exactly those are connected to: the check sits inside the
//! resolver of the HTTP client, so there is no second look-up that could answer otherwise. Literal addresses and every
//! hop of a redirect are checked too. No proxy, cookie or credential comes from the surroundings.

mod address;
mod client;
mod error;
mod policy;
mod redirect;
mod resolve;
mod response;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Method};
use tokio::time::Instant;
use url::Url;

pub use error::{EgressError, REFUSED};
pub use policy::{EgressPolicy, HostRule, InvalidRule};
pub use resolve::{Resolver, SystemResolver};
pub use response::Response;

use client::Clients;
use policy::Clearance;
use redirect::Hop;

/// How many redirects are followed.
const MAX_REDIRECTS: usize = 5;

/// Sends requests, if they may go where they want to go. Cheap to share.
pub struct Egress {
    policy: Arc<EgressPolicy>,
    clients: Clients,
}

/// A request that wants to go out.
#[derive(Debug)]
pub struct Request<'a> {
    /// The verb.
    pub method: Method,
    /// Where to.
    pub url: Url,
    /// Its headers; not sent on to another origin by a redirect.
    pub headers: HeaderMap,
    /// Its body; not sent on to another origin by a redirect.
    pub body: Option<Bytes>,
    /// The host and port that an operator wrote into a definition: they may be private.
    pub written: Option<Origin>,
    /// The only hosts that may be asked; all when empty.
    pub hosts: &'a [HostRule],
    /// How long it may take in all.
    pub timeout: Duration,
    /// How much of the body is read, after decompression, in bytes.
    pub max_bytes: usize,
    /// Whether a connection may be one that was used before. A kept connection may be dying, which makes the outcome
    /// of a request that is sent on it unknown; where that matters, a new one is worth its price.
    pub reuse: bool,
}

/// A host and its port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    host: String,
    port: u16,
}

impl Origin {
    /// The origin of an address.
    pub fn of(url: &Url) -> Option<Self> {
        Some(Self {
            host: url.host_str()?.to_owned(),
            port: url.port_or_known_default()?,
        })
    }
}

impl Egress {
    /// A guard that follows `policy` and asks `resolver` for addresses. Opens nothing yet.
    pub fn new(
        policy: EgressPolicy,
        resolver: Arc<dyn Resolver>,
        connect_timeout: Duration,
    ) -> Self {
        let policy = Arc::new(policy);
        Self {
            clients: Clients::new(&policy, &resolver, connect_timeout),
            policy,
        }
    }

    /// Sends a request and reads its answer.
    ///
    /// # Errors
    /// See [`EgressError`]; [`EgressError::was_sent`] tells whether the request may have had an effect.
    pub async fn send(&self, request: Request<'_>) -> Result<Response, EgressError> {
        let deadline = Instant::now() + request.timeout;
        tokio::time::timeout_at(deadline, self.follow(request))
            .await
            .unwrap_or(Err(EgressError::TimedOut))
    }

    /// The same of a request whose answer counts as it is: a redirect is not followed.
    ///
    /// # Errors
    /// As for [`Egress::send`].
    pub async fn send_once(&self, request: Request<'_>) -> Result<Response, EgressError> {
        let deadline = Instant::now() + request.timeout;
        let Request {
            written,
            hosts,
            max_bytes,
            reuse,
            ..
        } = request;
        let hop = Hop {
            method: request.method,
            url: request.url,
            headers: request.headers,
            body: request.body,
        };
        let sent = async {
            let answer = self.one_hop(&hop, written.as_ref(), hosts, reuse).await?;
            response::read(answer, max_bytes).await
        };
        tokio::time::timeout_at(deadline, sent)
            .await
            .unwrap_or(Err(EgressError::TimedOut))
    }

    /// Checks all of an address that can be checked before its name is resolved, for whoever takes one in: what is
    /// refused here would be refused when it is sent to, and now there is somebody to tell. Reaches nothing.
    ///
    /// # Errors
    /// [`EgressError::Refused`], and why.
    pub fn check(&self, url: &Url) -> Result<(), EgressError> {
        self.clear(url, None, &[]).map(|_| ())
    }

    /// A client for the transport of another library, which must ask nothing but `url`. It follows no redirects, keeps
    /// no connections and resolves names by the same rules.
    ///
    /// # Errors
    /// [`EgressError::Refused`] when `url` may not be asked.
    pub(crate) fn client_for(
        &self,
        url: &Url,
        written: Option<&Origin>,
    ) -> Result<reqwest::Client, EgressError> {
        let clearance = self.clear(url, written, &[])?;
        self.clients.get(clearance, false)
    }

    async fn follow(&self, request: Request<'_>) -> Result<Response, EgressError> {
        let Request {
            written,
            hosts,
            max_bytes,
            reuse,
            ..
        } = request;
        let mut hop = Hop {
            method: request.method,
            url: request.url,
            headers: request.headers,
            body: request.body,
        };
        for redirects in 0..=MAX_REDIRECTS {
            let answer = self.one_hop(&hop, written.as_ref(), hosts, reuse).await;
            // Whoever redirected has seen the request: what fails from here on does not undo that.
            let answer = answer.map_err(|error| error.after(redirects))?;
            match redirect::target(&answer) {
                Some(location) => hop = hop.redirected(answer.status(), &location)?,
                None => return response::read(answer, max_bytes).await,
            }
        }
        Err(EgressError::Broken(format!(
            "there were more than {MAX_REDIRECTS} redirects"
        )))
    }

    async fn one_hop(
        &self,
        hop: &Hop,
        written: Option<&Origin>,
        hosts: &[HostRule],
        reuse: bool,
    ) -> Result<reqwest::Response, EgressError> {
        let clearance = self.clear(&hop.url, written, hosts)?;
        let client = self.clients.get(clearance, reuse)?;
        let mut request = client
            .request(hop.method.clone(), hop.url.clone())
            .headers(hop.headers.clone());
        if let Some(body) = &hop.body {
            request = request.body(body.clone());
        }
        request.send().await.map_err(EgressError::from_client)
    }

    /// Checks all that can be checked before a name is resolved.
    fn clear(
        &self,
        url: &Url,
        written: Option<&Origin>,
        hosts: &[HostRule],
    ) -> Result<Clearance, EgressError> {
        if !matches!(url.scheme(), "http" | "https") {
            let message = format!("{}: is not an address of http or https", url.scheme());
            return Err(EgressError::Refused(message));
        }
        if !url.username().is_empty() || url.password().is_some() {
            let message = "the address holds a user name or password".to_owned();
            return Err(EgressError::Refused(message));
        }
        let (Some(host), Some(origin)) = (url.host(), Origin::of(url)) else {
            return Err(EgressError::Refused("the address has no host".to_owned()));
        };
        self.policy
            .clear(&host, &origin, written == Some(&origin), hosts)
            .map_err(EgressError::Refused)
    }
}

impl std::fmt::Debug for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Egress")
            .field("policy", &self.policy)
            .finish_non_exhaustive()
    }
}
