//! What `up` and `serve` have in common: start, say what runs, end in order when a signal comes.

use std::time::{Duration, Instant};

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::{Context, Exit, block_on};
use crate::settings::ProcessEnvironment;
use crate::systemd::Supervisor;
use crate::telemetry;
use crate::wiring::System;

/// Starts a system and serves until Ctrl-C or SIGTERM; a second one ends at once.
pub(super) fn serve_until_told(
    context: &Context,
    start: impl Future<Output = anyhow::Result<System>>,
) -> anyhow::Result<Exit> {
    let began = Instant::now();
    let log = &context.settings.log;
    let is_json = log.is_json.unwrap_or(!context.screen.is_watched);
    telemetry::start(log, is_json, &context.settings.redactor)?;
    for name in context.settings.hard_to_mask() {
        tracing::warn!(
            "{name} is a plain word, a number or very short: it can't be told from other text and is not masked where it turns up"
        );
    }
    for doubled in &context.settings.doubled {
        tracing::warn!("{}: {doubled}", doubled.name);
    }
    block_on(async {
        // Before anything else, so that no signal finds the process without an answer to it.
        let mut stop = Stop::listen()?;
        let supervisor = Supervisor::find(&ProcessEnvironment);
        let system = tokio::select! {
            started = start => started?,
            // It may be waiting for its servers.
            which = stop.wait() => {
                tracing::info!("{which}: stopped before it was ready");
                return Ok(Exit::Done);
            }
        };
        system.say_what_runs();
        tracing::info!("ready in {} ms", began.elapsed().as_millis());
        supervisor.ready();
        let which = tokio::select! {
            which = stop.wait() => which,
            never = supervisor.keep_telling() => match never {},
        };
        supervisor.stopping();
        tracing::info!("{which}: stopping; once more ends at once");
        // A person at a terminal has no load balancer.
        let drain = match which {
            TERMINATE => context.settings.work.drain,
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
