//! How long `POST /tasks` takes, at a fixed rate of requests or by so many clients that ask one after the other, while
//! what is submitted is performed, or only accepted.

use std::time::Duration;

use reqwest::StatusCode;
use serde_json::json;

use super::asking::{Pace, ask};
use super::report::Report;
use super::rig::{Faces, Rig, TURNS};
use super::statistics::percentile;
use crate::cli::Context;
use crate::commands::bench::Submit;

/// As many as a process performs by default.
const CAPACITY: usize = 1000;

/// Measures, and prints.
///
/// # Errors
/// A task is not accepted, or the rig can't be built.
pub(crate) async fn measure(context: &Context, args: &Submit) -> anyhow::Result<()> {
    let latency = Duration::from_millis(args.latency_ms);
    let faces = if args.accept_only {
        Faces::Orchestrator
    } else {
        Faces::Http
    };
    let store_dir = args.store_dir.as_deref();
    let rig = Rig::with(context, latency, CAPACITY, store_dir, faces).await?;
    let spinner = context.screen.spinner("submitting");
    let url = format!("{}/tasks", rig.system.orchestrator_url());
    let body = json!({ "agent_name": TURNS, "task_data": { "prompt": "Go." } });
    let pace = args.clients.map_or(Pace::Rate(args.rate), Pace::Clients);
    let make = rig.request(move |client| client.post(&url).json(&body));
    let answers = ask(pace, args.seconds, StatusCode::ACCEPTED, make).await?;
    spinner.finish_and_clear();
    let mut report = Report::default();
    match pace {
        Pace::Rate(rate) => report.add("rate", "requests", f64::from(rate), "/s"),
        Pace::Clients(clients) => report.add("clients", "clients", f64::from(clients), ""),
    }
    report.add("accepted", "accepted", answers.took.len() as f64, "");
    report.add("accepted_per_s", "accepted", answers.per_second(), "/s");
    report.add("refused", "refused", f64::from(answers.refused), "");
    let mut took = answers.times(|_| true);
    for (key, label, percent) in [
        ("submit_ms_p50", "answered in, median", 50.0),
        ("submit_ms_p99", "99 of 100", 99.0),
        ("submit_ms_max", "the slowest", 100.0),
    ] {
        report.add(key, label, percentile(&mut took, percent), "ms");
    }
    if let Pace::Rate(_) = pace {
        let late = answers.late;
        report.add("late_ms_max", "asked too late by, at most", late, "ms");
    }
    rig.report_disk(&mut report).await?;
    report.print(&context.screen);
    rig.close().await;
    Ok(())
}
