//! How late schedules start that are due at the same moment, and what they cost while nothing is due.

use std::fs;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use chrono::{DateTime, TimeDelta, Timelike, Utc};
use engine::{Engine, NewSchedule};
use futures::{StreamExt, TryStreamExt};
use serde_json::json;

use super::report::Report;
use super::rig::{Faces, Rig, TURNS};
use super::statistics::ms;
use crate::cli::Context;
use crate::commands::bench::Schedules;

/// How many are made at once.
const MADE_AT_ONCE: usize = 64;
/// How long making them may take.
const MAKING: TimeDelta = TimeDelta::seconds(60);
/// How long before they are due the processor's time is not counted any more.
const REST: Duration = Duration::from_secs(2);
/// How often it is looked how many have started.
const GLANCE: Duration = Duration::from_millis(5);
const PATIENCE: Duration = Duration::from_secs(120);
/// How much of a second `/proc` counts processor time in.
const TICK_S: f64 = 0.01;
const LATENCY: Duration = Duration::from_millis(200);
/// As many as a process performs by default.
const CAPACITY: usize = 1000;

/// Measures, and prints.
///
/// # Errors
/// The schedules can't be made in time, don't start, or the rig can't be built.
pub(crate) async fn measure(context: &Context, args: &Schedules) -> anyhow::Result<()> {
    let faces = if args.perform {
        Faces::None
    } else {
        Faces::Scheduler
    };
    let folder = args.store_dir.as_deref();
    let rig = Rig::with(context, LATENCY, CAPACITY, folder, faces).await?;
    let engine = rig.system.engine();
    engine.start_scheduler();
    let spinner = context.screen.spinner("making schedules");
    let idle = Duration::from_secs(args.idle_seconds);
    let due = engine.now() + MAKING + idle;
    let due = due.with_nanosecond(0).context("a time without a second")?;
    make(engine, args.count, due).await?;
    let left = (due - engine.now()).to_std().unwrap_or_default();
    anyhow::ensure!(
        left > REST,
        "making the schedules took longer than a minute"
    );
    spinner.set_message("nothing is due");
    let quiet = quiet(left - REST).await;
    spinner.set_message("all are due");
    let mut told = told(engine, u64::from(args.count), due, args.perform).await?;
    spinner.finish_and_clear();
    let mut report = Report::default();
    report.add("schedules", "schedules", f64::from(args.count), "");
    report.add(
        "idle_cpu_percent",
        "of a core while nothing is due",
        quiet,
        "%",
    );
    for (key, label, percent) in [
        ("lag_ms_p50", "started after, median", 50.0),
        ("lag_ms_p99", "99 of 100", 99.0),
        ("lag_ms_max", "the last", 100.0),
    ] {
        report.add(key, label, told.accepted.at(percent), "ms");
    }
    if args.perform {
        report.add(
            "begun_ms_p50",
            "begun by a worker, median",
            told.begun.at(50.0),
            "ms",
        );
        report.add("begun_ms_p99", "99 of 100", told.begun.at(99.0), "ms");
    }
    rig.report_disk(&mut report).await?;
    report.print(&context.screen);
    rig.close().await;
    Ok(())
}

/// Makes daily schedules that are all due at the same moment.
async fn make(engine: &Engine, count: u32, due: DateTime<Utc>) -> anyhow::Result<()> {
    let cron = format!("{} {} {} * * *", due.second(), due.minute(), due.hour());
    let config = json!({ "type": "cron", "cron": cron, "task_data": { "prompt": "Go." } });
    let new = NewSchedule {
        agent: TURNS.to_owned(),
        config: serde_json::from_value(config)?,
    };
    let schedules = engine.schedules();
    let each = futures::stream::iter(0..count).map(|n| {
        let (schedules, new) = (schedules.clone(), new.clone());
        async move { schedules.create(&format!("bench-{n}"), new, true).await }
    });
    each.buffer_unordered(MADE_AT_ONCE)
        .try_for_each(|_| std::future::ready(Ok(())))
        .await?;
    Ok(())
}

/// How much of a core this process takes, in percent; `None` where `/proc` is not.
async fn quiet(rest: Duration) -> Option<f64> {
    // What making them left to do is not counted.
    let settle = (rest / 4).min(Duration::from_secs(5));
    tokio::time::sleep(settle).await;
    let (before, began) = (ticks()?, Instant::now());
    tokio::time::sleep(rest - settle).await;
    let spent = (ticks()? - before) * TICK_S;
    Some(spent / began.elapsed().as_secs_f64() * 100.0)
}

/// The processor time of this process.
fn ticks() -> Option<f64> {
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // Behind the name, which may hold anything.
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some(user + system)
}

/// How many had come so far, at each glance: milliseconds after the due time.
struct Growth {
    wanted: u64,
    seen: Vec<(f64, u64)>,
}

impl Growth {
    /// When so many percent were there.
    fn at(&mut self, percent: f64) -> Option<f64> {
        let count = (percent / 100.0 * self.wanted as f64).ceil() as u64;
        let first = self.seen.iter().find(|(_, seen)| *seen >= count);
        first.map(|(after, _)| *after)
    }

    fn is_complete(&self) -> bool {
        self.seen
            .last()
            .is_some_and(|(_, seen)| *seen >= self.wanted)
    }
}

struct Told {
    /// Executions that were on disk.
    accepted: Growth,
    /// Those of them that a worker had begun.
    begun: Growth,
}

/// Counts from the due time on, until all have started, and begun if they are performed.
async fn told(
    engine: &Engine,
    wanted: u64,
    due: DateTime<Utc>,
    perform: bool,
) -> anyhow::Result<Told> {
    let agent = TURNS.parse()?;
    let growth = || Growth {
        wanted,
        seen: Vec::new(),
    };
    let mut told = Told {
        accepted: growth(),
        begun: growth(),
    };
    let until = (due - engine.now()).to_std().unwrap_or_default();
    tokio::time::sleep(until).await;
    let began = Instant::now();
    loop {
        let stats = engine.store().agent_stats(Some(&agent)).await?;
        let after = ms((engine.now() - due).to_std().unwrap_or_default());
        let sum = |of: fn(&store::AgentStats) -> u64| stats.iter().map(of).sum::<u64>();
        let total = sum(|stats| stats.total);
        told.accepted.seen.push((after, total));
        let begun = total - sum(|stats| stats.queued);
        told.begun.seen.push((after, begun));
        if told.accepted.is_complete() && (!perform || told.begun.is_complete()) {
            return Ok(told);
        }
        anyhow::ensure!(
            began.elapsed() < PATIENCE,
            "{total} of {wanted} have started, {begun} begun, then it took too long"
        );
        tokio::time::sleep(GLANCE).await;
    }
}
