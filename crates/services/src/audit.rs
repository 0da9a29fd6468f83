//! The audit log: who did what, from where, on what, with which outcome, in lines that are chained by hashes.
//!
//! One file, however many processes of a machine write it (`audit/chain.rs` says how), and then a table, in which each
//! process has a chain of its own (`audit/table.rs`). A change is answered when its line is in both; lines that come at
//! once share one flush and one transaction. While either can't be written nothing is changed: the door says so.
//! [`verify()`] and [`verify_table`] find a line that was changed, taken away or moved.

mod chain;
mod table;
mod table_verify;
mod verify;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use domain::Time;
use secrecy::SecretString;
use serde::Serialize;
use serde_json::{Map, Value};
use tokio::sync::{mpsc, oneshot};

use chain::{Chain, Seal};
use store::Store;
use table::{Batch, Table};
pub use table_verify::verify_table;
pub use verify::{Flaw, Verdict, files_of, verify};

/// How many lines wait to be written at most.
const QUEUE: usize = 10_000;
/// How many are written together at most.
const BATCH: usize = 1000;
/// How many such batches wait for the table at most.
const BATCHES: usize = 8;
/// How long an answer waits for its line.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How many refusals of strangers a second are written one by one; the others are counted.
const STRANGERS: u64 = 20;

/// Who did something.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Who {
    /// key, bootstrap, anybody, slack, or unknown; agent or file when no request asked for it.
    pub(crate) kind: &'static str,
    /// The key's id, or the person's in Slack; never the key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) id: Option<String>,
    pub(crate) name: String,
}

impl Who {
    /// Whoever showed no key that is valid.
    pub(crate) fn unknown() -> Self {
        Self {
            kind: "unknown",
            id: None,
            name: String::new(),
        }
    }
}

/// Something that was done, or refused.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Record {
    pub(crate) at: Time,
    pub(crate) who: Who,
    /// The address.
    pub(crate) from: Option<String>,
    /// Method and route.
    pub(crate) action: String,
    /// The address of the thing.
    pub(crate) target: String,
    /// done, refused, denied or failed.
    pub(crate) outcome: &'static str,
    /// Of the answer to a request.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) status: Option<u16>,
    pub(crate) code: Option<&'static str>,
    pub(crate) trace_id: String,
    /// What the address does not say.
    pub(crate) details: Map<String, Value>,
}

/// Something that happened without a request.
#[derive(Debug, Clone)]
pub struct Act {
    /// When.
    pub at: Time,
    /// agent, or file.
    pub kind: &'static str,
    /// Which.
    pub who: String,
    /// What was done.
    pub action: String,
    /// On what.
    pub target: String,
    /// done, refused, denied or failed.
    pub outcome: &'static str,
    /// The trace that it belongs to; empty when none.
    pub trace_id: String,
    /// More.
    pub details: Map<String, Value>,
}

/// Where it is written down, if it is. Cheap to clone; all clones are one.
#[derive(Clone, Default)]
pub struct Audit(Option<Arc<Inner>>);

struct Inner {
    lines: mpsc::Sender<Message>,
    is_failing: Arc<AtomicBool>,
    /// The same of the table.
    is_table_failing: Arc<AtomicBool>,
    seal: Seal,
    strangers: Strangers,
}

enum Message {
    Line(Box<Record>, Option<oneshot::Sender<()>>),
    Flush(oneshot::Sender<()>),
}

impl Audit {
    /// Nothing is written down.
    pub fn none() -> Self {
        Self::default()
    }

    /// Into this file, made if it is missing, and into the table of a store, with hashes that only the holder of `key` can
    /// make, if there is one. To be called where tasks can be spawned.
    ///
    /// # Errors
    /// It can't be opened or written, or no thread can be had.
    pub fn open(
        path: &Path,
        key: Option<&SecretString>,
        store: Option<Arc<dyn Store>>,
    ) -> std::io::Result<Self> {
        let chain = Chain::open(path, key)?;
        let (lines, waiting) = mpsc::channel(QUEUE);
        let (is_failing, is_table_failing) = <(Arc<AtomicBool>, Arc<AtomicBool>)>::default();
        let seal = Seal::new(key);
        let table = store.map(|store| {
            let (batches, waiting) = mpsc::channel(BATCHES);
            let table = Table::new(store, seal.clone(), is_table_failing.clone());
            tokio::spawn(table.run(waiting));
            batches
        });
        let writer = Writer {
            chain,
            table,
            waiting,
            is_failing: is_failing.clone(),
        };
        std::thread::Builder::new()
            .name("audit".to_owned())
            .spawn(move || writer.run())?;
        let strangers = Strangers::default();
        Ok(Self(Some(Arc::new(Inner {
            lines,
            is_failing,
            is_table_failing,
            seal,
            strangers,
        }))))
    }

    /// Whether anything is written down.
    pub const fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Whether the file or the table could not be written just now.
    pub(crate) fn is_failing(&self) -> bool {
        let failing = |inner: &Arc<Inner>| {
            let both = [&inner.is_failing, &inner.is_table_failing];
            both.iter().any(|failing| failing.load(Ordering::Relaxed))
        };
        self.0.as_ref().is_some_and(failing)
    }

