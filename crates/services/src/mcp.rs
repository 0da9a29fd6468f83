//! Every agent as a tool of an MCP server: assistants and editors list agents and give them tasks, by streamable HTTP. A part
//! of AgentOrchestrator; `agentrunner mcp` carries the same over stdio.
//!
//! Each request is served by itself, by any process: nothing is kept of a client between two of them. The handshake, the
//! versions of the protocol and its frames are the official SDK's matter; who may ask is the door's, as everywhere.
//!
//! Source: <https://modelcontextprotocol.io/specification/2026-07-28>; see decision 0021.

mod agents;
mod answer;
mod call;
mod endpoint;
pub(crate) mod sessions;

use utoipa_axum::routes;

use crate::http::door::{Owner, Routes, SUBMIT};

/// The routes.
pub(crate) fn routes() -> Routes {
    Routes::new().with(
        SUBMIT.of(Owner::Handler),
        routes!(endpoint::message, endpoint::end),
    )
}
