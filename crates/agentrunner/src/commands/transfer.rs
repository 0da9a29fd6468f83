//! `transfer`: from the embedded store to PostgreSQL, and back.

use anyhow::{Context as _, ensure};
use chrono::Utc;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use store::copying::{self, Coming, Piece, Pieces, Wish, newest_schema};

use crate::backup::{self, Place, Sums, TableSum};
use crate::cli::{Context, Exit, block_on};
use crate::screen::Column;
use crate::telemetry;

/// Moves all that the embedded database holds to PostgreSQL, or back; then reads both and compares them.
///
/// Stop AgentRunner first. The database that it comes from stays as it is.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  DATABASE_URL=postgres://agentrunner@db/agentrunner agentrunner transfer --to postgres
  DATABASE_URL=postgres://agentrunner@db/agentrunner agentrunner transfer --to sqlite --data-dir ./data")]
pub(crate) struct Transfer {
    /// Where to
    #[arg(long, value_enum)]
    to: Kind,
    /// Replace all that the database holds, which has this name
    #[arg(long, value_name = "NAME")]
    over: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    Postgres,
    Sqlite,
}

impl Transfer {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        telemetry::start_quiet(context)?;
        let settings = &context.settings;
        let server = Place::server(settings).context(
            "it is not said which PostgreSQL server is meant; set DATABASE_URL or POSTGRES_HOST",
        )?;
        let file = Place::file(settings);
        let (from, to) = match self.to {
            Kind::Postgres => (file, server),
            Kind::Sqlite => (server, file),
        };
        let tables = block_on(self.perform(context, &from, &to))?;
        let rows: Vec<Value> = tables.iter().map(row).collect();
        let columns = [
            Column::field("table", "table"),
            Column::field("rows", "rows"),
            Column::field("sha256", "sha256"),
        ];
        context.screen.table(&rows, &columns);
        context
            .screen
            .note("both databases hold the same; the one that it came from is as it was");
        Ok(Exit::Done)
    }

    async fn perform(
        &self,
        context: &Context,
        from: &Place,
        to: &Place,
    ) -> anyhow::Result<Vec<TableSum>> {
        let alive = from.target().await?.alive;
        ensure!(
            alive.is_empty(),
            "processes work with the database that it would come from ({}); stop them first",
            alive.join(", ")
        );
        to.target().await?.check(self.over.as_deref())?;
        let progress = context.screen.spinner("moving the rows");
        let moved = self.carry(from, to).await?;
        progress.set_message("comparing");
        let (pieces, coming) = copying::channel();
        let (read, found) = tokio::join!(to.dump(pieces), sum(coming, None));
        read?;
        let found = found?;
        progress.finish_and_clear();
        for (moved, found) in moved.iter().zip(&found) {
            ensure!(
                moved == found,
                "{} is not the same in both: {} rows came, {} are there; do not use the new database",
                moved.table,
                moved.rows,
                found.rows
            );
        }
        ensure!(
            moved.len() == found.len(),
            "the databases have not the same tables"
        );
        Ok(found)
    }

    /// From one to the other; answers what passed by.
    async fn carry(&self, from: &Place, to: &Place) -> anyhow::Result<Vec<TableSum>> {
        let wish = Wish {
            restored: None,
            source: from.kind().to_owned(),
            over: self.over.clone(),
            now: Utc::now(),
        };
        let (taken, passing) = copying::channel();
        let (passed, coming) = copying::channel();
        let (read, summed, loaded) = tokio::join!(
            from.dump(taken),
            sum(passing, Some(passed)),
            to.load(coming, wish)
        );
        // Each of the others fails, too, when one does.
        let is_cause = |error: &anyhow::Error| !backup::is_unheard(error);
        if let Err(error) = read
            && is_cause(&error)
        {
            return Err(error);
        }
        match summed {
            Err(error) if is_cause(&error) => return Err(error),
            _ => loaded?,
        }
        summed
    }
}

/// Sums up what passes by, and passes it on when it is to go on.
async fn sum(mut coming: Coming, on: Option<Pieces>) -> anyhow::Result<Vec<TableSum>> {
    let mut sums = None;
    while let Some(piece) = coming.recv().await {
        match &piece {
            Piece::Begin(layout) => {
                ensure!(
                    layout.schema == newest_schema(),
                    "the database has schema version {}, and this program {}; type `agentrunner migrate up` first",
                    layout.schema,
                    newest_schema()
                );
                sums = Some(Sums::new(layout));
            }
            Piece::Rows {
                table,
                count,
                lines,
            } => {
                if let Some(sums) = &mut sums {
                    sums.add(*table, *count, lines);
                }
            }
            Piece::End => {
                if let Some(on) = &on {
                    on.send(piece).await.map_err(|_| backup::unheard())?;
                }
                return Ok(sums.map(Sums::finish).unwrap_or_default());
            }
        }
        if let Some(on) = &on {
            on.send(piece).await.map_err(|_| backup::unheard())?;
        }
    }
    Err(backup::unheard())
}

fn row(table: &TableSum) -> Value {
    json!({ "table": table.table, "rows": table.rows, "bytes": table.bytes, "sha256": table.sha256 })
}
