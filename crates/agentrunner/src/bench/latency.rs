//! What durability adds to one model turn: a turn of an execution, against the same request made directly.
//!
//! The agent's first answer breaks its schema, so the model is asked again: between its two model calls lie one
//! durable commit and one request, and nothing else.

use std::time::{Duration, Instant};

use domain::{StepBody, TraceId};
use engine::{Engine, LiveEvent, NewTask};
use serde_json::json;
use uuid::Uuid;

use super::report::Report;
use super::rig::{Rig, SCHEMA, client};
use super::statistics::{ms, percentile};
use crate::cli::Context;
use crate::commands::bench::Latency;

const WARMUP: u32 = 20;

/// Measures, and prints.
///
/// # Errors
/// The stand-in does not answer, or the rig can't be built.
pub(crate) async fn measure(context: &Context, args: &Latency) -> anyhow::Result<()> {
    let rig = Rig::start(context, Duration::ZERO, 4, args.store_dir.as_deref()).await?;
    let client = client()?;
    let spinner = context.screen.spinner("measuring");
    let mut direct = Vec::new();
    let mut durable = Vec::new();
    let mut commits = Vec::new();
    for n in 0..args.turns + WARMUP {
        // In turn, so that whatever else the machine does falls on both.
        let alone = ms(rig.provider.ask(&client, "/schema").await?);
        let turn = turn(rig.system.engine()).await?;
        let commit = ms(rig.commit().await?);
        if n >= WARMUP {
            commits.push(commit);
            direct.push(alone);
            durable.push(turn);
        }
    }
    spinner.finish_and_clear();
    let mut report = Report::default();
    let alone = percentile(&mut direct, 50.0);
    let turn = percentile(&mut durable, 50.0);
    report.add("direct_ms_p50", "the request alone, median", alone, "ms");
    report.add("durable_turn_ms_p50", "a durable turn, median", turn, "ms");
    report.add(
        "durable_turn_ms_p99",
        "a durable turn, 99 of 100",
        percentile(&mut durable, 99.0),
        "ms",
    );
    let commit = percentile(&mut commits, 50.0);
    report.add("added_ms_p50", "added", turn - alone, "ms");
    report.add(
        "commit_in_turn_ms_p50",
        "one row committed, in turn with them",
        commit,
        "ms",
    );
    report.add(
        "of_commit",
        "added, as a multiple of that",
        (turn - alone) / commit,
        "times",
    );
    rig.report_disk(&mut report).await?;
    report.print(&context.screen);
    rig.close().await;
    Ok(())
}

/// The time from the moment at which one model call is on disk to that of the next: watchers are told after the commit.
async fn turn(engine: &Engine) -> anyhow::Result<f64> {
    let trace = TraceId::from_uuid(Uuid::now_v7());
    let id = engine
        .submit(NewTask::new(SCHEMA, json!({ "prompt": "Go." }), trace))
        .await?
        .id;
    let mut watch = engine.watch(id, None);
    let mut calls = Vec::new();
    while let Some(event) = watch.next().await? {
        if let LiveEvent::Step(step) = event
            && matches!(step.body, StepBody::ModelCall(_))
        {
            calls.push(Instant::now());
        }
    }
    match calls.as_slice() {
        [first, second, ..] => Ok(ms(second.duration_since(*first))),
        _ => anyhow::bail!("{id} had {} model calls and not 2", calls.len()),
    }
}
