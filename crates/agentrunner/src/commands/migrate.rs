//! `migrate`: the version of the database, shown and changed.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use store::sqlite::Schema;

use crate::cli::{Context, Exit};
use crate::screen::Column;
use crate::telemetry;
use crate::wiring;

/// Shows and changes the version of the database.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentrunner migrate status
  agentrunner migrate up
  agentrunner migrate down 1")]
pub(crate) struct Migrate {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show which migrations the database has
    Status,
    /// Make those that are missing
    Up,
    /// Undo the last ones, with the data that only they have a place for
    Down {
        /// How many
        #[arg(value_parser = clap::value_parser!(u16).range(1..))]
        n: u16,
    },
}

impl Migrate {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        telemetry::start_quiet(context)?;
        let path = wiring::database(&context.settings);
        let mut schema = Schema::open(&path)
            .with_context(|| format!("the database {} can't be used", path.display()))?;
        match self.verb {
            Verb::Status => {}
            Verb::Up => say(context, "made", schema.up()?),
            Verb::Down { n } => say(context, "undone", schema.down(usize::from(n))?),
        }
        let rows: Vec<Value> = schema
            .status()?
            .into_iter()
            .map(|status| json!({ "migration": status.name, "applied": status.is_applied }))
            .collect();
        let columns = [
            Column::field("migration", "migration"),
            Column::field("applied", "applied"),
        ];
        context.screen.table(&rows, &columns);
        Ok(Exit::Done)
    }
}

fn say(context: &Context, what: &str, count: usize) {
    let plural = if count == 1 { "" } else { "s" };
    context
        .screen
        .note(format_args!("{count} migration{plural} {what}"));
}
