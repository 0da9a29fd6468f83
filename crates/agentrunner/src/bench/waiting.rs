//! What executions cost that wait for a person: nothing but rows.

use std::time::{Duration, Instant};

use domain::{Status, TraceId};
use engine::NewTask;
use futures::{StreamExt, TryStreamExt};
use serde_json::json;
use store::{ExecutionFilter, Page};
use uuid::Uuid;

use super::memory;
use super::report::Report;
use super::rig::{ASK, Rig};
use crate::cli::Context;
use crate::commands::bench::Waiting;

const SUBMITTED_AT_ONCE: usize = 64;
const STALLED: Duration = Duration::from_secs(60);

/// Measures, and prints.
///
/// # Errors
/// An execution does not come to wait, or the rig can't be built.
pub(crate) async fn measure(context: &Context, args: &Waiting) -> anyhow::Result<()> {
    let rig = Rig::start(context, Duration::ZERO, 64, args.store_dir.as_deref()).await?;
    let engine = rig.system.engine();
    let before = memory::own_mib();
    let spinner = context.screen.spinner("submitting");
    let began = Instant::now();
    futures::stream::iter(0..args.count)
        .map(|_| {
            let trace = TraceId::from_uuid(Uuid::now_v7());
            engine.submit(NewTask::new(ASK, json!({ "prompt": "Go." }), trace))
        })
        .buffer_unordered(SUBMITTED_AT_ONCE)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await?;
    let mut last = (0, Instant::now());
    loop {
        let filter = ExecutionFilter {
            status: vec![Status::WaitingForInput],
            ..Default::default()
        };
        let (_, waiting) = engine
            .store()
            .executions(
                filter,
                Page {
                    limit: 1,
                    after: None,
                },
            )
            .await?;
        let waiting = waiting.count;
        if waiting >= u64::from(args.count) {
            break;
        }
        if waiting > last.0 {
            last = (waiting, Instant::now());
        }
        anyhow::ensure!(
            last.1.elapsed() < STALLED,
            "{waiting} of {} wait, then nothing for {STALLED:?}",
            args.count
        );
        spinner.set_message(format!("{waiting} of {} wait", args.count));
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let took = began.elapsed();
    spinner.finish_and_clear();
    let after = memory::own_mib();
    let mut report = Report::default();
    report.add("waiting", "executions that wait", f64::from(args.count), "");
    report.add("seconds", "until all waited", took.as_secs_f64(), "s");
    report.add("rss_before_mib", "memory before", before, "MiB");
    report.add("rss_waiting_mib", "memory while they wait", after, "MiB");
    report.add("peak_rss_mib", "most memory", memory::peak_mib(), "MiB");
    let grown = before
        .zip(after)
        .map(|(before, after)| (after - before) * 1024.0 / f64::from(args.count));
    report.add("kib_each", "grown by, for each", grown, "KiB");
    let (running, _) = engine.load();
    report.add("running", "still held by the engine", running as f64, "");
    report.print(&context.screen);
    rig.close().await;
    Ok(())
}
