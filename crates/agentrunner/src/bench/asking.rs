//! Requests in numbers, and how long each was waited for: at a fixed rate, or by so many clients that each ask again as
//! soon as they are answered.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::{Client, RequestBuilder, StatusCode};
use tokio::task::JoinSet;

use super::rig::client;
use super::statistics::ms;

/// How long it goes on before it counts.
const WARMUP: Duration = Duration::from_secs(2);

/// Who asks.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// So many requests a second, whether earlier ones were answered or not.
    Rate(u32),
    /// So many clients, one request of each at a time.
    Clients(u32),
}

/// Makes the request of a number.
pub(crate) type Make = Arc<dyn Fn(&Client, u64) -> RequestBuilder + Send + Sync>;

/// What came back.
#[derive(Debug, Default)]
pub(crate) struct Answers {
    /// The number of each request that was answered as wanted, and milliseconds from the moment at which it was due.
    pub(crate) took: Vec<(u64, f64)>,
    /// By how much asking itself was late at most, in milliseconds: beyond a few, the one that asks is measured.
    pub(crate) late: f64,
    /// How many were answered otherwise.
    pub(crate) refused: u32,
    /// For how long it was counted.
    pub(crate) counted: Duration,
}

impl Answers {
    /// How many were answered as wanted in a second.
    pub(crate) fn per_second(&self) -> f64 {
        self.took.len() as f64 / self.counted.as_secs_f64().max(f64::EPSILON)
    }

    /// What those of a kind took.
    pub(crate) fn times(&self, of: impl Fn(u64) -> bool) -> Vec<f64> {
        let wanted = self.took.iter().filter(|(n, _)| of(*n));
        wanted.map(|(_, took)| *took).collect()
    }
}

/// Asks for so long, on a thread and a runtime of its own: what asks must not wait for what answers.
///
/// # Errors
/// A connection fails, or no thread can be had.
pub(crate) async fn ask(
    pace: Pace,
    seconds: u32,
    wanted: StatusCode,
    make: Make,
) -> anyhow::Result<Answers> {
    let lasts = Duration::from_secs(seconds.into());
    let (done, result) = tokio::sync::oneshot::channel();
    thread::Builder::new()
        .name("bench-asking".to_owned())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let answers = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
                runtime.block_on(async {
                    match pace {
                        Pace::Rate(rate) => at_rate(rate, lasts, wanted, &make).await,
                        Pace::Clients(clients) => by_clients(clients, lasts, wanted, &make).await,
                    }
                })
            });
            // Nobody waits any more when the measurement was given up.
            drop(done.send(answers));
        })?;
    result.await.context("the thread that asks is gone")?
}

async fn at_rate(
    rate: u32,
    lasts: Duration,
    wanted: StatusCode,
    make: &Make,
) -> anyhow::Result<Answers> {
    let client = client()?;
    let began = Instant::now();
    let step = Duration::from_secs(1) / rate;
    let total = (f64::from(rate) * (lasts + WARMUP).as_secs_f64()) as u32;
    let mut asked = JoinSet::new();
    let mut answers = Answers {
        counted: lasts,
        ..Answers::default()
    };
    for n in 0..total {
        let due = began + step * n;
        tokio::time::sleep_until(due.into()).await;
        let counts = due - began >= WARMUP;
        if counts {
            answers.late = answers.late.max(ms(due.elapsed()));
        }
        let request = make(&client, n.into());
        asked.spawn(async move {
            let status = status(request).await?;
            anyhow::Ok((counts, u64::from(n), status, ms(due.elapsed())))
        });
    }
    while let Some(answer) = asked.join_next().await {
        let (counts, n, status, took) = answer??;
        match status == wanted {
            true if counts => answers.took.push((n, took)),
            true => {}
            false => answers.refused += 1,
        }
    }
    Ok(answers)
}

async fn by_clients(
    clients: u32,
    lasts: Duration,
    wanted: StatusCode,
    make: &Make,
) -> anyhow::Result<Answers> {
    let client = client()?;
    let began = Instant::now();
    let next = Arc::new(AtomicU64::new(0));
    let mut all = JoinSet::new();
    for _ in 0..clients {
        let (client, make, next) = (client.clone(), Arc::clone(make), Arc::clone(&next));
        all.spawn(async move {
            let mut own = Answers::default();
            while began.elapsed() < lasts + WARMUP {
                let n = next.fetch_add(1, Ordering::Relaxed);
                let due = Instant::now();
                let status = status(make(&client, n)).await?;
                match status == wanted {
                    true if due - began >= WARMUP => own.took.push((n, ms(due.elapsed()))),
                    true => {}
                    false => own.refused += 1,
                }
            }
            anyhow::Ok(own)
        });
    }
    let mut answers = Answers {
        counted: lasts,
        ..Answers::default()
    };
    while let Some(own) = all.join_next().await {
        let own = own??;
        answers.took.extend(own.took);
        answers.refused += own.refused;
    }
    Ok(answers)
}

async fn status(request: RequestBuilder) -> reqwest::Result<StatusCode> {
    let response = request.send().await?;
    let status = response.status();
    response.bytes().await?;
    Ok(status)
}
