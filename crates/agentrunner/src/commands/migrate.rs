//! `migrate`: the version of the database, shown and changed, with what somebody should know before.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use chrono::Utc;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use store::preflight::{Preflight, TableSize};
use store::{postgres, sqlite};

use crate::cli::{Context, Exit, block_on};
use crate::screen::Column;
use crate::settings::Settings;
use crate::telemetry;
use crate::wiring;

/// How much of a table a migration goes through in a second, in bytes: what a plain disk does.
const PACE: u64 = 64 << 20;

/// Shows and changes the version of the database.
///
/// Before a change it tells who works with the database, which open transactions would hold the change up, how large the largest
/// tables are, how long it may take, and what going back loses.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentrunner migrate status
  agentrunner migrate up --dry-run         what would be done, and how long it may take
  agentrunner migrate up
  agentrunner migrate down 1 --dry-run     what would be lost
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
    Up {
        /// Only tell what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Undo the last ones, with the data that only they have a place for
    Down {
        /// How many
        #[arg(value_parser = clap::value_parser!(u16).range(1..))]
        n: u16,
        /// Only tell what would be lost
        #[arg(long)]
        dry_run: bool,
        /// Also while workers are alive, which may need what is taken away
        #[arg(long)]
        force: bool,
    },
}

impl Migrate {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        telemetry::start_quiet(context)?;
        let rows = block_on(async {
            let mut schema = Schema::open(&context.settings).await?;
            match self.verb {
                Verb::Status => {}
                Verb::Up { dry_run } => up(context, &mut schema, dry_run).await?,
                Verb::Down { n, dry_run, force } => {
                    down(context, &mut schema, usize::from(n), dry_run, force).await?;
                }
            }
            let statuses = schema.status().await?;
            Ok(statuses.iter().map(Migration::row).collect::<Vec<_>>())
        })?;
        let columns = [
            Column::field("migration", "migration"),
            Column::field("applied", "applied"),
            Column::field("going back loses", "loses"),
        ];
        context.screen.table(&rows, &columns);
        Ok(Exit::Done)
    }
}

async fn up(context: &Context, schema: &mut Schema, dry_run: bool) -> anyhow::Result<()> {
    let missing: Vec<Migration> = schema.status().await?;
    let missing: Vec<&Migration> = missing.iter().filter(|one| !one.is_applied).collect();
    if missing.is_empty() {
        say(context, "made", 0);
        return Ok(());
    }
    let found = schema.preflight().await?;
    tell(context, &found);
    let touched = missing.iter().flat_map(|one| &one.touches);
    let about = estimate(&found.tables, touched);
    let names: Vec<&str> = missing.iter().map(|one| one.name.as_str()).collect();
    context.screen.note(format_args!(
        "to be made: {}; this may take {} s",
        names.join(", "),
        about.as_secs().max(1)
    ));
    if !dry_run {
        say(context, "made", schema.up().await?);
    }
    Ok(())
}

async fn down(
    context: &Context,
    schema: &mut Schema,
    n: usize,
    dry_run: bool,
    force: bool,
) -> anyhow::Result<()> {
    let statuses = schema.status().await?;
    let last = statuses.iter().rev().filter(|one| one.is_applied).take(n);
    let found = schema.preflight().await?;
    tell(context, &found);
    for one in last {
        let loses = if one.loses.is_empty() {
            "nothing".to_owned()
        } else {
            format!("{}, with all that is in it", one.loses.join(", "))
        };
        context
            .screen
            .note(format_args!("{} loses {loses}", one.name));
    }
    if dry_run {
        return Ok(());
    }
    ensure!(
        force || found.alive.is_empty(),
        "workers are alive ({}), and may need what is taken away; stop them, or say --force. Nothing was changed",
        found.alive.join(", ")
    );
    say(context, "undone", schema.down(n).await?);
    Ok(())
}

