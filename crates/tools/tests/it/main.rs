//! The tools against real servers: HTTP, MCP over stdio and streamable HTTP, files.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test stops at what it did not expect"
)]

mod api;
mod builtin;
mod docs;
mod egress;
mod files;
mod mcp_http;
mod mcp_stdio;
mod offers;
mod support;
