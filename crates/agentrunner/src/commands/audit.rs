//! `audit`: what was done, and whether the audit log is as it was written.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use services::audit::{self, Flaw, Verdict};

use super::backend::Backend;
use super::tasks::time;
use crate::cli::{Context, Exit, block_on};
use crate::screen::Column;
use crate::telemetry;
use crate::wiring::{Purpose, database, open_store};

/// Shows and checks the audit log.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentrunner audit list --outcome denied          who was refused, newest first
  agentrunner audit list --who ops --action /keys  what one caller did with keys
  agentrunner audit verify                         the file of the settings with its rotated files, and the table
  agentrunner audit verify /backup/audit.log.3     these files alone; gunzip compressed ones first

Exit codes of verify: 0 nothing is wrong, 1 a line was changed, is missing or was moved, or can't be read.")]
pub(crate) struct Audit {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List what was done and refused, newest first
    List(List),
    /// Name lines that were changed, taken away or moved
    Verify {
        /// Files of one log [default: AUDIT_LOG_PATH and what was rotated beside it, and the table]
        files: Vec<PathBuf>,
    },
}

#[derive(Debug, Args)]
struct List {
    /// By whom: the name of a key or an agent
    #[arg(long)]
    who: Option<String>,
    /// A part of what was done, such as DELETE or /keys
    #[arg(long)]
    action: Option<String>,
    /// done, refused, denied or failed
    #[arg(long)]
    outcome: Option<String>,
    /// Of this trace
    #[arg(long)]
    trace: Option<String>,
    /// At this time (RFC 3339) or later
    #[arg(long)]
    since: Option<String>,
    /// Before this time (RFC 3339)
    #[arg(long)]
    until: Option<String>,
    /// How many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
}

impl Audit {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        telemetry::start_quiet(context)?;
        block_on(async {
            match &self.verb {
                Verb::List(list) => list.show(context).await,
                Verb::Verify { files } => verify(context, files).await,
            }
        })
    }
}

impl List {
    async fn show(&self, context: &Context) -> anyhow::Result<Exit> {
        let backend = Backend::find(context, Purpose::Read).await?;
        let given = [
            ("who", &self.who),
            ("action", &self.action),
            ("outcome", &self.outcome),
            ("trace_id", &self.trace),
            ("since", &self.since),
            ("until", &self.until),
        ];
        let given = given
            .into_iter()
            .filter_map(|(name, value)| Some((name, value.clone()?)));
        let mut query: Vec<_> = given.collect();
        query.push(("limit", self.limit.to_string()));
        let acts = backend.client.get_with("/audit", &query).await;
        backend.close().await;
        let columns = [
            Column::of("when", |act| time(act.get("at"))),
            Column::of("who", |act| {
                let part = |name| {
                    act.pointer(name)
                        .and_then(Value::as_str)
                        .unwrap_or_default()
                };
                match part("/who/name") {
                    "" => part("/who/kind").to_owned(),
                    name => name.to_owned(),
                }
            }),
            Column::field("from", "from"),
            Column::field("action", "action"),
            Column::field("target", "target"),
            Column::field("outcome", "outcome"),
            Column::field("trace", "trace_id"),
        ];
        let acts = acts?;
        let rows = acts.as_array().map_or(&[][..], Vec::as_slice);
        context.screen.table(rows, &columns);
        Ok(Exit::Done)
    }
}

async fn verify(context: &Context, named: &[PathBuf]) -> anyhow::Result<Exit> {
    let access = &context.settings.access;
    // Its end is known of the log itself alone.
    let own = Some(access.audit_log.as_path()).filter(|_| named.is_empty());
    let files = match own {
        Some(path) => audit::files_of(path)
            .with_context(|| format!("the folder of {} can't be read", path.display()))?,
        None => named.to_vec(),
    };
    let missing = || format!("there is no audit log at {}", access.audit_log.display());
    anyhow::ensure!(!files.is_empty(), missing());
    let lines = audit::verify(&files, access.audit_key.as_ref(), own)
        .context("a file of the audit log can't be read")?;
    let table = match own {
        Some(_) => table(context).await?,
        None => None,
    };
    let screen = &context.screen;
    let rows = table.as_ref().map(|(_, verdict)| verdict);
    let flaws: Vec<&Flaw> = [Some(&lines), rows]
        .into_iter()
        .flatten()
        .flat_map(|verdict| &verdict.flaws)
        .collect();
    for flaw in &flaws {
        screen.note(format_args!(
            "{}:{}: {}",
            flaw.file.display(),
            flaw.line,
            flaw.message
        ));
    }
    let is_whole = flaws.is_empty();
    let (first, last) = lines.span.unzip();
    screen.value(&json!({
        "whole": is_whole,
        "files": files.len(),
        "lines": lines.lines,
        "first": first,
        "last": last,
        "chains": table.as_ref().map(|(chains, _)| chains),
        "rows": rows.map(|verdict| verdict.lines),
        "flaws": flaws.len(),
    }));
    Ok(if is_whole { Exit::Done } else { Exit::Failed })
}

/// Checks the table, if there is a database.
async fn table(context: &Context) -> anyhow::Result<Option<(usize, Verdict)>> {
    let settings = &context.settings;
    if settings.servers.postgres.is_none() && !database(settings).exists() {
        return Ok(None);
    }
    let store = open_store(settings).await?;
    let verified = audit::verify_table(&*store, settings.access.audit_key.as_ref()).await;
    if let Err(error) = store.close().await {
        tracing::debug!(%error, "the database was not closed cleanly");
    }
    Ok(Some(
        verified.context("the table of the audit log can't be read")?,
    ))
}
