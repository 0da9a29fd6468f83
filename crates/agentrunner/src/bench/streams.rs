//! What many clients cost who follow executions by server-sent events, and how soon the last of them hears of a step: from
//! the moment at which it is made, so its commit is a part of it.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context as _;
use chrono::{DateTime, Utc};
use eventsource_stream::Eventsource as _;
use futures::StreamExt as _;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::memory;
use super::report::Report;
use super::rig::{Folder, Provider, TURNS, client, write_agents};
use super::startup;
use super::statistics::percentile;
use crate::cli::Context;
use crate::commands::bench::Streams;

/// How long the server is left alone before its memory is read.
const REST: Duration = Duration::from_secs(2);
/// How many streams are opened at once.
const OPENING: usize = 64;
/// How long the stand-in takes for an answer: the streams are open before the second one.
const LATENCY: Duration = Duration::from_secs(4);
/// How long all of it may take.
const PATIENCE: Duration = Duration::from_secs(120);

/// A step, as a client heard of it.
struct Heard {
    execution: String,
    seq: String,
    made: DateTime<Utc>,
    at: DateTime<Utc>,
}

/// Measures, and prints.
///
/// # Errors
/// The server does not start, or takes no task or stream.
pub(crate) async fn measure(context: &Context, args: &Streams) -> anyhow::Result<()> {
    let folder = Folder::new(&context.settings, args.store_dir.as_deref())?;
    let provider = Provider::start(LATENCY).await?;
    write_agents(folder.path(), &provider.url, 0)?;
    let (server, _) = startup::start(folder.path()).await?;
    let http = client()?;
    let spinner = context.screen.spinner("opening streams");
    tokio::time::sleep(REST).await;
    let pid = server.child.id().context("the server ended")?;
    let before = memory::resident_mib(pid);
    let mut ids = Vec::new();
    for _ in 0..args.executions.min(args.clients) {
        ids.push(submit(&http, &server.url).await?);
    }
    let (tell, mut told) = mpsc::unbounded_channel();
    let opened = futures::stream::iter((0..args.clients as usize).zip(ids.iter().cycle()))
        .map(|(_, id)| open(http.clone(), &server.url, id.clone(), tell.clone()))
        .buffer_unordered(OPENING)
        .collect::<Vec<_>>()
        .await;
    drop(tell);
    let readers = opened.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let all_open = Utc::now();
    spinner.set_message("listening");
    let open = memory::resident_mib(pid);
    let mut events = BTreeMap::new();
    let hear = async {
        while let Some(heard) = told.recv().await {
            if heard.made > all_open {
                note(&mut events, heard);
            }
        }
    };
    tokio::time::timeout(PATIENCE, hear)
        .await
        .context("the executions do not come to their end")?;
    for reader in readers {
        reader.await??;
    }
    let after = memory::resident_mib(pid);
    spinner.finish_and_clear();
    let mut report = Report::default();
    report.add("clients", "open streams", f64::from(args.clients), "");
    report.add(
        "executions",
        "executions that they follow",
        ids.len() as f64,
        "",
    );
    report.add(
        "rss_before_mib",
        "memory of the server before",
        before,
        "MiB",
    );
    report.add("rss_open_mib", "memory with all streams open", open, "MiB");
    report.add("rss_after_mib", "memory after the last event", after, "MiB");
    tell_latency(&mut report, args, events, ids.len());
    report.print(&context.screen);
    Ok(())
}

type Events = BTreeMap<(String, String), Vec<f64>>;

fn note(events: &mut Events, heard: Heard) {
    let took = (heard.at - heard.made)
        .num_microseconds()
        .unwrap_or(i64::MAX);
    let event = events.entry((heard.execution, heard.seq)).or_default();
    event.push(took as f64 / 1e3);
}

fn tell_latency(report: &mut Report, args: &Streams, events: Events, executions: usize) {
    // A client that missed an event would make the last of the others look early.
    let whole = args.clients as usize / executions.max(1);
    let (mut last, mut middle) = (Vec::new(), Vec::new());
    for mut took in events.into_values().filter(|took| took.len() >= whole) {
        last.push(percentile(&mut took, 100.0));
        middle.push(percentile(&mut took, 50.0));
    }
    report.add(
        "events",
        "events that all of them heard",
        last.len() as f64,
        "",
    );
    if last.is_empty() {
        return;
    }
    for (key, label, value) in [
        (
            "median_client_ms",
            "until half of the clients heard, median",
            percentile(&mut middle, 50.0),
        ),
        (
            "last_client_ms_p50",
            "until the last client heard, median",
            percentile(&mut last, 50.0),
        ),
        (
            "last_client_ms_max",
            "the slowest event",
            percentile(&mut last, 100.0),
        ),
    ] {
        report.add(key, label, value, "ms");
    }
}

async fn submit(http: &Client, url: &str) -> anyhow::Result<String> {
    let task = json!({ "agent_name": TURNS, "task_data": { "prompt": "Go." } });
    let answer = http.post(format!("{url}/tasks")).json(&task).send().await?;
    let accepted: Value = answer.error_for_status()?.json().await?;
    let id = accepted.get("execution_id").and_then(Value::as_str);
    Ok(id.context("no execution_id")?.to_owned())
}

type Reading = tokio::task::JoinHandle<anyhow::Result<()>>;

/// Opens a stream; what reads it tells of each step.
async fn open(
    http: Client,
    url: &str,
    execution: String,
    tell: mpsc::UnboundedSender<Heard>,
) -> anyhow::Result<Reading> {
    let response = http
        .get(format!("{url}/tasks/{execution}/events"))
        .send()
        .await?
        .error_for_status()
        .context("a stream is refused")?;
    let mut events = response.bytes_stream().eventsource();
    Ok(tokio::spawn(async move {
        while let Some(event) = events.next().await {
            let (event, at) = (event?, Utc::now());
            match event.event.as_str() {
                "done" => return Ok(()),
                "step" => {
                    // Reading all of it by two thousand clients would be most of what is measured.
                    let made = event.data.split_once("\"at\":\"").map(|(_, rest)| rest);
                    let made = made.and_then(|rest| rest.split_once('"'));
                    let (made, _) = made.context("a step without a time")?;
                    let heard = Heard {
                        execution: execution.clone(),
                        seq: event.id,
                        made: made.parse()?,
                        at,
                    };
                    tell.send(heard).ok();
                }
                _ => {}
            }
        }
        anyhow::bail!("a stream ended early")
    }))
}
