//! `completions`: a script that teaches a shell this command line.

use clap::Args;
use clap_complete::Shell;

use crate::cli::Exit;

/// Prints a completion script for a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentrunner completions bash > ~/.local/share/bash-completion/completions/agentrunner
  agentrunner completions zsh > ~/.zfunc/_agentrunner
  agentrunner completions fish > ~/.config/fish/completions/agentrunner.fish")]
pub(crate) struct Completions {
    /// Which shell
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(&self, command: &mut clap::Command) -> anyhow::Result<Exit> {
        clap_complete::generate(self.shell, command, "agentrunner", &mut std::io::stdout());
        Ok(Exit::Done)
    }
}