fn tell(context: &Context, found: &Preflight) {
    let screen = &context.screen;
    if !found.alive.is_empty() {
        screen.note(format_args!(
            "workers that are alive: {}",
            found.alive.join(", ")
        ));
    }
    if !found.sessions.is_empty() {
        screen.note(format_args!("connected: {}", found.sessions.join(", ")));
    }
    for blocker in &found.blockers {
        screen.note(format_args!("a change would wait: {blocker}"));
    }
    let sizes = found
        .tables
        .iter()
        .filter(|table| table.rows > 0)
        .map(|table| {
            let mib = table.bytes.map(|bytes| format!(", {} MiB", bytes >> 20));
            format!(
                "{} {} rows{}",
                table.name,
                table.rows,
                mib.unwrap_or_default()
            )
        });
    let sizes: Vec<String> = sizes.collect();
    if !sizes.is_empty() {
        screen.note(format_args!("the largest tables: {}", sizes.join("; ")));
    }
}

/// How long it takes to go through these tables once each, by their sizes; for a file, by rows of a kibibyte.
fn estimate<'a>(sizes: &[TableSize], touched: impl Iterator<Item = &'a String>) -> Duration {
    let bytes: u64 = touched
        .filter_map(|name| sizes.iter().find(|table| table.name == *name))
        .map(|table| table.bytes.unwrap_or(table.rows << 10))
        .sum();
    Duration::from_secs(bytes / PACE)
}

/// A migration, of whichever store.
struct Migration {
    name: String,
    is_applied: bool,
    loses: Vec<String>,
    touches: Vec<String>,
}

impl Migration {
    /// A row to show.
    fn row(&self) -> Value {
        json!({ "migration": self.name, "applied": self.is_applied, "loses": self.loses })
    }
}

/// The schema of the database that the settings name.
enum Schema {
    Sqlite(sqlite::Schema),
    Postgres(postgres::Schema),
}

impl Schema {
    async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let servers = &settings.servers;
        if let Some(server) = &servers.postgres {
            let schema = postgres::Schema::connect(server).await;
            let place = &servers.postgres_place;
            let schema = schema.with_context(|| format!("PostgreSQL at {place} can't be used"))?;
            return Ok(Self::Postgres(schema));
        }
        let path = wiring::database(settings);
        let schema = sqlite::Schema::open(&path)
            .with_context(|| format!("the database {} can't be used", path.display()))?;
        Ok(Self::Sqlite(schema))
    }

    async fn up(&mut self) -> store::Result<usize> {
        match self {
            Self::Sqlite(schema) => schema.up(),
            Self::Postgres(schema) => schema.up().await,
        }
    }

    async fn down(&mut self, n: usize) -> store::Result<usize> {
        match self {
            Self::Sqlite(schema) => schema.down(n),
            Self::Postgres(schema) => schema.down(n).await,
        }
    }

    async fn preflight(&mut self) -> store::Result<Preflight> {
        match self {
            Self::Sqlite(schema) => schema.preflight(Utc::now()),
            Self::Postgres(schema) => schema.preflight().await,
        }
    }

    async fn status(&mut self) -> store::Result<Vec<Migration>> {
        Ok(match self {
            Self::Sqlite(schema) => {
                let statuses = schema.status()?.into_iter();
                let all = statuses.map(|one| Migration {
                    name: one.name.to_owned(),
                    is_applied: one.is_applied,
                    loses: one.loses,
                    touches: one.touches,
                });
                all.collect()
            }
            Self::Postgres(schema) => {
                let statuses = schema.status().await?.into_iter();
                let all = statuses.map(|one| Migration {
                    name: one.name,
                    is_applied: one.is_applied,
                    loses: one.loses,
                    touches: one.touches,
                });
                all.collect()
            }
        })
    }
}

fn say(context: &Context, what: &str, count: usize) {
    let plural = if count == 1 { "" } else { "s" };
    context
        .screen
        .note(format_args!("{count} migration{plural} {what}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_estimate_grows_with_what_is_gone_through() {
        let table = |name: &str, rows, bytes| TableSize {
            name: name.to_owned(),
            rows,
            bytes,
        };
        let sizes = [
            table("steps", 10, Some(640 << 20)),
            table("inputs", 1 << 17, None),
            table("outbox", 5, Some(1 << 30)),
        ];
        let touched = ["steps", "inputs", "unknown"].map(str::to_owned);
        assert_eq!(estimate(&sizes, touched.iter()), Duration::from_secs(12));
    }
}
