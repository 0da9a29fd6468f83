//! `migrate`: the version of the database, shown and changed.

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use store::{postgres, sqlite};

use crate::cli::{Context, Exit, block_on};
use crate::screen::Column;
use crate::settings::Settings;
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
        let rows = block_on(async {
            let mut schema = Schema::open(&context.settings).await?;
            match self.verb {
                Verb::Status => {}
                Verb::Up => say(context, "made", schema.up().await?),
                Verb::Down { n } => say(context, "undone", schema.down(usize::from(n)).await?),
            }
            schema.status().await
        })?;
        let columns = [
            Column::field("migration", "migration"),
            Column::field("applied", "applied"),
        ];
        context.screen.table(&rows, &columns);
        Ok(Exit::Done)
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

    /// Rows to show.
    async fn status(&mut self) -> anyhow::Result<Vec<Value>> {
        let row =
            |name: &str, is_applied: bool| json!({ "migration": name, "applied": is_applied });
        Ok(match self {
            Self::Sqlite(schema) => {
                let statuses = schema.status()?.into_iter();
                statuses.map(|one| row(one.name, one.is_applied)).collect()
            }
            Self::Postgres(schema) => {
                let statuses = schema.status().await?.into_iter();
                statuses.map(|one| row(&one.name, one.is_applied)).collect()
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
