//! The command line: what can be said, and which command it means.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::client::Unreachable;
use crate::commands;
use crate::commands::health::Health;
use crate::screen::Screen;
use crate::settings::{Mistakes, ProcessEnvironment, Settings, Source};

/// How a command ended; the numbers are part of the contract.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    WrongUse = 2,
    Unreachable = 3,
    Interrupted = 130,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit as u8)
    }
}

/// Runs LLM agents that survive crashes.
#[derive(Debug, Parser)]
#[command(name = "agentrunner", version, arg_required_else_help = false, after_help = EXAMPLES, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) globals: Globals,
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
}

const EXAMPLES: &str = "\
Examples:
  agentrunner init                        make a starter project here
  agentrunner up                          serve everything on this machine
  agentrunner run helper \"what is 6*7?\"   give an agent a task and see it work
  agentrunner tasks list                  what ran, runs and waits
  agentrunner doctor                      what is wrong, and what to type

Every setting is a variable too: see docs/settings.md. Exit codes: 0 done, 1 failed, 2 wrong use,
3 cannot reach the server, 130 interrupted.";

/// What every command understands.
#[derive(Debug, Default, Args)]
pub(crate) struct Globals {
    /// Print JSON instead of tables and text
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// The AgentOrchestrator to ask [default: http://127.0.0.1:8003]
    #[arg(long, global = true, value_name = "URL")]
    pub(crate) server: Option<String>,
    /// The key to show; others can see it in the list of processes, so AGENTRUNNER_API_KEY is better
    #[arg(long, global = true, value_name = "KEY", hide_env_values = true)]
    pub(crate) api_key: Option<String>,
    /// The folder of agents [default: ./config]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) config_dir: Option<PathBuf>,
    /// The folder of the embedded database [default: ./data]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The least important log lines to write
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<String>,
    /// How log lines are written: json or text
    #[arg(long, global = true, value_name = "FORMAT")]
    pub(crate) log_format: Option<String>,
}

impl Globals {
    /// As variables: the strongest layer of the settings.
    pub(crate) fn as_variables(&self) -> BTreeMap<String, String> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
        [
            ("AGENTRUNNER_SERVER", self.server.clone()),
            ("AGENTRUNNER_API_KEY", self.api_key.clone()),
            ("CONFIG_DIR", path(&self.config_dir)),
            ("DATA_DIR", path(&self.data_dir)),
            ("LOG_LEVEL", self.log_level.clone()),
            ("LOG_FORMAT", self.log_format.clone()),
        ]
        .into_iter()
        .filter_map(|(name, value)| Some((name.to_owned(), value?)))
        .collect()
    }
}

/// What can be done.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve everything in one process (the default)
    Up(commands::up::Up),
    /// Serve one part, on servers that all parts share
    Serve(commands::serve::Serve),
    /// Make a starter project
    Init(commands::init::Init),
    /// Give an agent a task, watch it work, print its answer
    Run(commands::run::Run),
    /// Talk with an agent, line by line
    Chat(commands::chat::Chat),
    /// List, disable, enable and restart the agents
    Agents(commands::agents::Agents),
    /// List, upload and roll back the configurations of agents
    Configs(commands::configs::Configs),
    /// List, show, cancel, retry and fork executions
    Tasks(commands::tasks::Tasks),
    /// What waits for a person: list and answer it
    Inbox(commands::inbox::Inbox),
    /// Events that were given up: list, replay and delete them
    DeadLetters(commands::dead_letters::DeadLetters),
    /// Callbacks: list them, and send one again
    Callbacks(commands::callbacks::Callbacks),
    /// What is wrong, by the rules of alerts.yml
    Alerts(commands::alerts::Alerts),
    /// List, show, make, pause and trigger schedules
    Schedules(commands::schedules::Schedules),
    /// Make, list and revoke keys of the API
    Keys(commands::keys::Keys),
    /// Check the audit log
    Audit(commands::audit::Audit),
    /// Write all that the database and the folder of agents hold into a file; check such a file
    Backup(commands::backup::Backup),
    /// Make a database of a backup
    Restore(commands::restore::Restore),
    /// Move from the embedded database to PostgreSQL, or back
    Transfer(commands::transfer::Transfer),
    /// Delete executions that were over long ago
    Cleanup(commands::cleanup::Cleanup),
    /// Offer the agents to assistants and editors, as an MCP server on standard input and output
    Mcp(commands::mcp::Mcp),
    /// Check agent files without running anything
    Validate(commands::validate::Validate),
    /// Ask each service whether it can work
    Health(Health),
    /// Find what is wrong, and say what to type
    Doctor(commands::doctor::Doctor),
    /// Show the lines of the log that belong to a trace or an execution
    Logs(commands::logs::Logs),
    /// Show and change the version of the database
    Migrate(commands::migrate::Migrate),
    /// Measure what this machine can do
    Bench(commands::bench::Bench),
    /// Print a completion script for a shell
    Completions(commands::completions::Completions),
    /// Print the manual page, or write one for each command
    Man(commands::man::Man),
    /// The stand-in model of the bench
    #[command(hide = true)]
    BenchProvider(commands::bench::Provider),
}

/// What a command is given.
pub(crate) struct Context {
    pub(crate) settings: Settings,
    pub(crate) screen: Screen,
}

