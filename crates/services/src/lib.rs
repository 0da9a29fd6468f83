//! The HTTP services, their faces, and the agent configuration with hot reload.
//!
//! - [`alerts`] tells people that something is wrong; [`outgoing`] sends what has to arrive.
//! - [`audit`] writes down who did what, in a chain that shows when a line is changed.
//! - [`config`] reads agents and keeps them current.
//! - [`http`] is what every service shares: errors, bodies, paging, tracing, limits, health, metrics.
//! - [`orchestrator`], [`config_api`], [`scheduler`], [`state`] and [`slack`] are the services; none knows of another. What they show alike is
//!   in [`execution`].
//! - [`redact`] takes known secrets out of texts.
//! - [`openai`] shows every agent as a model of OpenAI's API, `mcp` as a tool of an MCP server.
//! - [`Server`] binds and serves them, by TLS when [`tls`] has a certificate.

#![allow(
    unused_qualifications,
    reason = "utoipa's path macro repeats the names of parameter types in qualified form"
)]

pub mod alerts;
pub mod audit;
pub mod config;
pub mod config_api;
pub mod execution;
pub mod http;
mod mcp;
pub mod openai;
pub mod orchestrator;
pub mod outgoing;
pub mod redact;
pub mod scheduler;
pub mod server;
pub mod slack;
pub mod state;
pub mod tls;
mod worker;

pub use http::guard::check_bind;
pub use http::{App, Service};
pub use server::{BindError, Server};
