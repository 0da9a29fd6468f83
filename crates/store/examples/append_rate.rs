//! How many durable appends a store takes in a second, beside what its disk or server can do at best.
//!
//! `cargo run --release -p agentrunner-store --example append_rate [folder | postgres://...]`. A folder (default: the
//! system's for temporary files) is where SQLite is measured; the database of a URL is where PostgreSQL is, and is
//! filled with executions: use one to throw away. Each append is what one step of an agent commits: a step of about
//! 450 bytes with its usage, and every fourth time an event.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use agentrunner_store::postgres::{Postgres, Settings};
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

const CALLERS: [usize; 4] = [1, 8, 64, 256];
const SIDE_BY_SIDE: u32 = 1000;
const TIME_PER_LINE: Duration = Duration::from_secs(3);

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match std::env::args_os().nth(1) {
        Some(url) if url.to_string_lossy().starts_with("postgres") => {
            runtime.block_on(postgres(&url.to_string_lossy()))
        }
        folder => sqlite(
            &runtime,
            folder.map_or_else(std::env::temp_dir, PathBuf::from),
        ),
    }
}

fn sqlite(runtime: &tokio::runtime::Runtime, folder: PathBuf) -> Result<(), Failure> {
    let folder = folder.join(format!("append-rate-{}", Uuid::now_v7()));
    std::fs::create_dir_all(&folder)?;
    let flushes = flushes_per_second(&folder)?;
    writeln!(io::stdout(), "flushes of 4 KiB: {flushes:.0}/s")?;
    for (name, is_durable) in [("durable", true), ("without flush", false)] {
        for callers in CALLERS {
            let path = folder.join(format!("{name}-{callers}.db"));
            let options = Options {
                is_durable,
                ..Options::default()
            };
            let store = Arc::new(Sqlite::open(&path, options)?);
            runtime.block_on(report(name, store.clone(), callers))?;
            runtime.block_on(store.close())?;
        }
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

async fn postgres(url: &str) -> Result<(), Failure> {
    let settings = Settings {
        url: Some(url.to_owned().into()),
        ..Settings::default()
    };
    let store = Arc::new(Postgres::connect(settings).await?);
    let (single, append) = side_by_side(url, store.as_ref()).await?;
    writeln!(
        io::stdout(),
        "in turn: one row by itself, median {single:.2} ms; one append, median {append:.2} ms: {:.2} times as long",
        append / single
    )?;
    for callers in CALLERS {
        report("postgres", store.clone(), callers).await?;
    }
    Ok(store.close().await?)
}

/// The median times of committing one small row and of an append, in milliseconds. In turn, since a disk that others
/// use is now fast and now slow.
async fn side_by_side(url: &str, store: &dyn Store) -> Result<(f64, f64), Failure> {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls).await?;
    tokio::spawn(connection);
    client
        .batch_execute("CREATE TABLE IF NOT EXISTS single_row_commits (body text NOT NULL)")
        .await?;
    let insert = client
        .prepare("INSERT INTO single_row_commits VALUES ($1)")
        .await?;
    let body = "x".repeat(450);
    let owner = leased(store).await?;
    let (mut singles, mut appends) = (Vec::new(), Vec::new());
    for n in 1..=SIDE_BY_SIDE {
        let begin = Instant::now();
        client.execute(&insert, &[&body]).await?;
        singles.push(begin.elapsed());
        let append = append(&owner, n)?;
        let begin = Instant::now();
        store.append(append).await?;
        appends.push(begin.elapsed());
    }
    Ok((median(&mut singles), median(&mut appends)))
}

/// In milliseconds.
fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    let middle = times.get(times.len() / 2).copied().unwrap_or_default();
    middle.as_secs_f64() * 1e3
}

async fn report(name: &str, store: Arc<dyn Store>, callers: usize) -> Result<(), Failure> {
    let mut owners = Vec::new();
    for _ in 0..callers {
        owners.push(leased(store.as_ref()).await?);
    }
    let (busy, start) = (cpu_seconds(), Instant::now());
    let calls: Vec<_> = owners
        .into_iter()
        .map(|owner| tokio::spawn(append_until(store.clone(), owner, start + TIME_PER_LINE)))
        .collect();
    let mut times = Vec::new();
    for call in calls {
        times.extend(call.await??);
    }
    let appends = times.len() as f64;
    let rate = appends / start.elapsed().as_secs_f64();
    let cpu = (cpu_seconds() - busy) / appends * 1e6;
    let median = median(&mut times);
    writeln!(
        io::stdout(),
        "{name}, {callers:3} callers: {rate:6.0} appends/s, median {median:.2} ms, {cpu:.0} µs CPU each"
    )?;
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

async fn append_until(
    store: Arc<dyn Store>,
    owner: Claimed,
    end: Instant,
) -> Result<Vec<Duration>, Failure> {
    let mut times = Vec::new();
    while Instant::now() < end {
        let append = append(&owner, u32::try_from(times.len() + 1)?)?;
        let begin = Instant::now();
        if store.append(append).await? == Appended::LostLease {
            return Err("the lease was lost".into());
        }
        times.push(begin.elapsed());
    }
    Ok(times)
}

async fn leased(store: &dyn Store) -> Result<Claimed, Failure> {
    let execution = task()?;
    let (id, now) = (execution.id, execution.created_at);
    let submission = Submission {
        execution,
        idempotency: None,
        events: Vec::new(),
        when_busy: agentrunner_store::WhenBusy::default(),
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
        upstream: None,
        parent: None,
        origin: None,
        event_id: None,
        hops: 0,
        restored: None,
        callback_url: None,
        metadata: Value::Null,
    })
}

fn append(owner: &Claimed, seq: u32) -> Result<Append, Failure> {
    let now = owner.execution.created_at;
    let call = ModelCall {
        purpose: domain::Purpose::Turn,
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
