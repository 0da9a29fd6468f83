//! From the start of the process to the first `ready`, and what an idle server holds.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use tokio::process::{Child, Command};

use super::memory;
use super::report::Report;
use super::rig::Folder;
use super::statistics::{ms, percentile};
use crate::cli::Context;
use crate::client::Client;
use crate::commands::bench::Startup;
use crate::settings::Trust;

const TOO_LONG: Duration = Duration::from_secs(20);
/// How long a server is left alone before its memory is read.
const IDLE: Duration = Duration::from_secs(1);

/// Measures, and prints.
///
/// # Errors
/// The server does not become ready.
pub(crate) async fn measure(context: &Context, args: &Startup) -> anyhow::Result<()> {
    let folder = Folder::new(&context.settings, args.store_dir.as_deref())?;
    let mut samples = Vec::new();
    let mut first = 0.0;
    let mut idle = None;
    for n in 0..args.starts {
        let (mut server, took) = start(folder.path()).await?;
        match n {
            // The first start makes the database; later ones are what a restart costs.
            0 => first = ms(took),
            _ => samples.push(ms(took)),
        }
        if n + 1 == args.starts {
            tokio::time::sleep(IDLE).await;
            idle = server.child.id().and_then(memory::resident_mib);
        }
        server.child.kill().await?;
    }
    let mut report = Report::default();
    report.add(
        "first_start_ms",
        "first start, making the database",
        first,
        "ms",
    );
    let later = (!samples.is_empty()).then(|| percentile(&mut samples, 50.0));
    report.add("start_ms_p50", "start to ready, median", later, "ms");
    let most = (!samples.is_empty()).then(|| percentile(&mut samples, 100.0));
    report.add("start_ms_max", "start to ready, most", most, "ms");
    report.add("idle_rss_mib", "idle memory", idle, "MiB");
    report.print(&context.screen);
    Ok(())
}

/// A server that is ready; killed when it is dropped.
pub(crate) struct Ready {
    pub(crate) child: Child,
    /// AgentOrchestrator's address.
    pub(crate) url: String,
}

/// Starts one in a folder, and tells how long it took.
///
/// # Errors
/// It does not become ready.
pub(crate) async fn start(folder: &Path) -> anyhow::Result<(Ready, Duration)> {
    let ports = free_ports()?;
    let began = Instant::now();
    let mut child = Command::new(std::env::current_exe()?)
        .arg("up")
        .current_dir(folder)
        .env("STATE_MANAGER_PORT", ports[0].to_string())
        .env("CONFIG_SERVICE_PORT", ports[1].to_string())
        .env("ORCHESTRATOR_PORT", ports[2].to_string())
        .env("SCHEDULER_SERVICE_PORT", "0")
        .env("SLACK_GATEWAY_PORT", "0")
        .env("CONFIG_DIR", folder.join("config"))
        .env("DATA_DIR", folder.join("data"))
        .env("LOG_FORMAT", "json")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let url = format!("http://127.0.0.1:{}", ports[2]);
    let client = Client::new(&url, &Trust::default())?;
    while !client.readiness().await.is_ok_and(|(is_ready, _)| is_ready) {
        if let Some(status) = child.try_wait()? {
            anyhow::bail!(
                "the server ended instead of becoming ready: {status}; see `agentrunner doctor`"
            );
        }
        anyhow::ensure!(
            began.elapsed() < TOO_LONG,
            "the server is not ready after {TOO_LONG:?}"
        );
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok((Ready { child, url }, began.elapsed()))
}

fn free_ports() -> anyhow::Result<[u16; 3]> {
    let listener = || TcpListener::bind(("127.0.0.1", 0)).context("no port is free");
    let listeners = [listener()?, listener()?, listener()?];
    let mut ports = [0; 3];
    for (port, listener) in ports.iter_mut().zip(&listeners) {
        *port = listener.local_addr()?.port();
    }
    Ok(ports)
}
