#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "dev only: a stand-in that cannot go on should stop the test at once"
)]
//! Stand-ins on the true wire, and fault tools, for tests only.
//!
//! | what | stands in for |
//! |---|---|
//! | [`ProviderStandIn`] | a model provider: OpenAI, Anthropic, Ollama and AWS Bedrock, whole and streamed |
//! | [`EffectsStandIn`] | the API of a tool, whose effects are counted by idempotency key |
//! | [`SlackStandIn`] | Slack: its Web API, its Socket Mode and its signatures |
//! | [`CollectorStandIn`] | a collector of traces, by OTLP |
//! | [`FaultProxy`] | a network that is slow, cut or silent |
//! | [`npm_servers`] | the command lines of real MCP servers, installed by `scripts/test-deps` |
//!
//! Each stand-in runs on a thread of its own: a test may pause its clock or block its only thread, and
//! the other side goes on like the real one would. Dropping a stand-in is its death: the port closes
//! and open connections break. Nothing is timed; a test waits for an arrival, or holds a call at a
//! [`Barrier`] and lets it go.
//!
//! The provider refuses what the real ones refuse (an unanswered tool call, an unknown field, a schema
//! that is no object), so a test of an adapter ends with `assert!(provider.rejections().is_empty())`.
//! That the stand-in itself is right is proved with the official client libraries: see `clients/`.
//!
//! ```
//! use agentrunner_testkit::provider::{Answer, Fault};
//! use agentrunner_testkit::{Filter, ProviderStandIn};
//! use serde_json::json;
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() {
//! // A behaviour is a function from a request to an answer. It knows the turn from the conversation,
//! // so a retry, or a recovery after a crash, is answered alike.
//! let provider = ProviderStandIn::start(|request| match (request.turn, request.attempt) {
//!     (0, 1) => Answer::rate_limited(1),
//!     (0, _) => Answer::call("charge", json!({"cents": 300})).and_call("read", json!({})),
//!     (_, 1) => Answer::say("It is").fault(Fault::Cut { after: None }),
//!     _ => Answer::say("It is done."),
//! });
//! // Stop the first call of the second turn in the middle of its stream.
//! let hold = provider.hold(Filter::any().with("turn", 1).with("point", "mid_stream"), Some(1));
//! // ... start the product with `provider.openai_url()`, then `hold.wait(1).await`, kill it ...
//! hold.release();
//! assert_eq!(provider.count_of("the text of the first user message"), 0);
//! # }
//! ```
//!
//! For tests that need a stand-in outside of the test's own process there is the binary `testkit`, see
//! [`process::Process`]. It is driven by a script ([`provider::Script`]) and by a control API:
//!
//! | request | of | what it does |
//! |---|---|---|
//! | `GET /_control/requests?n=3&wait=5000` | provider | the recorded requests, once there are `n` or `wait` ms have passed |
//! | `POST /_control/script` | provider | replaces the behaviour by the script in the body |
//! | `GET /_control/calls?n=3&wait=5000` | effects | the recorded calls |
//! | `POST /_control/faults` | effects | adds `{"when": {…}, "times": 1, "fault": {"kind": "reset"}}`; `DELETE` removes all |
//! | `POST /_control/hold` | both | holds calls: `{"filter": {"point": "after_effect"}, "limit": 1}`, answers `{"id": 1}` |
//! | `POST /_control/release` | both | releases `{"id": 1}`, or all holds with `{}` |
//! | `GET /_control/held?n=1&wait=5000` | both | 200 as soon as `n` calls are held, 408 after `wait` ms |
//!
//! `DELETE` on the lists forgets what was recorded.

mod barrier;
mod collector;
mod control;
mod deps;
pub mod effects;
mod log;
mod pen;
pub mod process;
pub mod provider;
mod proxy;
mod secrets;
mod server;
pub mod servers;
pub mod slack;

pub use barrier::{Barrier, Filter, Hold, Ticket};
pub use collector::{CollectorStandIn, ToldSpan};
pub use deps::{CommandLine, NpmServers, node_folder, npm_servers, python};
pub use effects::EffectsStandIn;
pub use log::Outcome;
pub use provider::ProviderStandIn;
pub use proxy::{FaultProxy, Weather};
pub use secrets::SecretsStandIn;
pub use slack::SlackStandIn;
