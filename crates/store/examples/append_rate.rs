//! How many durable appends the SQLite store takes in a second, beside what the disk can flush.
//!
//! `cargo run --release -p agentrunner-store --example append_rate [folder]`. The folder (default: the system's for
//! temporary files) decides which disk is measured. Each append is what one step of an agent commits: a step of
//! about 450 bytes with its usage, and every fourth time an event.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use agentrunner_store::sqlite::{Options, Sqlite};
use agentrunner_store::{Append, Appended, Claim, Claimed, Store, Submission, Then};
use domain::definition::Provider;
use domain::execution::Totals;
use domain::step::ModelCall;
use domain::{
    Event, Execution, ExecutionId, ExecutionMode, Priority, Reply, Seq, Step, StepBody, StopReason,
    Time, Tokens, TraceId, Usage,
};
use serde_json::{Value, json};
use uuid::Uuid;

const TIME_PER_LINE: Duration = Duration::from_secs(3);

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let folder = std::env::args_os()
        .nth(1)
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let folder = folder.join(format!("append-rate-{}", Uuid::now_v7()));
    std::fs::create_dir_all(&folder)?;
    let mut out = io::stdout();
    writeln!(
        out,
        "flushes of 4 KiB: {:.0}/s",
        flushes_per_second(&folder)?
    )?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    for (name, is_durable) in [("durable", true), ("without flush", false)] {
        for callers in [1, 8, 64, 256] {
            let path = folder.join(format!("{name}-{callers}.db"));
            let options = Options {
                is_durable,
                ..Options::default()
            };
            let store = Sqlite::open(&path, options)?;
            let busy = cpu_seconds();
            let (appends, took) = runtime.block_on(measure(&store, callers))?;
            let cpu = (cpu_seconds() - busy) / appends as f64 * 1e6;
            let rate = appends as f64 / took.as_secs_f64();
            let each = took.as_secs_f64() * 1e3 * callers as f64 / appends as f64;
            writeln!(
                out,
                "{name}, {callers:3} callers: {rate:6.0} appends/s, {each:.2} ms each, {cpu:.0} µs CPU each"
            )?;
            runtime.block_on(store.close())?;
        }
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

/// What the disk alone can do.
fn flushes_per_second(folder: &Path) -> io::Result<f64> {
    let mut file = std::fs::File::create(folder.join("flush"))?;
    let (start, mut n) = (Instant::now(), 0u32);
    while start.elapsed() < Duration::from_secs(1) {
        file.write_all(&[7; 4096])?;
        file.sync_data()?;
        n += 1;
    }
    Ok(f64::from(n) / start.elapsed().as_secs_f64())
}

/// User and system time of this process; zero where `/proc` does not tell.
fn cpu_seconds() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks: u64 = after_name
        .split_whitespace()
        .skip(11)
        .take(2)
        .filter_map(|ticks| ticks.parse::<u64>().ok())
        .sum();
    ticks as f64 / 100.0
}

async fn measure(store: &Sqlite, callers: usize) -> Result<(u64, Duration), Failure> {
    let mut owners = Vec::new();
    for _ in 0..callers {
        owners.push(leased(store).await?);
    }
    let start = Instant::now();
    let calls: Vec<_> = owners
        .into_iter()
        .map(|owner| tokio::spawn(append_until(store.clone(), owner, start + TIME_PER_LINE)))
        .collect();
    let mut appends = 0;
    for call in calls {
        appends += call.await??;
    }
    Ok((appends, start.elapsed()))
}

async fn append_until(store: Sqlite, owner: Claimed, end: Instant) -> Result<u64, Failure> {
    let mut n = 0;
    while Instant::now() < end {
        n += 1;
        let append = append(&owner, u32::try_from(n)?)?;
        if store.append(append).await? == Appended::LostLease {
            return Err("the lease was lost".into());
        }
    }
    Ok(n)
}

async fn leased(store: &Sqlite) -> Result<Claimed, Failure> {
    let execution = task()?;
    let (id, now) = (execution.id, execution.created_at);
    let submission = Submission {
        execution,
        idempotency: None,
        events: Vec::new(),
    };
    store.submit(submission).await?;
    let claim = Claim {
        worker: "bench".parse()?,
        now,
        lease: Duration::from_secs(3600),
        limit: 1,
        only: Some(id),
        modes: vec![ExecutionMode::Autonomous],
        without: Vec::new(),
    };
    let mut claimed = store.claim(claim).await?;
    claimed.pop().ok_or_else(|| "nothing was claimed".into())
}

fn task() -> Result<Execution, Failure> {
    let now = Time::from_timestamp(1_800_000_000, 0).ok_or("no such time")?;
    Ok(Execution {
        id: ExecutionId::from_uuid(Uuid::now_v7()),
        agent: "bench".parse()?,
        version: "0123456789abcdef".parse()?,
        mode: ExecutionMode::Autonomous,
        input: json!("work"),
        history: Vec::new(),
        conversation: None,
        priority: Priority::Normal,
        created_at: now,
        deadline: now + Duration::from_secs(3600),
        budget: Default::default(),
        trace_id: TraceId::from_uuid(Uuid::now_v7()),
        parent: None,
        event_id: None,
        hops: 0,
        callback_url: None,
        metadata: Value::Null,
    })
}

fn append(owner: &Claimed, seq: u32) -> Result<Append, Failure> {
    let now = owner.execution.created_at;
    let call = ModelCall {
        provider: Provider::Scripted,
        model: "bench".to_owned(),
        reply: Reply {
            text: "the quick brown fox jumps over the lazy dog. ".repeat(5),
            tool_calls: Vec::new(),
            stop: StopReason::EndTurn,
            provider_data: None,
        },
        targets: Vec::new(),
        violations: Vec::new(),
        structured: None,
        usage: Usage {
            input_tokens: Tokens(100),
            output_tokens: Tokens(50),
            cached_tokens: Tokens(0),
        },
        cost_usd: None,
        took_ms: 1,
        first_token_ms: None,
    };
    let mut events = Vec::new();
    if seq.is_multiple_of(4) {
        events.push(Event {
            id: format!("{}-{seq}", owner.execution.id).parse()?,
            topic: "agent.output.bench".parse()?,
            source: "agentrunner/bench".to_owned(),
            time: now,
            trace_id: owner.execution.trace_id.clone(),
            hops: 0,
            data: json!({ "seq": seq }),
        });
    }
    Ok(Append {
        id: owner.execution.id,
        epoch: owner.epoch,
        now,
        steps: vec![Step {
            seq: Seq::new(seq),
            at: now,
            epoch: owner.epoch,
            body: StepBody::ModelCall(Box::new(call)),
        }],
        totals: Totals::default(),
        events,
        children: Vec::new(),
        then: Then::Continue,
    })
}
