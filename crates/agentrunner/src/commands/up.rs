//! `up`: everything in one process.

use std::time::{Duration, Instant};

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::{Context, Exit, block_on};
use crate::telemetry;
use crate::wiring::System;

/// Serves everything in one process, until Ctrl-C or SIGTERM.
///
/// What is under way is brought to its next durable step and goes on at the next start. A second Ctrl-C ends at once;
/// nothing that was accepted is lost then either.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentrunner up
  ORCHESTRATOR_PORT=9003 agentrunner up --data-dir /var/lib/agentrunner
  AGENTRUNNER_PROVIDER=scripted agentrunner up        answers from scripts, without any model")]
pub(crate) struct Up {}

impl Up {
    pub(crate) fn run(self, context: &Context) -> anyhow::Result<Exit> {
        let began = Instant::now();
        let settings = &context.settings;
        telemetry::start(
            &settings.log,
            settings.log.is_json.unwrap_or(!context.screen.is_watched),
        )?;
        block_on(async {
            // Before anything else, so that no signal finds the process without an answer to it.
            let mut stop = Stop::listen()?;
            let system = System::up(settings).await?;
            system.say_what_runs();
            tracing::info!("ready in {} ms", began.elapsed().as_millis());
            let which = stop.wait().await;
            tracing::info!("{which}: stopping; once more ends at once");
            // A person at a terminal has no load balancer.
            let drain = match which {
                TERMINATE => settings.work.drain,
                _ => Duration::ZERO,
            };
            let stopping = Instant::now();
            tokio::select! {
                () = system.shutdown(drain) => {
                    tracing::info!("stopped in {} ms; nothing is lost", stopping.elapsed().as_millis());
                    Ok(Exit::Done)
                }
                which = stop.wait() => {
                    tracing::warn!("{which} again: ending at once; what was under way goes on at the next start");
                    Ok(Exit::Interrupted)
                }
            }
        })
    }
}

const TERMINATE: &str = "SIGTERM";

/// The signals that ask for the end.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
}

impl Stop {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
        })
    }

    async fn wait(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "interrupt",
            _ = self.terminate.recv() => TERMINATE,
        }
    }
}
