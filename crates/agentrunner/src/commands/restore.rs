//! `restore`: makes a database of a backup.

use anyhow::Context as _;
use chrono::Utc;
use clap::{Args, ValueHint};
use domain::Restored;
use serde_json::json;
use store::copying::{self, Piece, Pieces, Wish};

use super::backup::{location, opened};
use crate::backup::{self, Checked, Item, Location, Opened, Place};
use crate::cli::{Context, Exit, block_on};
use crate::screen::Column;
use crate::telemetry;

/// Makes the database that the settings name out of a backup, of whichever kind either is.
///
/// The whole file is checked before the first change, and the database becomes what it holds at once or not at all. What was
/// under way goes on from the moment of the backup. What it did after that is forgotten; so before such work makes an unsafe
/// call, a person is asked whether that call was made already.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentrunner restore FILE --dry-run            check it, and tell how work will go on
  agentrunner restore FILE                      into a database that is empty or not there
  agentrunner restore FILE --over agentrunner   replace all that the database of that name holds
  agentrunner restore FILE --sha256 HEX         only if it is the file for which backup printed that

The database of the embedded store is its file: --over agentrunner.db. Files of agents that are missing are written; those
that are there stay as they are.")]
pub(crate) struct Restore {
    /// The file, or its s3:// address
    #[arg(value_parser = location(), value_hint = ValueHint::FilePath)]
    file: Location,
    /// Check everything and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Replace all that the database holds, which has this name
    #[arg(long, value_name = "NAME")]
    over: Option<String>,
    /// The digest that `backup` printed for the file
    #[arg(long, value_name = "HEX")]
    sha256: Option<String>,
}

impl Restore {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        telemetry::start_quiet(context)?;
        let settings = &context.settings;
        let sum = self.sha256.as_deref();
        let opened = opened(context, &self.file)?;
        let checked = Checked::new(&context.screen, opened, sum, &settings.config_dir)?;
        let now = Utc::now();
        let how = checked.how_it_goes_on(now);
        let place = Place::of(settings);
        let target = block_on(place.target())?;
        let may_be = target.check(self.over.as_deref());
        if self.dry_run {
            // How it would go on is of interest, too, where it would be refused.
            self.tell(context, &checked.files, &how);
            may_be?;
            return Ok(Exit::Done);
        }
        may_be?;
        checked
            .files
            .write()
            .with_context(|| format!("{} can't be written", settings.config_dir.display()))?;
        block_on(self.load(context, &place, checked.opened, &checked.head))?;
        self.tell(context, &checked.files, &how);
        Ok(Exit::Done)
    }

    async fn load(
        &self,
        context: &Context,
        place: &Place,
        mut opened: Opened,
        head: &backup::Head,
    ) -> anyhow::Result<()> {
        let now = Utc::now();
        let wish = Wish {
            restored: Some(Restored {
                at: now,
                backup: head.layout.taken_at,
            }),
            source: self.file.file_name(),
            over: self.over.clone(),
            now,
        };
        let (pieces, coming) = copying::channel();
        let progress = context.screen.progress("restoring", opened.length());
        let shown = progress.clone();
        let reading = tokio::task::spawn_blocking(move || {
            send(&mut opened, &pieces, |bytes| shown.set_position(bytes))
        });
        let (loaded, read) = tokio::join!(place.load(coming, wish), reading);
        progress.finish_and_clear();
        // It was read to its end before; when it can't be now, that is the reason why not all came.
        match read.context("reading panicked; see the log")? {
            Err(error) if !backup::is_unheard(&error) => Err(error),
            Ok(()) | Err(_) => loaded,
        }
    }

    fn tell(&self, context: &Context, files: &backup::Files, how: &[serde_json::Value]) {
        let screen = &context.screen;
        if screen.wants_json() {
            let differing = &files.differing;
            return screen.value(&json!({
                "dry_run": self.dry_run,
                "goes_on": how,
                "files": { "written": files.missing(), "as_they_were": files.same, "differ_and_stay": differing },
            }));
        }
        let columns = [
            Column::field("what", "what"),
            Column::field("count", "count"),
            Column::field("then", "then"),
        ];
        screen.table(how, &columns);
        for path in &files.differing {
            screen.note(format_args!(
                "{path} is another one in the backup; the one that is here stays"
            ));
        }
        screen.note(if self.dry_run {
            "nothing was changed"
        } else {
            "restored; start AgentRunner, and look at `agentrunner inbox list`"
        });
    }
}

/// Reads the file again, into the database: its end is sent when all of it is as it was found to be.
fn send(opened: &mut Opened, pieces: &Pieces, told: impl FnMut(u64)) -> anyhow::Result<()> {
    let pass = |piece: Piece| {
        let sent = pieces.blocking_send(piece);
        sent.map_err(|_| backup::unheard())
    };
    opened.read(told, &mut |item| match item {
        Item::Head(head) => pass(Piece::Begin(head.layout.clone())),
        Item::File(..) => Ok(()),
        Item::Rows(table, lines) => pass(Piece::Rows {
            table,
            count: lines.iter().filter(|byte| **byte == b'\n').count() as u64,
            lines,
        }),
    })?;
    pass(Piece::End)
}
