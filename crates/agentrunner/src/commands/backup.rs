//! `backup`: all that the database and the folder of agents hold, in one file.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chrono::Utc;
use clap::{Args, Subcommand};
use serde_json::json;
use store::copying;

use crate::backup::{self, Checked, Keep, Place, Written};
use crate::cli::{Context, Exit, block_on};
use crate::telemetry;

/// Writes all that the database and the folder of agents hold into one file, while work goes on.
///
/// The file holds what agents were asked and said, so keep it as you keep the database. It holds no secret of the
/// settings, and of API keys only what the database has: hashes.
#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "\
Examples:
  agentrunner backup                                  into ./backups
  agentrunner backup --output /backups --keep-days 30 and delete those that are older
  agentrunner backup verify /backups/agentrunner-20261130T020000Z.tar.zst
  agentrunner restore /backups/agentrunner-20261130T020000Z.tar.zst --dry-run"
)]
pub(crate) struct Backup {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The folder
    #[arg(long, value_name = "DIR", default_value = "backups")]
    output: PathBuf,
    /// Keep the newest so many in the folder, and delete the others
    #[arg(long, value_name = "N", conflicts_with = "keep_days", value_parser = clap::value_parser!(u16).range(1..))]
    keep: Option<u16>,
    /// Delete those in the folder that are older than so many days
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=36_500))]
    keep_days: Option<u32>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Read a backup to its end and check everything in it
    Verify {
        /// The file
        file: PathBuf,
        /// The digest that `backup` printed for it
        #[arg(long, value_name = "HEX")]
        sha256: Option<String>,
    },
}

impl Backup {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        telemetry::start_quiet(context)?;
        match &self.verb {
            None => self.make(context),
            Some(Verb::Verify { file, sha256 }) => verify(context, file, sha256.as_deref()),
        }
    }

    fn make(&self, context: &Context) -> anyhow::Result<Exit> {
        let settings = &context.settings;
        let place = Place::of(settings);
        let files = backup::below(&settings.config_dir)
            .with_context(|| format!("{} can't be read", settings.config_dir.display()))?;
        let written = block_on(self.write(context, &place, files))?;
        let keep = match (self.keep, self.keep_days) {
            (Some(newest), _) => Keep::Newest(newest.into()),
            (None, Some(days)) => Keep::Days(days),
            (None, None) => Keep::All,
        };
        let gone = backup::forget_old(&self.output, keep, Utc::now())
            .context("the backup is made, and an older one can't be deleted")?;
        let gone: Vec<String> = gone.iter().map(|path| path.display().to_string()).collect();
        context.screen.value(&json!({
            "file": written.path.display().to_string(),
            "bytes": written.bytes,
            "sha256": written.sha256,
            "taken_at": written.head.layout.taken_at,
            "schema": written.head.layout.schema,
            "store": written.head.store,
            "tables": written.manifest.tables.len(),
            "rows": written.manifest.rows(),
            "files": written.manifest.files.len(),
            "deleted": gone,
        }));
        Ok(Exit::Done)
    }

    async fn write(
        &self,
        context: &Context,
        place: &Place,
        files: Vec<(String, Vec<u8>)>,
    ) -> anyhow::Result<Written> {
        let (pieces, coming) = copying::channel();
        let (folder, kind) = (self.output.clone(), place.kind());
        let progress = context.screen.spinner("reading the database");
        let shown = progress.clone();
        let writing = tokio::task::spawn_blocking(move || {
            backup::write(&folder, kind, &files, coming, |table, rows| {
                shown.set_message(format!("{rows} rows, {table}"));
            })
        });
        let (read, written) = tokio::join!(place.dump(pieces), writing);
        progress.finish_and_clear();
        let written = written.context("writing panicked; see the log")?;
        // Who was not heard to the end has a reason, and it is not that nobody listened.
        match (read, written) {
            (_, Ok(written)) => Ok(written),
            (Err(error), Err(_)) if !backup::is_unheard(&error) => Err(error),
            (_, Err(error)) => Err(error),
        }
    }
}

fn verify(context: &Context, file: &Path, sha256: Option<&str>) -> anyhow::Result<Exit> {
    let checked = Checked::new(&context.screen, file, sha256, &context.settings.config_dir)?;
    let mut about = checked.about();
    if let Some(fields) = about.as_object_mut() {
        fields.insert("file".to_owned(), file.display().to_string().into());
        fields.insert("state".to_owned(), "good".into());
    }
    context.screen.value(&about);
    Ok(Exit::Done)
}
