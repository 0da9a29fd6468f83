//! Durable steps a second: executions of five model turns and four tool calls.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use domain::event::topics;
use domain::{EventId, ExecutionId, Status, TraceId};
use engine::{Engine, NewTask};
use futures::{StreamExt, TryStreamExt};
use serde_json::json;
use tokio::sync::Semaphore;
use uuid::Uuid;

use super::fill;
use super::memory;
use super::provider::TOOL_TURNS;
use super::report::Report;
use super::rig::{Rig, TURNS};
use super::statistics::{ms, percentile};
use crate::cli::Context;
use crate::commands::bench::Steps;

/// Model calls and tool calls of one execution.
const STEPS: usize = TOOL_TURNS + 1 + TOOL_TURNS;
/// When nothing ends for so long, something is wrong.
const STALLED: Duration = Duration::from_secs(60);
/// From how many journals the times of steps are read.
const SAMPLED: usize = 500;
const SUBMITTED_AT_ONCE: usize = 64;

/// Measures, and prints.
///
/// # Errors
/// An execution did not complete, or the rig can't be built.
pub(crate) async fn measure(context: &Context, args: &Steps) -> anyhow::Result<()> {
    let concurrency = args.concurrency as usize;
    let latency = Duration::from_millis(args.latency_ms);
    let rig = Rig::start(context, latency, concurrency, args.store_dir.as_deref()).await?;
    let mut report = Report::default();
    report.add("finished", "over before", args.finished as f64, "");
    report.add("waiting", "waiting all the time", args.waiting as f64, "");
    report.add("executions", "executions", f64::from(args.executions()), "");
    report.add("concurrency", "at once", f64::from(args.concurrency), "");
    report.add(
        "latency_ms",
        "latency of the stand-in",
        args.latency_ms as f64,
        "ms",
    );

    let spinner = context.screen.spinner("filling the database");
    fill::fill(context, &rig, args.finished, args.waiting).await?;
    spinner.set_message("warming up");
    let engine = rig.system.engine();
    let mut ends = Ends::of(engine).await?;
    let measured = async {
        run(engine, &mut ends, args.warmup() as usize, concurrency).await?;
        spinner.set_message(format!("measuring {} executions", args.executions()));
        run(engine, &mut ends, args.executions() as usize, concurrency).await
    };
    let measured = measured.await;
    ends.close(engine).await?;
    let measured = measured?;
    // Before the rest below adds its own.
    let peak = memory::peak_mib();
    spinner.set_message("measuring the disk and the stand-in alone");
    let executions_per_s = measured.per_second(concurrency);
    report.add("seconds", "took", measured.took().as_secs_f64(), "s");
    report.add("executions_per_s", "executions", executions_per_s, "/s");
    report.add(
        "steps_per_s",
        "durable steps",
        executions_per_s * STEPS as f64,
        "/s",
    );
    let mut gaps = gaps(rig.system.engine(), &measured.ids).await?;
    report.add(
        "step_ms_p50",
        "from step to step, median",
        percentile(&mut gaps, 50.0),
        "ms",
    );
    report.add(
        "step_ms_p99",
        "from step to step, 99 of 100",
        percentile(&mut gaps, 99.0),
        "ms",
    );
    report.add("peak_rss_mib", "most memory", peak, "MiB");
    rig.report_disk(&mut report).await?;
    let alone = rig.provider.requests_per_s().await?;
    report.add(
        "provider_requests_per_s",
        "the stand-in alone",
        alone,
        "requests/s",
    );
    let ideal = (!latency.is_zero())
        .then(|| concurrency as f64 / (latency.as_secs_f64() * (TOOL_TURNS + 1) as f64));
    report.add(
        "ideal_executions_per_s",
        "ideal for this latency",
        ideal,
        "executions/s",
    );
    report.add(
        "of_ideal",
        "of the ideal",
        ideal.map(|ideal| executions_per_s / ideal * 100.0),
        "%",
    );
    spinner.finish_and_clear();
    report.print(&context.screen);
    rig.close().await;
    Ok(())
}

/// A run.
struct Run {
    /// When each execution ended, from the beginning of the run.
    ends: Vec<Duration>,
    ids: Vec<ExecutionId>,
}

impl Run {
    fn took(&self) -> Duration {
        self.ends.last().copied().unwrap_or_default()
    }

    /// Executions a second while all slots were taken: without the first round, in which they fill, and the last, in
    /// which they empty. The whole run, when it is too short for that.
    fn per_second(&self, concurrency: usize) -> f64 {
        let full = self
            .ends
            .len()
            .checked_sub(2 * concurrency)
            .filter(|full| *full >= 2 * concurrency);
        let ended = |n: usize| n.checked_sub(1).and_then(|index| self.ends.get(index));
        let span = full.and_then(|full| {
            let (from, to) = (ended(concurrency)?, ended(concurrency + full)?);
            Some((full, *to - *from))
        });
        let (count, took) = span.unwrap_or((self.ends.len(), self.took()));
        count as f64 / took.as_secs_f64()
    }
}

