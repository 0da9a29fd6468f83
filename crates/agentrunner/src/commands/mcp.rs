//! `mcp`: the agents as tools of an MCP server on standard input and output.

mod bridge;
mod wire;

use clap::Args;

use super::backend::Backend;
use crate::cli::{Context, Exit};
use crate::wiring::Purpose;

/// Offers the agents as tools to assistants and editors that start MCP servers as programs.
///
/// Speaks the Model Context Protocol on standard input and output, and passes it on to a server's `/mcp`: the one that
/// --server names, else the one of this machine, else this process serves the agents of --config-dir itself. Where the
/// client can speak HTTP, give it the address of `/mcp` and a key instead.
#[derive(Debug, Args)]
#[command(after_help = "\
Example, as most clients write it in a file of their own (mcp.json):
  { \"mcpServers\": { \"agents\": {
      \"command\": \"agentrunner\",
      \"args\": [\"mcp\", \"--server\", \"http://127.0.0.1:8003\"],
      \"env\": { \"AGENTRUNNER_API_KEY\": \"...\" } } } }")]
pub(crate) struct Mcp {}

impl Mcp {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        Backend::with(context, Purpose::Work, async |backend| {
            bridge::run(&backend.client).await?;
            Ok(Exit::Done)
        })
    }
}
