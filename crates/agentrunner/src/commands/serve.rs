//! `serve`: one part, in a process of its own.

use clap::Args;

use super::serving::serve_until_told;
use crate::cli::{Context, Exit};
use crate::wiring::{Part, System};

/// Serves one part of AgentRunner, until Ctrl-C or SIGTERM.
///
/// Parts meet on PostgreSQL and RabbitMQ, which must be named. Any number of each may run. The schema is not changed
/// by a start, unless AUTO_MIGRATE=true: run `agentrunner migrate up` before.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentrunner migrate up
  agentrunner serve agent-orchestrator
  agentrunner serve autonomous-agent-pool
  AGENT_POOL_PORT=0 agentrunner serve autonomous-agent-pool    one more on the same machine")]
pub(crate) struct Serve {
    /// Which part
    #[arg(value_name = "SERVICE")]
    part: Part,
}

impl Serve {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        let settings = context.settings.for_a_part();
        serve_until_told(context, System::serve_part(&settings, self.part))
    }
}
