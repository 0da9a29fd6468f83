//! From an event to the first step of the agent that it starts, when many subscribe.

use std::time::Duration;

use anyhow::Context as _;
use domain::{Event, TraceId};
use engine::Engine;
use serde_json::json;
use store::{ExecutionFilter, Page};
use uuid::Uuid;

use super::report::Report;
use super::rig::{Rig, listener};
use super::statistics::{ms, percentile};
use crate::cli::Context;
use crate::commands::bench::Events;

/// When nothing starts for so long, something is wrong.
const STALLED: Duration = Duration::from_secs(60);
/// How often it is looked whether the execution is there, which is not what is measured.
const LOOK: Duration = Duration::from_millis(5);
/// How many events go before those that count.
const WARMUP: u32 = 20;
/// How long the agents' queue is given to learn what they subscribe to.
const SETTLE: Duration = Duration::from_secs(6);
const CAPACITY: usize = 64;

/// Measures, and prints.
///
/// # Errors
/// An event starts nobody, or the rig can't be built.
pub(crate) async fn measure(context: &Context, args: &Events) -> anyhow::Result<()> {
    let rig = Rig::listened_to(context, args.agents, CAPACITY, args.store_dir.as_deref()).await?;
    let engine = rig.system.engine();
    let spinner = context.screen.spinner("the agents join their queue");
    tokio::time::sleep(SETTLE).await;
    spinner.set_message("publishing one event after the other");
    let mut took = Vec::new();
    for n in 0..WARMUP + args.events {
        // Spread over all of them.
        let which = n.wrapping_mul(7919) % args.agents;
        let step = first_step(engine, which).await?;
        if n >= WARMUP {
            took.push(ms(step));
        }
    }
    spinner.finish_and_clear();
    let mut report = Report::default();
    report.add(
        "agents",
        "agents that subscribe",
        f64::from(args.agents),
        "",
    );
    report.add("events", "events", f64::from(args.events), "");
    let figures = [
        ("first_step_ms_p50", "until the first step, median", 50.0),
        ("first_step_ms_p99", "99 of 100", 99.0),
    ];
    for (name, words, percent) in figures {
        report.add(name, words, percentile(&mut took, percent), "ms");
    }
    rig.report_disk(&mut report).await?;
    report.print(&context.screen);
    rig.close().await;
    Ok(())
}

/// How long it takes from one event to the first step of the execution that it starts: the model was asked and has
/// answered, and that is on disk.
async fn first_step(engine: &Engine, which: u32) -> anyhow::Result<Duration> {
    let trace = TraceId::from_uuid(Uuid::now_v7());
    let event = Event {
        id: Uuid::now_v7().to_string().parse()?,
        topic: listener(which).1.parse()?,
        source: "bench".to_owned(),
        time: engine.now(),
        trace_id: trace.clone(),
        hops: 0,
        data: json!({ "n": which }),
    };
    let published = event.time;
    engine.publish(event).await?;
    let started = async {
        loop {
            if let Some(at) = first_step_of(engine, &trace).await? {
                return anyhow::Ok(at);
            }
            tokio::time::sleep(LOOK).await;
        }
    };
    let at = tokio::time::timeout(STALLED, started).await;
    let at = at.with_context(|| format!("an event started nobody for {STALLED:?}"))??;
    Ok((at - published).to_std().unwrap_or_default())
}

async fn first_step_of(engine: &Engine, trace: &TraceId) -> anyhow::Result<Option<domain::Time>> {
    let of_trace = ExecutionFilter {
        trace_id: Some(trace.clone()),
        ..ExecutionFilter::default()
    };
    let one = Page {
        limit: 1,
        after: None,
    };
    let (rows, _) = engine.store().executions(of_trace, one).await?;
    let Some(row) = rows.first() else {
        return Ok(None);
    };
    let steps = engine.store().steps(row.execution.id, None, 1).await?;
    Ok(steps.first().map(|step| step.at))
}