/// Parses and performs a command line.
pub(crate) fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(refusal) => {
            // Help and version are "errors" too, of exit code 0. A closed pipe is no reason to complain.
            drop(refusal.print());
            return if refusal.use_stderr() {
                Exit::WrongUse
            } else {
                Exit::Done
            }
            .into();
        }
    };
    let screen = Screen::new(cli.globals.json, &ProcessEnvironment.all());
    perform(cli, &screen)
        .unwrap_or_else(|error| {
            screen.error(&error);
            exit_of(&error)
        })
        .into()
}

fn perform(cli: Cli, screen: &Screen) -> anyhow::Result<Exit> {
    let flags = cli.globals.as_variables();
    let command = cli.command.unwrap_or(Command::Up(commands::up::Up {}));
    // These work where the settings do not.
    match &command {
        Command::Completions(command) => return command.run(&mut Cli::command()),
        Command::Man(command) => return command.run(Cli::command()),
        Command::BenchProvider(command) => return command.run(),
        Command::Doctor(command) => return command.run_or_explain(&flags, screen),
        Command::Health(command) if command.own => return Health::run_own(&flags, screen),
        _ => {}
    }
    let settings = Settings::from_process(&flags)?;
    screen.mask(&settings.redactor);
    let context = Context {
        settings,
        screen: screen.clone(),
    };
    match command {
        Command::Up(command) => command.run(&context),
        Command::Serve(command) => command.run(&context),
        Command::Init(command) => command.run(&context),
        Command::Run(command) => command.run(&context),
        Command::Chat(command) => command.run(&context),
        Command::Agents(command) => command.run(&context),
        Command::Configs(command) => command.run(&context),
        Command::Tasks(command) => command.run(&context),
        Command::Inbox(command) => command.run(&context),
        Command::DeadLetters(command) => command.run(&context),
        Command::Callbacks(command) => command.run(&context),
        Command::Alerts(command) => command.run(&context),
        Command::Schedules(command) => command.run(&context),
        Command::Keys(command) => command.run(&context),
        Command::Audit(command) => command.run(&context),
        Command::Backup(command) => command.run(&context),
        Command::Restore(command) => command.run(&context),
        Command::Transfer(command) => command.run(&context),
        Command::Cleanup(command) => command.run(&context),
        Command::Mcp(command) => command.run(&context),
        Command::Validate(command) => command.run(&context),
        Command::Health(command) => command.run(&context),
        Command::Logs(command) => command.run(&context),
        Command::Migrate(command) => command.run(&context),
        Command::Bench(command) => command.run(&context),
        Command::Completions(_)
        | Command::Man(_)
        | Command::BenchProvider(_)
        | Command::Doctor(_) => Ok(Exit::Done),
    }
}

fn exit_of(error: &anyhow::Error) -> Exit {
    if error.is::<Mistakes>() {
        Exit::WrongUse
    } else if error.is::<Unreachable>() {
        Exit::Unreachable
    } else {
        Exit::Failed
    }
}

/// Runs the future of a command on a runtime as wide as the machine.
pub(crate) fn block_on<T>(future: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    let result = runtime.block_on(future);
    if result.is_err() {
        // The process ends now. A thread of a client library (lapin's has one for each connection that failed) may still
        // wait on the runtime's clock, and would panic into the error that the operator is to read.
        std::mem::forget(runtime);
        return result;
    }
    // A blocked thread (a file tool on a dead network disk) must not keep the process from ending.
    runtime.shutdown_timeout(std::time::Duration::from_millis(200));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn no_command_means_up() {
        assert!(parse("agentrunner").unwrap().command.is_none());
    }

    #[test]
    fn globals_go_before_and_after_the_command() {
        for line in [
            "agentrunner --json --data-dir d tasks list",
            "agentrunner tasks list --json --data-dir d",
        ] {
            let cli = parse(line).unwrap();
            assert!(cli.globals.json);
            assert_eq!(
                cli.globals.as_variables(),
                BTreeMap::from([("DATA_DIR".to_owned(), "d".to_owned())])
            );
        }
    }

    #[test]
    fn wrong_use_is_refused() {
        for line in [
            "agentrunner fly",
            "agentrunner serve",
            "agentrunner serve everything",
            "agentrunner run",
            "agentrunner run helper hi --file x",
            "agentrunner tasks show",
            "agentrunner tasks show not-a-uuid",
            "agentrunner tasks fork 0192f0c1-7e3a-7c3d-8e4f-5a6b7c8d9e0f",
            "agentrunner inbox approve 0192f0c1-7e3a-7c3d-8e4f-5a6b7c8d9e0f:x",
            "agentrunner inbox edit 0192f0c1-7e3a-7c3d-8e4f-5a6b7c8d9e0f not-json",
            "agentrunner inbox settle 0192f0c1-7e3a-7c3d-8e4f-5a6b7c8d9e0f",
            "agentrunner dead-letters replay",
            "agentrunner agents enable",
            "agentrunner configs upload",
            "agentrunner cleanup --older-than 0",
            "agentrunner backup --keep 0",
            "agentrunner backup --keep 3 --keep-days 3",
            "agentrunner backup verify",
            "agentrunner backup --output x verify f",
            "agentrunner restore",
            "agentrunner transfer",
            "agentrunner transfer --to mysql",
            "agentrunner logs",
            "agentrunner logs agentrunner.log",
            "agentrunner bench --executions none",
            "agentrunner health --self --server http://localhost:8003",
        ] {
            assert!(
                parse(line).is_err_and(|error| error.exit_code() == 2),
                "{line}"
            );
        }
    }
}
