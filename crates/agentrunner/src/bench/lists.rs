//! How long lists take at a fixed rate of requests: of agents when there are many, and of executions, filtered, in a
//! full database.

use std::time::Duration;

use chrono::SecondsFormat;
use domain::Time;
use reqwest::StatusCode;

use super::asking::{Pace, ask};
use super::fill;
use super::memory;
use super::report::Report;
use super::rig::{Faces, Rig, listener};
use super::statistics::percentile;
use crate::cli::Context;
use crate::commands::bench::Lists;

const CAPACITY: usize = 64;
/// How many agents the executions are spread over, besides the one whose executions are cancelled.
const BUSY_AGENTS: u32 = 19;

/// How many times seldomer a list of all agents is asked for: a thousand are most of a megabyte.
const SELDOMER: u32 = 10;

/// A shape of request, measured by itself.
struct Shape {
    p50: &'static str,
    p99: &'static str,
    label: &'static str,
    path: String,
    /// Requests a second.
    rate: u32,
}

/// Measures, and prints.
///
/// # Errors
/// A list is refused, the store is the embedded one, or the rig can't be built.
pub(crate) async fn measure(context: &Context, args: &Lists) -> anyhow::Result<()> {
    let store_dir = args.store_dir.as_deref();
    let rig = Rig::among(
        context,
        Duration::ZERO,
        CAPACITY,
        store_dir,
        (Faces::Http, args.agents),
    )
    .await?;
    let spinner = context.screen.spinner("filling the database");
    fill::spread(context, &rig, args.executions, (args.agents, BUSY_AGENTS)).await?;
    let shapes = shapes(&rig, args).await?;
    let base = rig.system.orchestrator_url();
    let mut report = Report::default();
    report.add("agents", "agents", f64::from(args.agents), "");
    report.add("executions", "executions", args.executions as f64, "");
    report.add("rate", "requests", f64::from(args.rate), "/s");
    for shape in shapes {
        spinner.set_message(shape.label);
        let url = format!("{base}{}", shape.path);
        let make = rig.request(move |client| client.get(&url));
        let pace = Pace::Rate(shape.rate);
        let answers = ask(pace, args.seconds, StatusCode::OK, make).await?;
        anyhow::ensure!(answers.refused == 0, "{} was refused", shape.path);
        let mut took = answers.times(|_| true);
        report.add(shape.p50, shape.label, percentile(&mut took, 50.0), "ms");
        report.add(shape.p99, "  99 of 100", percentile(&mut took, 99.0), "ms");
    }
    spinner.finish_and_clear();
    report.add("rss_mib", "memory", memory::own_mib(), "MiB");
    report.print(&context.screen);
    rig.close().await;
    Ok(())
}

/// What is asked: lists of agents, and of executions by each filter and by two at once.
async fn shapes(rig: &Rig, args: &Lists) -> anyhow::Result<Vec<Shape>> {
    let (agent, _) = listener(BUSY_AGENTS / 2);
    let trace = fill::a_trace(rig.system.engine(), &agent.parse()?).await?;
    // A copy is a millisecond after the one before it: the newest hundredth.
    let recent = chrono::TimeDelta::milliseconds((args.executions / 100).cast_signed());
    let since = rfc3339(rig.system.engine().now() - recent);
    let shape = |p50, p99, label, path| Shape {
        p50,
        p99,
        label,
        path,
        rate: args.rate,
    };
    Ok(vec![
        shape(
            "agents_ms_p50",
            "agents_ms_p99",
            "GET /agents, the first 100, median",
            "/agents".to_owned(),
        ),
        Shape {
            p50: "all_agents_ms_p50",
            p99: "all_agents_ms_p99",
            label: "GET /agents?limit=1000, at a tenth of the rate, median",
            path: "/agents?limit=1000".to_owned(),
            rate: (args.rate / SELDOMER).max(1),
        },
        shape(
            "by_status_ms_p50",
            "by_status_ms_p99",
            "GET /tasks?status=cancelled, median",
            "/tasks?status=cancelled".to_owned(),
        ),
        shape(
            "by_agent_ms_p50",
            "by_agent_ms_p99",
            "GET /tasks?agent_name=&status=completed, median",
            format!("/tasks?agent_name={agent}&status=completed"),
        ),
        shape(
            "none_ms_p50",
            "none_ms_p99",
            "GET /tasks?agent_name=&status=failed (none), median",
            format!("/tasks?agent_name={agent}&status=failed"),
        ),
        shape(
            "by_trace_ms_p50",
            "by_trace_ms_p99",
            "GET /tasks?trace_id=, median",
            format!("/tasks?trace_id={trace}"),
        ),
        shape(
            "by_time_ms_p50",
            "by_time_ms_p99",
            "GET /tasks?started_after= (a hundredth), median",
            format!("/tasks?started_after={since}"),
        ),
        shape(
            "by_time_all_ms_p50",
            "by_time_all_ms_p99",
            "GET /tasks?started_before= (nearly all), median",
            format!("/tasks?started_before={since}"),
        ),
    ])
}

fn rfc3339(time: Time) -> String {
    time.to_rfc3339_opts(SecondsFormat::Millis, true)
}
