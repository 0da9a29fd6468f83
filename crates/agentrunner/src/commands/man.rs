//! `man`: manual pages.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use clap_mangen::Man as Page;

use crate::cli::Exit;

/// Prints the manual page, or writes one for each command into a folder.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentrunner man | man -l -
  agentrunner man /usr/local/share/man/man1")]
pub(crate) struct Man {
    /// The folder; it is made when it is missing
    #[arg(value_name = "DIR")]
    folder: Option<PathBuf>,
}

impl Man {
    pub(crate) fn run(&self, command: clap::Command) -> anyhow::Result<Exit> {
        match &self.folder {
            Some(folder) => {
                let write = || {
                    std::fs::create_dir_all(folder)?;
                    clap_mangen::generate_to(command, folder)
                };
                write().with_context(|| format!("{} can't be written", folder.display()))?;
            }
            None => Page::new(command).render(&mut std::io::stdout())?,
        }
        Ok(Exit::Done)
    }
}
