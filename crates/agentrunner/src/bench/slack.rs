//! How long Slack waits for its answer while events come at a fixed rate: signature, deduplication and the event on disk.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::StatusCode;
use serde_json::json;
use sha2::Sha256;
use tokio::task::JoinSet;

use super::report::Report;
use super::rig::{Faces, Rig, SLACK_SECRET, client};
use super::statistics::{ms, percentile};
use crate::cli::Context;
use crate::commands::bench::Slack;

/// How long it goes on before it counts.
const WARMUP: Duration = Duration::from_secs(2);
const CAPACITY: usize = 64;
/// Each so many-th event is one that was sent before, as Slack does when it is not sure.
const AGAIN: u32 = 10;

/// Measures, and prints.
///
/// # Errors
/// An event is not taken, or the rig can't be built.
pub(crate) async fn measure(context: &Context, args: &Slack) -> anyhow::Result<()> {
    let store_dir = args.store_dir.as_deref();
    let rig = Rig::with(context, Duration::ZERO, CAPACITY, store_dir, Faces::Slack).await?;
    let spinner = context.screen.spinner("sending events");
    let url = format!("{}/slack/events", rig.system.slack_url());
    let (rate, seconds) = (args.rate, args.seconds);
    let (done, result) = tokio::sync::oneshot::channel();
    // A thread and a runtime of its own: what asks must not wait for what answers.
    thread::Builder::new()
        .name("bench-slack".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let answers = runtime
                .map_err(anyhow::Error::from)
                .and_then(|runtime| runtime.block_on(send(&url, rate, seconds)));
            // Nobody waits any more when the measurement was given up.
            drop(done.send(answers));
        })?;
    let (mut took, late) = result.await.context("the thread that asks is gone")??;
    spinner.finish_and_clear();
    let mut report = Report::default();
    report.add("rate", "events", f64::from(rate), "/s");
    report.add("accepted", "answered 200", took.len() as f64, "");
    for (name, words, percent) in [
        ("slack_ms_p50", "answered in, median", 50.0),
        ("slack_ms_p99", "99 of 100", 99.0),
        ("slack_ms_max", "the slowest", 100.0),
    ] {
        report.add(name, words, percentile(&mut took, percent), "ms");
    }
    report.add("late_ms_max", "sent too late by, at most", late, "ms");
    rig.report_disk(&mut report).await?;
    report.print(&context.screen);
    rig.close().await;
    Ok(())
}

/// Milliseconds from the moment at which each was due to be sent; and by how much sending itself was late at most.
async fn send(url: &str, rate: u32, seconds: u32) -> anyhow::Result<(Vec<f64>, f64)> {
    let client = client()?;
    let began = Instant::now();
    let step = Duration::from_secs(1) / rate;
    let total = rate * seconds + (f64::from(rate) * WARMUP.as_secs_f64()) as u32;
    let mut sent = JoinSet::new();
    let mut late: f64 = 0.0;
    for n in 0..total {
        let due = began + step * n;
        tokio::time::sleep_until(due.into()).await;
        let counts = due - began >= WARMUP;
        if counts {
            late = late.max(ms(due.elapsed()));
        }
        let body = event(if n % AGAIN == AGAIN - 1 { n - 1 } else { n });
        let at = chrono::Utc::now().timestamp();
        let request = client
            .post(url)
            .header("x-slack-request-timestamp", at.to_string())
            .header("x-slack-signature", sign(at, &body)?)
            .body(body);
        sent.spawn(async move {
            let response = request.send().await?;
            let status = response.status();
            response.bytes().await?;
            anyhow::ensure!(status == StatusCode::OK, "an event was answered {status}");
            anyhow::Ok(counts.then(|| ms(due.elapsed())))
        });
    }
    let mut took = Vec::new();
    while let Some(answer) = sent.join_next().await {
        took.extend(answer??);
    }
    Ok((took, late))
}

/// A mention, as Slack sends it.
fn event(n: u32) -> String {
    json!({
        "token": "deprecated", "team_id": "T00000001", "api_app_id": "A00000001", "type": "event_callback",
        "event_id": format!("Ev{n:08}"), "event_time": 1_732_440_600, "is_ext_shared_channel": false,
        "event": {
            "type": "app_mention", "user": "U00000001", "text": "<@UBOT00001> what is the weather like today?",
            "ts": format!("1732440600.{n:06}"), "channel": "C00000001", "event_ts": format!("1732440600.{n:06}"),
        },
        "authorizations": [{ "team_id": "T00000001", "user_id": "UBOT00001", "is_bot": true }],
    })
    .to_string()
}

fn sign(at: i64, body: &str) -> anyhow::Result<String> {
    let mut mac = Hmac::<Sha256>::new_from_slice(SLACK_SECRET.as_bytes())?;
    mac.update(format!("v0:{at}:{body}").as_bytes());
    let bytes = mac.finalize().into_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(format!("v0={hex}"))
}