/// The ends of executions, as the bus tells of them. One queue for all runs: one that nobody reads any more would keep
/// what still comes, and count as the engine's memory.
struct Ends {
    name: String,
    queue: Box<dyn bus::Consumer>,
    /// An end can be told twice.
    seen: HashSet<EventId>,
}

impl Ends {
    async fn of(engine: &Engine) -> anyhow::Result<Self> {
        // Nobody else's.
        let name = format!("bench-{}", Uuid::now_v7().simple());
        let subscription = bus::Subscription {
            queue: name.clone(),
            patterns: vec![
                topics::EXECUTION_COMPLETED.parse()?,
                topics::EXECUTION_FAILED.parse()?,
            ],
            prefetch: 1000,
        };
        Ok(Self {
            queue: engine.bus().subscribe(subscription).await?,
            name,
            seen: HashSet::new(),
        })
    }

    /// Deletes the queue: a broker would fill it for ever.
    async fn close(self, engine: &Engine) -> anyhow::Result<()> {
        drop(self.queue);
        Ok(engine.bus().remove(&self.name).await?)
    }

    /// Waits for the next one.
    async fn next(&mut self) -> anyhow::Result<()> {
        loop {
            let delivery = tokio::time::timeout(STALLED, self.queue.next())
                .await
                .with_context(|| format!("nothing ended for {STALLED:?}"))?
                .context("the bus closed")?;
            let is_new = self.seen.insert(delivery.event.id.clone());
            delivery.done();
            if is_new {
                return Ok(());
            }
        }
    }
}

/// Performs `count` executions, `concurrency` at once and as many again in the queue, so that no slot is ever idle.
///
/// # Errors
/// One did not complete.
async fn run(
    engine: &Engine,
    ended: &mut Ends,
    count: usize,
    concurrency: usize,
) -> anyhow::Result<Run> {
    let room = Arc::new(Semaphore::new(concurrency * 2));
    let began = Instant::now();
    let submitting = futures::stream::iter(0..count)
        .map(|_| submit(engine, &room))
        .buffer_unordered(SUBMITTED_AT_ONCE)
        .try_collect::<Vec<_>>();
    let counting = async {
        let mut ends = Vec::with_capacity(count);
        while ends.len() < count {
            let next = ended.next().await;
            next.with_context(|| format!("after {} of {count} executions", ends.len()))?;
            ends.push(began.elapsed());
            room.add_permits(1);
        }
        anyhow::Ok(ends)
    };
    let (ids, ends) = tokio::try_join!(submitting, counting)?;
    check(engine, &ids).await?;
    Ok(Run { ends, ids })
}

async fn submit(engine: &Engine, room: &Semaphore) -> anyhow::Result<ExecutionId> {
    room.acquire().await?.forget();
    let task = NewTask::new(
        TURNS,
        json!({ "prompt": "Go." }),
        TraceId::from_uuid(Uuid::now_v7()),
    );
    Ok(engine.submit(task).await?.id)
}

/// A figure counts only when every execution came to its answer.
async fn check(engine: &Engine, ids: &[ExecutionId]) -> anyhow::Result<()> {
    for id in ids.iter().step_by((ids.len() / SAMPLED).max(1)) {
        let row = engine
            .store()
            .execution(*id)
            .await?
            .context("an execution is gone")?;
        anyhow::ensure!(
            row.status == Status::Completed,
            "{id} is {}: {}",
            row.status,
            row.outcome
                .map(|outcome| outcome.reason())
                .unwrap_or_default()
        );
    }
    Ok(())
}

/// The times between the steps of a sample of journals, in milliseconds.
async fn gaps(engine: &Engine, ids: &[ExecutionId]) -> anyhow::Result<Vec<f64>> {
    let mut gaps = Vec::new();
    for id in ids.iter().step_by((ids.len() / SAMPLED).max(1)) {
        let steps = engine.store().steps(*id, None, 100).await?;
        gaps.extend(
            steps
                .iter()
                .zip(steps.iter().skip(1))
                .map(|(step, next)| ms((next.at - step.at).to_std().unwrap_or_default())),
        );
    }
    Ok(gaps)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rate_is_that_of_full_slots() {
        // Ten a second, after a slow first round and before a slow last one.
        let ends = (0..10)
            .map(|_| 5000)
            .chain((1..=30).map(|n| 5000 + n * 100))
            .chain((0..10).map(|_| 20_000));
        let run = Run {
            ends: ends.map(Duration::from_millis).collect(),
            ids: Vec::new(),
        };
        assert!(
            (run.per_second(10) - 10.0).abs() < 0.01,
            "{}",
            run.per_second(10)
        );
        assert!(
            (run.per_second(20) - 2.5).abs() < 0.01,
            "{}",
            run.per_second(20)
        );
    }
}
