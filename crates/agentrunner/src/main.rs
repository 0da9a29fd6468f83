//! AgentRunner: agents that survive crashes, in one binary. This file hands the command line to [`cli`]; the rooms
//! behind it are `commands/` (one file per command), `settings` (every variable), `wiring` (what is built of what),
//! `client` (asking a server), `secrets` (those that are kept elsewhere), `backup` (the file of one) and `bench/` (measuring).

mod backup;
mod bench;
mod cli;
mod client;
mod commands;
#[cfg(debug_assertions)]
mod hold;
mod port_holder;
mod screen;
mod secrets;
mod settings;
#[cfg(debug_assertions)]
mod skew;
mod systemd;
mod telemetry;
mod transcript;
mod wiring;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main(std::env::args_os())
}
