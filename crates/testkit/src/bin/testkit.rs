//! The stand-ins as processes of their own, which survive the kill of the product.
#![allow(clippy::expect_used, clippy::print_stdout, reason = "a tool for tests")]

use std::path::PathBuf;
use std::process::ExitCode;

use agentrunner_testkit::provider::{Answer, Script};
use agentrunner_testkit::{EffectsStandIn, ProviderStandIn};
use clap::Parser;

/// Runs a stand-in until it is killed. Prints `listening on http://127.0.0.1:PORT` when it is ready.
#[derive(Parser)]
#[command(name = "testkit")]
enum Command {
    /// A model provider: OpenAI, Anthropic, Ollama and AWS Bedrock on one port.
    Provider {
        /// The port on 127.0.0.1; 0 takes a free one.
        #[arg(long, default_value_t = 0)]
        port: u16,
        /// A script in YAML or JSON. Without it, every request is answered with a greeting.
        #[arg(long)]
        script: Option<PathBuf>,
    },
    /// The API of a tool whose effects are counted.
    Effects {
        /// The port on 127.0.0.1; 0 takes a free one.
        #[arg(long, default_value_t = 0)]
        port: u16,
    },
}

fn main() -> ExitCode {
    match run(Command::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            println!("testkit: {reason}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<(), String> {
    match command {
        Command::Provider { port, script } => {
            let provider = ProviderStandIn::start_on(port, |_| Answer::say("Hello."));
            let provider = provider.map_err(|error| error.to_string())?;
            if let Some(path) = script {
                let text = std::fs::read_to_string(&path);
                let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
                let script = Script::parse(&text)?;
                if !script.models.is_empty() {
                    provider.list_models(script.models.clone());
                }
                provider.behave(script.into_behaviour());
            }
            println!("listening on {}", provider.url());
            park()
        }
        Command::Effects { port } => {
            let effects = EffectsStandIn::start_on(port).map_err(|error| error.to_string())?;
            println!("listening on {}", effects.url());
            park()
        }
    }
}

/// Waits for the kill.
fn park() -> ! {
    loop {
        std::thread::park();
    }
}
