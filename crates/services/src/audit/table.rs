//! The table of the audit log: each process has a chain of its own there, so that nobody waits for another machine.
//!
//! A chain begins at a hash of its own name and is as long as its process lives. Its rows and its new end are one
//! transaction, so a crash leaves no gap; what was in the file and not yet in the table is in the file alone then.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use store::{AuditChain, AuditRow, Store};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

use super::Record;
use super::chain::{End, Seal, harmless, link};

/// How long after a failure it is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// How many batches of the file go into one transaction at most.
const MOST: usize = 8;

/// Lines that are in the file, and who waits for them.
pub(super) struct Batch {
    pub(super) records: Vec<Record>,
    pub(super) told: Vec<oneshot::Sender<()>>,
}

impl Batch {
    /// Tells those who wait.
    pub(super) fn tell(self) {
        for sender in self.told {
            // Whoever asked may have gone.
            sender.send(()).ok();
        }
    }
}

/// The chain of this process.
pub(super) struct Table {
    store: Arc<dyn Store>,
    seal: Seal,
    chain: Uuid,
    end: End,
    is_failing: Arc<AtomicBool>,
}

impl Table {
    pub(super) fn new(store: Arc<dyn Store>, seal: Seal, is_failing: Arc<AtomicBool>) -> Self {
        let chain = Uuid::now_v7();
        Self {
            end: beginning(&seal, chain),
            store,
            seal,
            chain,
            is_failing,
        }
    }

    /// Writes until nobody has anything to write.
    pub(super) async fn run(mut self, mut waiting: mpsc::Receiver<Batch>) {
        let mut batches = Vec::new();
        while waiting.recv_many(&mut batches, MOST).await > 0 {
            let records = batches.iter().flat_map(|batch| &batch.records);
            let mut end = self.end.clone();
            let mut rows = Vec::new();
            for record in records {
                match self.row(&end, record) {
                    Ok((row, next)) => {
                        rows.push(row);
                        end = next;
                    }
                    // It is in the file, and was written there by the same words.
                    Err(error) => {
                        tracing::error!(%error, "an act is not in the table of the audit log")
                    }
                }
            }
            if !rows.is_empty() {
                self.append(rows, end).await;
            }
            batches.drain(..).for_each(Batch::tell);
        }
    }

    fn row(&self, end: &End, record: &Record) -> std::io::Result<(AuditRow, End)> {
        let mut line = String::new();
        let next = link(&self.seal, &mut line, end, record)?;
        let columns = Columns::of(&line).map_err(std::io::Error::other)?;
        Ok((columns.row(self.chain, line), next))
    }

    /// Tries until it is done: a database that is away comes back.
    async fn append(&mut self, rows: Vec<AuditRow>, end: End) {
        let chain = AuditChain {
            chain: self.chain,
            anchor: Mark::new(&self.seal, Place::Anchor, self.chain, &self.end).text(),
            head: Mark::new(&self.seal, Place::Head, self.chain, &end).text(),
        };
        while let Err(error) = self.store.append_audit(chain.clone(), rows.clone()).await {
            if !self.is_failing.swap(true, Ordering::Relaxed) {
                tracing::error!(%error, "the table of the audit log can't be written; nothing is changed until it can");
            }
            metrics::counter!("agentrunner_audit_failures_total").increment(1);
            tokio::time::sleep(PAUSE).await;
        }
        self.end = end;
        if self.is_failing.swap(false, Ordering::Relaxed) {
            tracing::info!("the table of the audit log can be written again");
        }
    }
}

/// What comes before the first line of a chain.
pub(super) fn beginning(seal: &Seal, chain: Uuid) -> End {
    End {
        seq: 0,
        hash: seal.of(&format!("chain {chain}")),
    }
}

/// Which end of a chain a mark is of: one can't stand for the other.
#[derive(Debug, Clone, Copy)]
pub(super) enum Place {
    /// The line before the first that is kept.
    Anchor,
    /// The last line.
    Head,
}

/// A place of a chain, as it is noted beside it: whoever has no key can't move it.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Mark {
    #[serde(flatten)]
    pub(super) end: End,
    seal: String,
}

impl Mark {
    pub(super) fn new(seal: &Seal, place: Place, chain: Uuid, end: &End) -> Self {
        let word = match place {
            Place::Anchor => "anchor",
            Place::Head => "head",
        };
        Self {
            seal: seal.of(&format!("{word} {chain} {} {}", end.seq, end.hash)),
            end: end.clone(),
        }
    }

    pub(super) fn text(&self) -> String {
        // Texts and a number can always be written.
        serde_json::to_string(self).unwrap_or_default()
    }

    /// Reads one; `None` when it is none of ours.
    pub(super) fn read(seal: &Seal, place: Place, chain: Uuid, text: &str) -> Option<End> {
        let mark: Self = serde_json::from_str(text).ok()?;
        (Self::new(seal, place, chain, &mark.end).seal == mark.seal).then_some(mark.end)
    }
}

/// What the columns of a row repeat of its line.
#[derive(Debug, Deserialize)]
pub(super) struct Columns {
    seq: u64,
    at: domain::Time,
    who: Named,
    action: String,
    target: String,
    outcome: String,
    trace_id: String,
}

#[derive(Debug, Deserialize)]
struct Named {
    kind: String,
    name: String,
}

impl Columns {
    pub(super) fn of(line: &str) -> serde_json::Result<Self> {
        serde_json::from_str(line)
    }

    pub(super) fn row(self, chain: Uuid, line: String) -> AuditRow {
        let who = if self.who.name.is_empty() {
            self.who.kind
        } else {
            self.who.name
        };
        let micros = self.at.timestamp_micros();
        AuditRow {
            chain,
            seq: self.seq,
            at: domain::Time::from_timestamp_micros(micros).unwrap_or(self.at),
            who: shown(&who),
            action: shown(&self.action),
            target: shown(&self.target),
            outcome: shown(&self.outcome),
            trace_id: shown(&self.trace_id),
            line,
        }
    }
}

/// A text as it stands in the line: nothing in it is obeyed by a terminal.
fn shown(text: &str) -> String {
    let json = serde_json::to_string(text).unwrap_or_default();
    let bare = json
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'));
    harmless(bare.unwrap_or_default())
}
