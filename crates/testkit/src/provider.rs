//! A model provider on the true wire: OpenAI, Anthropic, Ollama and AWS Bedrock on one port.

mod answer;
mod anthropic;
mod bedrock;
mod behave;
mod face;
mod faults;
mod ollama;
mod openai;
mod record;
mod request;
mod schema;
mod script;
mod service;

use std::io;
use std::net::SocketAddr;

pub use answer::{Answer, ErrorKind, ProviderError, Raw, Stop, ToolCall, Usage};
pub use bedrock::{AWS_KEY_ID, aws_secret};
pub use behave::{call_tools, flaky, n_turns_then_answer, per_turn, say, sequence};
pub use face::Face;
pub use faults::{Delivery, Fault};
pub use record::Recorded;
pub use request::{Call, CallResult, Message, Request, Role, Tool};
pub use script::Script;

use crate::barrier::{Barrier, Filter, Hold};
use crate::server::Server;
use service::Service;

/// A provider that runs inside the test, on a thread of its own, until it is dropped.
///
/// It refuses what the real providers refuse (see the `check` modules), answers as its behaviour says,
/// and records every request. Its points for barriers are `before_answer` (the request is recorded, not
/// a byte is answered) and `mid_stream` (half of the chunks are sent).
#[derive(Debug)]
pub struct ProviderStandIn {
    service: Service,
    server: Server,
}

impl ProviderStandIn {
    /// Starts the stand-in on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When no port can be bound.
    #[must_use]
    pub fn start(behaviour: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        Self::start_on(0, behaviour).expect("a free port")
    }

    /// Starts the stand-in on this port of 127.0.0.1.
    ///
    /// # Errors
    /// When the port cannot be bound.
    pub fn start_on(
        port: u16,
        behaviour: impl Fn(&Request) -> Answer + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let service = Service::new(behaviour);
        let server = Server::start(port, service.router())?;
        Ok(Self { service, server })
    }

    /// Returns the address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.server.address()
    }

    /// Returns `http://127.0.0.1:PORT`, the base URL for Anthropic, Ollama and AWS clients.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address())
    }

    /// Returns `http://127.0.0.1:PORT/v1`, the base URL for OpenAI clients.
    #[must_use]
    pub fn openai_url(&self) -> String {
        format!("{}/v1", self.url())
    }

    /// Replaces the behaviour for the requests that arrive from now on.
    pub fn behave(&self, behaviour: impl Fn(&Request) -> Answer + Send + Sync + 'static) {
        self.service.behave(behaviour);
    }

    /// Sets the names in the lists of models. Any model may be called all the same.
    pub fn list_models(&self, names: impl IntoIterator<Item = impl Into<String>>) {
        self.service
            .list_models(names.into_iter().map(Into::into).collect());
    }

    /// Returns all requests so far, the refused ones included, in order of arrival.
    #[must_use]
    pub fn requests(&self) -> Vec<Recorded> {
        self.service.log().all()
    }

    /// Counts the requests so far.
    #[must_use]
    pub fn count(&self) -> usize {
        self.service.log().look(<[_]>::len)
    }

    /// Counts the requests of the conversation whose first user message is `conversation`.
    #[must_use]
    pub fn count_of(&self, conversation: &str) -> usize {
        let is_of = |entry: &&Recorded| entry.request.conversation == conversation;
        self.service
            .log()
            .look(|all| all.iter().filter(is_of).count())
    }

    /// Returns why requests were refused. Empty as long as the client keeps to the provider's rules.
    #[must_use]
    pub fn rejections(&self) -> Vec<String> {
        self.requests()
            .into_iter()
            .filter_map(|entry| entry.rejected)
            .collect()
    }

    /// Waits until `requests` requests have arrived in all.
    pub async fn wait_for_requests(&self, requests: usize) {
        self.service
            .log()
            .wait_until(|all| all.len() >= requests)
            .await;
    }

    /// Waits until the requests so far are as `enough` wants them, for instance until one is abandoned.
    pub async fn wait_until(&self, enough: impl Fn(&[Recorded]) -> bool) {
        self.service.log().wait_until(enough).await;
    }

    /// Holds the requests that `filter` means, or the first `limit` of them, at its point
    /// (`with("point", "before_answer")` or `"mid_stream"`).
    #[must_use = "a dropped hold lets everything pass"]
    pub fn hold(&self, filter: Filter, limit: Option<usize>) -> Hold {
        self.barrier().hold(filter, limit)
    }

    /// Returns the barriers.
    #[must_use]
    pub fn barrier(&self) -> &Barrier {
        self.service.barrier()
    }
}

/// Whether a request is signed for a service of AWS, by a key that the stand-ins know; else why it is not.
pub(crate) fn signed_for(
    service: &str,
    (method, path): (&str, &str),
    headers: &std::collections::BTreeMap<String, String>,
    body: &[u8],
) -> Result<(), ProviderError> {
    let arrived = face::Arrived {
        method,
        path,
        headers,
        body,
        raw: &serde_json::Value::Null,
    };
    bedrock::signature::check_for(service, &arrived)
}
