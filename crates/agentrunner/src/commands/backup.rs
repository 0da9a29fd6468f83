//! `backup`: all that the database and the folder of agents hold, in one file.

use std::path::Path;

use anyhow::Context as _;
use chrono::Utc;
use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{Args, Subcommand, ValueHint};
use serde_json::json;
use store::copying::{self, Coming};

use crate::backup::{
    self, Address, Bucket, Checked, Keep, Location, Opened, Place, Source, Written,
};
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
  agentrunner backup --output s3://acme-backups/agentrunner --keep-days 30
  agentrunner backup verify /backups/agentrunner-20261130T020000Z.tar.zst
  agentrunner restore /backups/agentrunner-20261130T020000Z.tar.zst --dry-run"
)]
pub(crate) struct Backup {
    #[command(subcommand)]
    verb: Option<Verb>,
    /// The folder, or s3://BUCKET/PREFIX
    #[arg(long, value_name = "DIR", default_value = "backups", value_parser = location(), value_hint = ValueHint::DirPath)]
    output: Location,
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
        /// The file, or its s3:// address
        #[arg(value_parser = location(), value_hint = ValueHint::FilePath)]
        file: Location,
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
        let files = backup::below(&settings.config_dir)
            .with_context(|| format!("{} can't be read", settings.config_dir.display()))?;
        let keep = match (self.keep, self.keep_days) {
            (Some(newest), _) => Keep::Newest(newest.into()),
            (None, Some(days)) => Keep::Days(days),
            (None, None) => Keep::All,
        };
        let made = match &self.output {
            Location::Here(folder) => block_on(in_folder(context, folder, files, keep)),
            Location::S3(address) => block_on(in_bucket(context, address, files, keep)),
        };
        let made = match made {
            Err(error) if backup::is_stopped(&error) => {
                context.screen.note(format_args!("{error:#}"));
                return Ok(Exit::Interrupted);
            }
            made => made?,
        };
        let written = made.written;
        context.screen.value(&json!({
            "file": made.place,
            "bytes": written.bytes,
            "sha256": written.sha256,
            "taken_at": written.head.layout.taken_at,
            "schema": written.head.layout.schema,
            "store": written.head.store,
            "tables": written.manifest.tables.len(),
            "rows": written.manifest.rows(),
            "files": written.manifest.files.len(),
            "deleted": made.deleted,
        }));
        Ok(Exit::Done)
    }
}

/// Reads where a backup is.
pub(super) fn location() -> impl TypedValueParser<Value = Location> {
    OsStringValueParser::new().try_map(Location::parse)
}

/// A backup that is where it belongs.
struct Made {
    written: Written,
    place: String,
    /// The older ones that were deleted.
    deleted: Vec<String>,
}

type Files = Vec<(String, Vec<u8>)>;
const OLDER: &str = "the backup is made, and an older one can't be deleted";

async fn in_folder(
    context: &Context,
    folder: &Path,
    files: Files,
    keep: Keep,
) -> anyhow::Result<Made> {
    let into = folder.to_owned();
    let pen = move |source: &Source, coming, told: Told| backup::write(&into, source, coming, told);
    let written = dump(context, files, pen).await?;
    let gone = backup::forget_old(folder, keep, Utc::now()).context(OLDER)?;
    Ok(Made {
        place: folder.join(&written.name).display().to_string(),
        written,
        deleted: gone.iter().map(|path| path.display().to_string()).collect(),
    })
}

async fn in_bucket(
    context: &Context,
    address: &Address,
    files: Files,
    keep: Keep,
) -> anyhow::Result<Made> {
    let bucket = Bucket::open(&context.settings, address).await?;
    // Nobody wants to hear of a wrong key when the whole database was read for nothing.
    bucket.check(keep).await?;
    let aside = context.settings.data_dir.clone();
    let pen = move |source: &Source, coming, told: Told| {
        backup::write_aside(&aside, source, coming, told)
    };
    let (file, written) = dump(context, files, pen).await?;
    let progress = context.screen.progress("sending", written.bytes);
    let put = bucket
        .put(&written.name, file, written.bytes, &|bytes| {
            progress.inc(bytes)
        })
        .await;
    progress.finish_and_clear();
    let place = put?.to_string();
    let gone = bucket.forget_old(keep, Utc::now()).await.context(OLDER)?;
    Ok(Made {
        written,
        place,
        deleted: gone.iter().map(ToString::to_string).collect(),
    })
}

/// Hears the table and the count of rows.
type Told = Box<dyn FnMut(&str, u64) + Send>;

/// Reads the database while `pen` writes it down.
async fn dump<T: Send + 'static>(
    context: &Context,
    files: Files,
    pen: impl FnOnce(&Source, Coming, Told) -> anyhow::Result<T> + Send + 'static,
) -> anyhow::Result<T> {
    let place = Place::of(&context.settings);
    let source = Source {
        store: place.kind(),
        files,
    };
    let (pieces, coming) = copying::channel();
    let progress = context.screen.spinner("reading the database");
    let shown = progress.clone();
    let told = Box::new(move |table: &str, rows: u64| {
        shown.set_message(format!("{rows} rows, {table}"));
    });
    let writing = tokio::task::spawn_blocking(move || pen(&source, coming, told));
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

fn verify(context: &Context, file: &Location, sha256: Option<&str>) -> anyhow::Result<Exit> {
    let settings = &context.settings;
    let opened = opened(context, file)?;
    let checked = Checked::new(&context.screen, opened, sha256, &settings.config_dir)?;
    let mut about = checked.about();
    if let Some(fields) = about.as_object_mut() {
        fields.insert("file".to_owned(), file.to_string().into());
        fields.insert("state".to_owned(), "good".into());
    }
    context.screen.value(&about);
    Ok(Exit::Done)
}

/// Opens a backup where it is, or fetches it first.
///
/// # Errors
/// It can't be read or fetched, is no backup, or is damaged.
pub(super) fn opened(context: &Context, file: &Location) -> anyhow::Result<Opened> {
    let address = match file {
        Location::Here(path) => return Opened::open(path),
        Location::S3(address) => address,
    };
    let settings = &context.settings;
    let fetched = block_on(async {
        let bucket = Bucket::open(settings, address).await?;
        let aside = backup::aside(&settings.data_dir)?;
        let progress = context.screen.progress("fetching", 0);
        let fetched = bucket
            .fetch(aside, &|bytes, all| {
                progress.set_length(all);
                progress.set_position(bytes);
            })
            .await;
        progress.finish_and_clear();
        fetched
    })?;
    Opened::of(fetched, address.to_string())
}
