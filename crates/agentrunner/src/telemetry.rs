//! Log lines on standard error: compact JSON for machines, text for people. Beside them, [`traces`].

mod file;
mod json;
mod masked;
pub(crate) mod traces;

use std::io::Write;

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::Context;
use crate::settings::{Log, Origin};
use file::LogFile;
use json::JsonLines;
use masked::Masked;
use services::redact::Redactor;

/// Begins to write log lines. Called once.
///
/// # Errors
/// They are written already.
pub(crate) fn start(log: &Log, is_json: bool, redactor: &Redactor) -> anyhow::Result<()> {
    let writer = redactor.clone();
    let stderr = if is_json {
        JsonLines::new(Box::new(Masked::new(std::io::stderr(), redactor))).boxed()
    } else {
        tracing_subscriber::fmt::layer()
            .with_writer(move || Masked::new(std::io::stderr(), &writer))
            .with_ansi(false)
            .with_target(false)
            .boxed()
    };
    let (file, missing) = match log.dir.as_deref().map(|dir| (dir, LogFile::open(dir))) {
        None => (None, None),
        Some((_, Ok(file))) => (Some(file), None),
        Some((dir, Err(error))) => (None, Some((dir, error))),
    };
    tracing_subscriber::registry()
        .with(EnvFilter::new(filter(&log.level)))
        // First, so that a line which somebody saw is in the file.
        .with(file.map(|file| JsonLines::new(Box::new(Masked::new(file, redactor)))))
        .with(stderr)
        .try_init()
        .context("log lines are written already")?;
    tell_panics(redactor.clone());
    // The work does not depend on the second copy of the log.
    if let Some((dir, error)) = missing {
        tracing::warn!(
            "LOG_DIR: {} can't be written, so log lines go to standard error only: {error}",
            dir.display()
        );
    }
    Ok(())
}

/// Begins to write log lines for a command that is not a server: warnings, unless more is asked for, because the
/// screen is for the answer.
///
/// # Errors
/// They are written already.
pub(crate) fn start_quiet(context: &Context) -> anyhow::Result<()> {
    let mut log = context.settings.log.clone();
    if context.settings.values.origin("LOG_LEVEL") == Origin::Default {
        log.level = "WARNING".to_owned();
    }
    let is_json = log.is_json.unwrap_or(context.screen.json);
    start(&log, is_json, &context.settings.redactor)
}

/// A panic is told on standard error like a line of the log: without secrets.
fn tell_panics(redactor: Redactor) {
    std::panic::set_hook(Box::new(move |panic| {
        let backtrace = std::backtrace::Backtrace::capture();
        let text = match backtrace.status() {
            std::backtrace::BacktraceStatus::Captured => format!("{panic}\n{backtrace}\n"),
            _ => format!("{panic}\n"),
        };
        // There is nobody left to tell that it can't be written.
        drop(Masked::new(std::io::stderr(), &redactor).write_all(text.as_bytes()));
    }));
}

/// Ours at the level that was asked for; the libraries below only when something is wrong, unless all is wanted. The
/// client of RabbitMQ calls its own goodbye an error, and so it does with each "there is no such queue". What it has to
/// say comes to the bus as values, which tells what matters; its panics do not. The SDK of MCP warns of each refusal that a
/// client is told, and calls one that hangs up an error.
fn filter(level: &str) -> String {
    let level = match level {
        "WARNING" => "warn".to_owned(),
        other => other.to_ascii_lowercase(),
    };
    if level == "trace" {
        return level;
    }
    let ours = [
        "agentrunner",
        "bus",
        "domain",
        "engine",
        "llm",
        "services",
        "store",
        "tools",
    ];
    let ours = ours.map(|name| match name {
        "agentrunner" => format!("agentrunner={level}"),
        name => format!("agentrunner_{name}={level},{name}={level}"),
    });
    format!(
        "warn,lapin=off,lapin::thread=error,rmcp=off,{}",
        ours.join(",")
    )
}
