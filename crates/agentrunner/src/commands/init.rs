//! `init`: a starter project.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use domain::definition::Provider;
use serde_json::json;

use super::choose::{Choice, choose};
use super::starter;
use crate::cli::{Context, Exit, block_on};
use crate::screen::{Screen, Style};
use crate::telemetry;

/// Makes a starter project: agents, their scripts, settings, and the schema that lets an editor help.
///
/// Files that are there are kept, unless --force is given.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentrunner init
  agentrunner init my-agents
  OPENAI_API_KEY=sk-... agentrunner init my-agents")]
pub(crate) struct Init {
    /// Where
    #[arg(default_value = ".")]
    dir: PathBuf,
    /// Overwrite what is there
    #[arg(long)]
    force: bool,
}

/// What became of the files.
#[derive(Default)]
struct Written {
    new: Vec<String>,
    kept: Vec<String>,
}

impl Init {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        telemetry::start_quiet(context)?;
        let choice = block_on(async { Ok(choose(&context.settings).await) })?;
        let mut written = Written::default();
        for (name, text) in starter::FILES {
            self.write(name, text, &mut written)?;
        }
        let schema = serde_json::to_string_pretty(services::config::schema())?;
        self.write(
            "config/agent.schema.json",
            &format!("{schema}\n"),
            &mut written,
        )?;
        self.write(".gitignore", "/data\n/logs\n.env\n", &mut written)?;
        self.write(".env", &env_file(&choice), &mut written)?;
        self.report(&context.screen, &choice, &written);
        Ok(Exit::Done)
    }

    fn write(&self, name: &str, text: &str, written: &mut Written) -> anyhow::Result<()> {
        let path = self.dir.join(name);
        let create = || -> std::io::Result<bool> {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder)?;
            }
            let mut options = OpenOptions::new();
            options.write(true);
            if self.force {
                options.create(true).truncate(true);
            } else {
                options.create_new(true);
            }
            match private(&mut options, name).open(&path) {
                Ok(mut file) => file.write_all(text.as_bytes()).map(|()| true),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
                Err(error) => Err(error),
            }
        };
        let is_new = create().with_context(|| format!("{} can't be written", path.display()))?;
        if is_new {
            &mut written.new
        } else {
            &mut written.kept
        }
        .push(name.to_owned());
        Ok(())
    }

    fn report(&self, screen: &Screen, choice: &Choice, written: &Written) {
        if screen.json {
            return screen.value(&json!({
                "written": written.new, "kept": written.kept,
                "provider": choice.provider.as_str(), "model": choice.model, "why": choice.why,
            }));
        }
        for name in &written.new {
            screen.note(format_args!("{} {name}", screen.paint(Style::Good, "+")));
        }
        for name in &written.kept {
            screen.note(format_args!(
                "{} {name} is there and kept",
                screen.paint(Style::Faint, "=")
            ));
        }
        let provider = choice.provider.as_str();
        screen.note(format_args!(
            "\nprovider: {} ({})",
            screen.paint(Style::Strong, provider),
            choice.why
        ));
        if written.kept.iter().any(|name| name == ".env") {
            screen.note("  .env was kept: what it says is what counts");
        }
        if choice.provider == Provider::Scripted {
            screen.note("  answers will come from scripts, not from a model");
        }
        screen.note("  to change it, edit AGENTRUNNER_PROVIDER and AGENTRUNNER_MODEL in .env");
        let go = match self.dir.as_path() {
            here if here == Path::new(".") => String::new(),
            dir => format!("cd {} && ", dir.display()),
        };
        screen.note(format_args!(
            "\nnext: {go}agentrunner run {}",
            starter::FIRST_TASK
        ));
    }
}

/// What may hold keys is for its owner alone.
#[cfg(unix)]
fn private<'a>(options: &'a mut OpenOptions, name: &str) -> &'a mut OpenOptions {
    use std::os::unix::fs::OpenOptionsExt;
    if name == ".env" {
        options.mode(0o600)
    } else {
        options
    }
}

#[cfg(not(unix))]
fn private<'a>(options: &'a mut OpenOptions, _name: &str) -> &'a mut OpenOptions {
    options
}

fn env_file(choice: &Choice) -> String {
    let provider = choice.provider.as_str();
    let model = match &choice.model {
        Some(model) => format!("AGENTRUNNER_MODEL={model}"),
        None => "#AGENTRUNNER_MODEL=gpt-5-mini".to_owned(),
    };
    format!(
        "\
# Settings of AgentRunner; docs/settings.md lists all. What the environment says is stronger.

# Every agent asks this provider, whatever its file says: openai, anthropic, ollama or scripted.
# Remove both lines to let each agent ask its own. Chosen by `agentrunner init` because
# {why}.
AGENTRUNNER_PROVIDER={provider}
{model}

# Keys. Kept out of version control by .gitignore; OPENAI_API_KEY_FILE names a file instead.
#OPENAI_API_KEY=
#ANTHROPIC_API_KEY=
#OLLAMA_BASE_URL=http://127.0.0.1:11434

#DATA_DIR=./data
#CONFIG_DIR=./config
#ORCHESTRATOR_PORT=8003
#LOG_LEVEL=INFO
",
        why = choice.why
    )
}
