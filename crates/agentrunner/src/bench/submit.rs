//! How long `POST /tasks` takes while requests come at a fixed rate, whether earlier ones were answered or not, and what
//! is submitted is performed.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::StatusCode;
use serde_json::json;
use tokio::task::JoinSet;

use super::report::Report;
use super::rig::{Faces, Rig, TURNS, client};
use super::statistics::{ms, percentile};
use crate::cli::Context;
use crate::commands::bench::Submit;

/// How long it goes on before it counts.
const WARMUP: Duration = Duration::from_secs(2);
/// As many as a process performs by default.
const CAPACITY: usize = 1000;

/// Measures, and prints.
///
/// # Errors
/// A task is not accepted, or the rig can't be built.
pub(crate) async fn measure(context: &Context, args: &Submit) -> anyhow::Result<()> {
    let latency = Duration::from_millis(args.latency_ms);
    let rig = Rig::with(
        context,
        latency,
        CAPACITY,
        args.store_dir.as_deref(),
        Faces::Http,
    )
    .await?;
    let spinner = context.screen.spinner("submitting");
    let url = format!("{}/tasks", rig.system.orchestrator_url());
    let (rate, seconds) = (args.rate, args.seconds);
    let (done, result) = tokio::sync::oneshot::channel();
    // A thread and a runtime of its own: what asks must not wait for what answers.
    thread::Builder::new()
        .name("bench-submit".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let answers = runtime
                .map_err(anyhow::Error::from)
                .and_then(|runtime| runtime.block_on(submit(&url, rate, seconds)));
            // Nobody waits any more when the measurement was given up.
            drop(done.send(answers));
        })?;
    let Answers {
        mut took,
        late,
        refused,
    } = result.await.context("the thread that asks is gone")??;
    spinner.finish_and_clear();
    let mut report = Report::default();
    report.add("rate", "requests", f64::from(rate), "/s");
    report.add("accepted", "accepted", took.len() as f64, "");
    report.add("refused", "refused", f64::from(refused), "");
    report.add(
        "submit_ms_p50",
        "answered in, median",
        percentile(&mut took, 50.0),
        "ms",
    );
    report.add(
        "submit_ms_p99",
        "99 of 100",
        percentile(&mut took, 99.0),
        "ms",
    );
    report.add(
        "submit_ms_max",
        "the slowest",
        percentile(&mut took, 100.0),
        "ms",
    );
    report.add("late_ms_max", "asked too late by, at most", late, "ms");
    rig.report_disk(&mut report).await?;
    report.print(&context.screen);
    rig.close().await;
    Ok(())
}

struct Answers {
    /// Milliseconds from the moment at which each was due to be asked.
    took: Vec<f64>,
    /// By how much asking itself was late at most, in milliseconds: beyond a few, the one that asks is measured.
    late: f64,
    refused: u32,
}

async fn submit(url: &str, rate: u32, seconds: u32) -> anyhow::Result<Answers> {
    let client = client()?;
    let body = json!({ "agent_name": TURNS, "task_data": { "prompt": "Go." } });
    let began = Instant::now();
    let step = Duration::from_secs(1) / rate;
    let total = rate * seconds + (f64::from(rate) * WARMUP.as_secs_f64()) as u32;
    let mut asked = JoinSet::new();
    let mut late: f64 = 0.0;
    for n in 0..total {
        let due = began + step * n;
        tokio::time::sleep_until(due.into()).await;
        let counts = due - began >= WARMUP;
        if counts {
            late = late.max(ms(due.elapsed()));
        }
        let request = client.post(url).json(&body);
        asked.spawn(async move {
            let response = request.send().await?;
            let status = response.status();
            response.bytes().await?;
            anyhow::Ok((counts, status, ms(due.elapsed())))
        });
    }
    let mut answers = Answers {
        took: Vec::new(),
        late,
        refused: 0,
    };
    while let Some(answer) = asked.join_next().await {
        let (counts, status, took) = answer??;
        match status {
            StatusCode::ACCEPTED if counts => answers.took.push(took),
            StatusCode::ACCEPTED => {}
            _ => answers.refused += 1,
        }
    }
    Ok(answers)
}
