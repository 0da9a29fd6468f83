//! `up`: everything in one process.

use clap::Args;

use super::serving::serve_until_told;
use crate::cli::{Context, Exit};
use crate::wiring::System;

/// Serves everything in one process, until Ctrl-C or SIGTERM.
///
/// What is under way is brought to its next durable step and goes on at the next start. A second Ctrl-C ends at once;
/// nothing that was accepted is lost then either.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentrunner up
  ORCHESTRATOR_PORT=9003 agentrunner up --data-dir /var/lib/agentrunner
  AGENTRUNNER_PROVIDER=scripted agentrunner up        answers from scripts, without any model")]
pub(crate) struct Up {}

impl Up {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<Exit> {
        serve_until_told(context, System::up(&context.settings))
    }
}
