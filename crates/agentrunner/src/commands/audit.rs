//! `audit`: whether the audit log is as it was written.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::{Args, Subcommand};
use serde_json::json;
use services::audit;

use crate::cli::{Context, Exit};

/// Checks the audit log.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentrunner audit verify                         the log of the settings, with its rotated files
  agentrunner audit verify /backup/audit.log.3     these files; gunzip compressed ones first

Exit codes: 0 nothing is wrong, 1 a line was changed, is missing or was moved, or a file can't be read.")]
pub(crate) struct Audit {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Name lines that were changed, taken away or moved
    Verify {
        /// Files of one log [default: AUDIT_LOG_PATH and what was rotated beside it]
        files: Vec<PathBuf>,
    },
}

impl Audit {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        let Verb::Verify { files } = &self.verb;
        let access = &context.settings.access;
        // Its end is known of the log itself alone.
        let own = Some(access.audit_log.as_path()).filter(|_| files.is_empty());
        let files = match own {
            Some(path) => audit::files_of(path)
                .with_context(|| format!("the folder of {} can't be read", path.display()))?,
            None => files.clone(),
        };
        let missing = || format!("there is no audit log at {}", access.audit_log.display());
        anyhow::ensure!(!files.is_empty(), missing());
        let verdict = audit::verify(&files, access.audit_key.as_ref(), own)
            .context("a file of the audit log can't be read")?;
        let screen = &context.screen;
        for flaw in &verdict.flaws {
            screen.note(format_args!(
                "{}:{}: {}",
                flaw.file.display(),
                flaw.line,
                flaw.message
            ));
        }
        let is_whole = verdict.flaws.is_empty();
        let (first, last) = verdict.span.unzip();
        screen.value(&json!({
            "whole": is_whole,
            "files": files.len(),
            "lines": verdict.lines,
            "first": first,
            "last": last,
            "flaws": verdict.flaws.len(),
        }));
        Ok(if is_whole { Exit::Done } else { Exit::Failed })
    }
}
