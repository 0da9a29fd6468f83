//! The tools against real servers: HTTP, MCP over stdio and streamable HTTP, files.

mod api;
mod builtin;
mod egress;
mod files;
mod mcp_http;
mod mcp_stdio;
mod offers;
mod support;