    /// Writes a line, and waits until it is on disk; not for the refusals of strangers, who are not to set the pace.
    pub(crate) async fn write(&self, mut record: Record) {
        let Some(inner) = &self.0 else { return };
        if record.who.kind == "unknown" {
            let Some(skipped) = inner.strangers.admit(record.at) else {
                return;
            };
            if skipped > 0 {
                record
                    .details
                    .insert("denials_not_written".to_owned(), skipped.into());
            }
            if inner
                .lines
                .try_send(Message::Line(Box::new(record), None))
                .is_err()
            {
                tracing::warn!("a denial was not written to the audit log: too many lines wait");
            }
            return;
        }
        let (sender, written) = oneshot::channel();
        let message = Message::Line(Box::new(record), Some(sender));
        let writing = async {
            inner.lines.send(message).await.ok();
            written.await.ok();
        };
        if tokio::time::timeout(PATIENCE, writing).await.is_err() {
            inner.is_failing.store(true, Ordering::Relaxed);
            tracing::error!(
                "a line waits to be written to the audit log; nothing more is changed until it is"
            );
        }
    }

    /// Forgets rows of the table that are older than this, or only counts them (`dry_run`); answers how many.
    ///
    /// # Errors
    /// The store can't do it.
    pub async fn forget(
        &self,
        store: &dyn Store,
        before: Time,
        dry_run: bool,
    ) -> store::Result<u64> {
        match &self.0 {
            Some(inner) => table_verify::forget(store, &inner.seal, before, dry_run).await,
            None => Ok(0),
        }
    }

    /// Writes down what no request asked for: what came by a file, or what an agent was refused.
    pub async fn note(&self, act: Act) {
        if !self.is_on() {
            return;
        }
        self.write(Record {
            at: act.at,
            who: Who {
                kind: act.kind,
                id: None,
                name: act.who,
            },
            from: None,
            action: act.action,
            target: act.target,
            outcome: act.outcome,
            status: None,
            code: None,
            trace_id: act.trace_id,
            details: act.details,
        })
        .await;
    }

    /// Waits until all lines are on disk, a few seconds at most.
    pub async fn flush(&self) {
        let Some(inner) = &self.0 else { return };
        let (sender, written) = oneshot::channel();
        let flushing = async {
            inner.lines.send(Message::Flush(sender)).await.ok();
            written.await.ok();
        };
        if tokio::time::timeout(PATIENCE, flushing).await.is_err() {
            tracing::error!("lines of the audit log were not written before the end");
        }
    }
}

/// Strangers who are refused could fill the disk: so many a second are written, the rest is a number in the next line.
#[derive(Debug, Default)]
struct Strangers {
    second: AtomicU64,
    written: AtomicU64,
    skipped: AtomicU64,
}

impl Strangers {
    /// How many were left out before this one; `None` when this one is left out.
    fn admit(&self, now: Time) -> Option<u64> {
        let second = u64::try_from(now.timestamp()).unwrap_or_default();
        if self.second.swap(second, Ordering::Relaxed) != second {
            self.written.store(0, Ordering::Relaxed);
        }
        if self.written.fetch_add(1, Ordering::Relaxed) < STRANGERS {
            return Some(self.skipped.swap(0, Ordering::Relaxed));
        }
        self.skipped.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// The thread that writes.
struct Writer {
    chain: Chain,
    table: Option<mpsc::Sender<Batch>>,
    waiting: mpsc::Receiver<Message>,
    is_failing: Arc<AtomicBool>,
}

impl Writer {
    fn run(mut self) {
        let mut messages = Vec::with_capacity(BATCH);
        while self.waiting.blocking_recv_many(&mut messages, BATCH) > 0 {
            let (mut records, mut told) = (Vec::new(), Vec::new());
            for message in messages.drain(..) {
                match message {
                    Message::Line(record, sender) => {
                        records.push(*record);
                        told.extend(sender);
                    }
                    Message::Flush(sender) => told.push(sender),
                }
            }
            self.append(&records);
            let batch = Batch { records, told };
            match &self.table {
                Some(table) => match table.blocking_send(batch) {
                    Ok(()) => {}
                    // Its runtime ended.
                    Err(mpsc::error::SendError(batch)) => batch.tell(),
                },
                None => batch.tell(),
            }
        }
    }

    /// Tries until it is done: a disk that is full may have space again.
    fn append(&self, records: &[Record]) {
        while let Err(error) = self.chain.append(records) {
            if !self.is_failing.swap(true, Ordering::Relaxed) {
                let path = self.chain.path().display();
                tracing::error!(%error, "the audit log {path} can't be written; nothing is changed until it can");
            }
            metrics::counter!("agentrunner_audit_failures_total").increment(1);
            if self.waiting.is_closed() {
                return;
            }
            std::thread::sleep(PAUSE);
        }
        if self.is_failing.swap(false, Ordering::Relaxed) {
            tracing::info!("the audit log can be written again");
        }
    }
}

/// The file that holds the end of the chain of a log.
fn head_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".head");
    name.into()
}

#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;
