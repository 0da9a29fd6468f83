//! One tool call behind one trait: MCP, HTTP APIs, built-ins; the egress guard.
