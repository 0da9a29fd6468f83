//! One tool call behind one trait: MCP servers, HTTP APIs, built-in functions; and the egress guard that stands before
//! every outgoing request whose address a model, a user or a tool may influence.
//!
//! | module | what it holds |
//! |---|---|
//! | [`egress`] | the only way out: which addresses may be asked, and the client that checks them where it connects |
//! | `api` | a request made from a template and the arguments |
//! | `mcp` | MCP servers over stdio and streamable HTTP: started when needed, shared, reconnected |
//! | `builtin` | AgentRunner's own functions, one file each |
//! | `toolkit` | the [`Toolbox`] over all of them, and the cache of what is offered |
//! | `schema` | whether arguments meet their JSON Schema |

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::definition::{Effect, Tool};
use domain::pin::{Fingerprint, Sight};
use domain::{
    AgentName, ConfigVersion, Event, ExecutionId, SpanId, Time, ToolOutcome, TraceId, span,
};
use serde_json::Value;

mod api;
mod builtin;
pub mod egress;
mod mcp;
mod schema;
mod secret;
mod text;
mod toolkit;

pub use egress::{Egress, EgressPolicy};
pub use schema::Schemas;
pub use secret::secrets;
pub use toolkit::{Toolkit, ToolkitSettings};

/// Tells the time.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// A tool that a model may call now: what the model is told, and what the engine must know.
#[derive(Debug, Clone, PartialEq)]
pub struct Offer {
    /// The name that the model calls it by.
    pub name: String,
    /// What the model is told.
    pub description: String,
    /// The JSON Schema of the arguments.
    pub parameters: Value,
    /// The entry of the definition's `tools` that it belongs to.
    pub entry: String,
    /// What is known of its effect.
    pub effect: Effect,
    /// Whether a person must allow each call.
    pub approval: bool,
    /// What a server says of it, when that is to stay as it was approved.
    pub pin: Option<Sight>,
}

/// A call to make.
#[derive(Debug, Clone)]
pub struct Call<'a> {
    /// The entry of the definition's `tools`, its references expanded.
    pub entry: &'a Tool,
    /// The tool's name, as it was offered.
    pub tool: &'a str,
    /// The arguments: an object that meets the schema.
    pub arguments: &'a Value,
    /// Sent along, so that a repeated call can be told from a new one.
    pub idempotency_key: &'a str,
    /// Who calls.
    pub agent: &'a AgentName,
    /// In which execution.
    pub execution: ExecutionId,
    /// The coordinator's execution whose team it works for; for the shared state.
    pub team: Option<ExecutionId>,
    /// The trace to send on.
    pub trace_id: &'a TraceId,
    /// Whether that trace is recorded.
    pub is_recorded: bool,
    /// How many events led here; for `publish_event`.
    pub hops: u8,
    /// How long it may take.
    pub timeout: Duration,
    /// What its server said of it when the model was told: one that is another now is not called.
    pub pin: Option<&'a Fingerprint>,
}

impl Call<'_> {
    /// The `traceparent` header of W3C Trace Context that is sent with the call.
    fn traceparent(&self) -> String {
        let span = SpanId::of_key(self.idempotency_key);
        span::traceparent(self.trace_id, span, self.is_recorded)
    }
}

/// What an earlier call came to, as the entry's `check` tool tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Checked {
    /// It happened, with this result.
    Happened(String),
    /// It did not happen.
    DidNotHappen,
    /// The check tool could not tell.
    Unknown(String),
}

/// Offers and calls the tools of definitions.
#[async_trait]
pub trait Toolbox: Send + Sync + 'static {
    /// The tools that the entries offer now; `agent` entries and `ask_human` included. An entry whose server can't be
    /// reached fails the whole: an agent must not work with half its tools without knowing.
    ///
    /// `version` names the content of `entries`: asking again with the same one costs a look-up, until an MCP server
    /// says that its list has changed.
    async fn offers(
        &self,
        agent: &AgentName,
        version: &ConfigVersion,
        entries: &[Tool],
    ) -> Result<Arc<Vec<Offer>>, Error>;

    /// Calls a tool; never fails otherwise than by its outcome, never takes longer than the time-out, never answers
    /// more than the entry's `max_result_bytes`. `Unknown` when the call went out and no answer came back.
    async fn call(&self, call: Call<'_>) -> ToolOutcome;

    /// Asks `check_entry`, the tool that `call.entry.check` names, whether `call` has happened.
    async fn check(&self, call: Call<'_>, check_entry: &Tool) -> Checked;
}

/// What the built-in functions need of the system around them; the engine gives it. A trait because the ports know
/// nothing of one another.
#[async_trait]
pub trait Host: Send + Sync + 'static {
    /// Keeps a fact of an agent; the same idempotency key changes nothing more.
    async fn remember(
        &self,
        agent: &AgentName,
        key: &str,
        value: &Value,
        idempotency_key: &str,
    ) -> Result<(), String>;

    /// Facts of an agent whose key contains `like`, newest first.
    async fn recall(
        &self,
        agent: &AgentName,
        like: &str,
        limit: usize,
    ) -> Result<Vec<(String, Value)>, String>;

    /// Sends an event out, durably. The same event id is one event.
    async fn publish(&self, event: Event) -> Result<(), String>;

    /// Writes a value of a team's shared state as a new version; the same idempotency key writes once.
    async fn share(&self, share: Share<'_>) -> Result<Shared, String>;

    /// The latest versions of a team's shared state, by key: of these keys, or of all when none is named.
    async fn shared(
        &self,
        team: ExecutionId,
        keys: &[String],
    ) -> Result<Vec<(String, u64, Value)>, String>;
}

/// A value for a team's shared state.
#[derive(Debug, Clone, Copy)]
pub struct Share<'a> {
    /// Whose state: the coordinator's execution.
    pub team: ExecutionId,
    /// Who writes.
    pub by: ExecutionId,
    /// Under which key.
    pub key: &'a str,
    /// What.
    pub value: &'a Value,
    /// Only if this is the version; 0 when there is to be nothing yet.
    pub expected: Option<u64>,
    /// Tells a repeated write from a new one.
    pub idempotency_key: &'a str,
}

/// What came of writing it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shared {
    /// It is durable.
    Written {
        /// As this version.
        version: u64,
    },
    /// It is not written; why, in words for the model.
    Refused(String),
}

/// Why tools can't be offered.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A server can't be reached or does not speak MCP; worth trying again.
    #[error("tool server {entry:?} is unavailable: {message}")]
    Unavailable {
        /// Which.
        entry: String,
        /// What happened and what to do.
        message: String,
    },
    /// The definition asks for something that can't be had.
    #[error("tool {entry:?} can't be used: {message}")]
    Invalid {
        /// Which.
        entry: String,
        /// Why, and what to do.
        message: String,
    },
}
