//! The one thread that writes, and its group commit.
//!
//! Requests come over a bounded queue. The thread takes whatever waits, performs it in one transaction, commits once
//! and answers all. It never waits for more: alone, a request costs one commit; under load, batches form by
//! themselves while the disk is busy with the commit before.
//!
//! # A request that fails harms no other
//! Requests run without savepoints, which would cost more than the requests. One that fails before it has changed
//! anything, as nearly all do that fail, leaves nothing to undo. When one fails later, the transaction is rolled back
//! and the batch is performed again, this time with a savepoint around each. So work must bear being run twice:
//! it is an `FnMut` that only looks at what it was given.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

use rusqlite::{Connection, ffi};
use tokio::sync::{Notify, mpsc, oneshot};

use super::fault::{self, Fault, Outcome, closed, internal};
use super::sql::Sql;
use crate::{Certainty, Error, Result};

/// How many requests share a commit at most: bounds how long the first of them waits.
const MAX_BATCH: usize = 256;
/// How many requests wait at most; further callers wait for room.
const MAX_QUEUE: usize = 4096;

/// Who is told after a commit.
#[derive(Debug, Clone, Default)]
pub(super) struct Signals {
    /// That events wait to be sent out.
    pub(super) outbox: Arc<Notify>,
    /// That something became due.
    pub(super) due: Arc<Notify>,
}

/// A transaction as a request sees it.
pub(super) struct Tx<'c> {
    /// To write with.
    pub(super) conn: &'c Connection,
    /// Whether events were added to the outbox.
    pub(super) has_events: bool,
    /// Whether something became due now.
    pub(super) has_work: bool,
}

/// A handle of the writing thread.
#[derive(Debug, Clone)]
pub(super) struct Writer {
    queue: mpsc::Sender<Message>,
}

enum Message {
    Work(Box<dyn Job>),
    Close(oneshot::Sender<Result<()>>),
}

/// A request with its place for the answer.
trait Job: Send {
    /// Performs it and keeps the result; tells whether it went well.
    fn run(&mut self, tx: &mut Tx<'_>) -> bool;
    /// What it failed with, in words.
    fn complaint(&self) -> String;
    /// Gives the result to whoever asked, now that it is durable, or says that it was lost.
    fn answer(self: Box<Self>, loss: Option<&Loss>);
}

struct Call<T, F> {
    work: F,
    result: Option<Outcome<T>>,
    reply: oneshot::Sender<Result<T>>,
}

/// Why a whole batch was not committed.
#[derive(Debug)]
struct Loss {
    message: String,
    certainty: Certainty,
}

impl Writer {
    /// Begins to write with `conn`, which nobody else may use.
    pub(super) fn start(conn: Connection, signals: Signals) -> Result<Self> {
        let (queue, requests) = mpsc::channel(MAX_QUEUE);
        thread::Builder::new()
            .name("sqlite-writer".to_owned())
            .spawn(move || serve(conn, requests, &signals))
            .map_err(|error| Error::Internal {
                message: "the writing thread can't be started".to_owned(),
                source: Some(Box::new(error)),
            })?;
        Ok(Self { queue })
    }

    /// Performs `work` in a transaction; answers when that is durable. A caller that stops waiting does not stop the
    /// work.
    pub(super) async fn write<T, F>(&self, work: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnMut(&mut Tx<'_>) -> Outcome<T> + Send + 'static,
    {
        let (reply, answer) = oneshot::channel();
        let call = Call {
            work,
            result: None,
            reply,
        };
        self.queue
            .send(Message::Work(Box::new(call)))
            .await
            .map_err(|_| closed())?;
        answer.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Lets everything that waits be written, checkpoints and ends the thread. Again: nothing.
    pub(super) async fn close(&self) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        if self.queue.send(Message::Close(reply)).await.is_err() {
            return Ok(());
        }
        answer.await.unwrap_or_else(|_| Err(gone()))
    }
}

impl<T, F> Job for Call<T, F>
where
    T: Send,
    F: FnMut(&mut Tx<'_>) -> Outcome<T> + Send,
{
    fn run(&mut self, tx: &mut Tx<'_>) -> bool {
        // Nothing of a panicked request is looked at again: its writes are rolled back.
        let result = catch_unwind(AssertUnwindSafe(|| (self.work)(tx)))
            .unwrap_or_else(|_| Err(internal("a request panicked; see the log").into()));
        let is_fine = result.is_ok();
        self.result = Some(result);
        is_fine
    }

    fn complaint(&self) -> String {
        match &self.result {
            Some(Err(Fault::Sql(error))) => {
                fault::words(error).map_or_else(|| error.to_string(), str::to_owned)
            }
            Some(Err(Fault::Told(error))) => error.to_string(),
            Some(Ok(_)) | None => "the transaction was rolled back".to_owned(),
        }
    }

    fn answer(self: Box<Self>, loss: Option<&Loss>) {
        let result = match (loss, self.result) {
            (Some(loss), _) => Err(loss.error()),
            (None, Some(result)) => result.map_err(Error::from),
            (None, None) => Err(internal("a request was not performed")),
        };
        // Whoever asked may have stopped waiting.
        drop(self.reply.send(result));
    }
}

impl Loss {
    fn error(&self) -> Error {
        Error::Unavailable {
            message: self.message.clone(),
            certainty: self.certainty,
            source: None,
        }
    }

    /// Nothing was written, for this reason.
    fn nothing_written(fault: Fault) -> Self {
        let message = match Error::from(fault) {
            Error::Unavailable { message, .. } => message,
            other => other.to_string(),
        };
        Self {
            message,
            certainty: Certainty::NotApplied,
        }
    }
}

fn gone() -> Error {
    Error::Unavailable {
        message: "the writing thread is gone; restart the program".to_owned(),
        certainty: Certainty::Unknown,
        source: None,
    }
}

fn serve(conn: Connection, mut requests: mpsc::Receiver<Message>, signals: &Signals) {
    let mut batch: Vec<Box<dyn Job>> = Vec::with_capacity(MAX_BATCH);
    let mut closing = Vec::new();
    while let Some(first) = requests.blocking_recv() {
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Work(job) => batch.push(job),
                // What is in the queue is still performed, then `blocking_recv` tells that there is no more.
                Message::Close(reply) => {
                    requests.close();
                    closing.push(reply);
                }
            }
            next = if batch.len() < MAX_BATCH {
                requests.try_recv().ok()
            } else {
                None
            };
        }
        perform(&conn, &mut batch, signals);
    }
    let mut result = checkpoint(conn);
    for reply in closing {
        drop(reply.send(std::mem::replace(&mut result, Ok(()))));
    }
}

fn perform(conn: &Connection, batch: &mut Vec<Box<dyn Job>>, signals: &Signals) {
    let result = match attempt(conn, batch, Care::None) {
        Ok(Attempt::Failed) => attempt(conn, batch, Care::Savepoints),
        other => other,
    };
    let loss = match result {
        Ok(Attempt::Committed { events, work }) => {
            if events {
                signals.outbox.notify_one();
            }
            if work {
                signals.due.notify_one();
            }
            None
        }
        Ok(Attempt::Failed) => Some(Loss {
            message: "the transaction was rolled back".to_owned(),
            certainty: Certainty::NotApplied,
        }),
        Err(loss) => Some(loss),
    };
    if let Some(loss) = &loss {
        tracing::error!(requests = batch.len(), reason = %loss.message, "a commit failed");
    }
    for job in batch.drain(..) {
        job.answer(loss.as_ref());
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Care {
    /// Trust that no request fails after its first write.
    None,
    /// A savepoint around each.
    Savepoints,
}

enum Attempt {
    Committed {
        events: bool,
        work: bool,
    },
    /// A request failed after it had written; all is rolled back.
    Failed,
}

fn attempt(conn: &Connection, batch: &mut [Box<dyn Job>], care: Care) -> Result<Attempt, Loss> {
    begin(conn)?;
    let mut tx = Tx {
        conn,
        has_events: false,
        has_work: false,
    };
    for job in batch {
        if care == Care::Savepoints {
            step(conn, "SAVEPOINT request")?;
        }
        let before = conn.total_changes();
        let is_fine = job.run(&mut tx);
        if conn.is_autocommit() {
            // SQLite gave the whole transaction up, as it may when the disk is full.
            if care == Care::None {
                return Ok(Attempt::Failed);
            }
            return Err(Loss {
                message: job.complaint(),
                certainty: Certainty::NotApplied,
            });
        }
        match care {
            Care::None if !is_fine && conn.total_changes() != before => {
                roll_back(conn)?;
                return Ok(Attempt::Failed);
            }
            Care::None => {}
            Care::Savepoints => {
                if !is_fine {
                    step(conn, "ROLLBACK TO request")?;
                }
                step(conn, "RELEASE request")?;
            }
        }
    }
    let (events, work) = (tx.has_events, tx.has_work);
    commit(conn)?;
    Ok(Attempt::Committed { events, work })
}

fn begin(conn: &Connection) -> Result<(), Loss> {
    if !conn.is_autocommit() {
        roll_back(conn)?;
    }
    conn.run("BEGIN IMMEDIATE", [])
        .map(drop)
        .map_err(Loss::nothing_written)
}

/// Runs a statement that frames a request; when it fails, everything is rolled back.
fn step(conn: &Connection, sql: &str) -> Result<(), Loss> {
    match conn.run(sql, []) {
        Ok(_) => Ok(()),
        Err(fault) => {
            roll_back(conn)?;
            Err(Loss::nothing_written(fault))
        }
    }
}

fn commit(conn: &Connection) -> Result<(), Loss> {
    let Err(fault) = conn.run("COMMIT", []) else {
        return Ok(());
    };
    // When only the flush failed, the commit is in the log and a restart may find it there.
    let may_be_there = matches!(
        &fault,
        Fault::Sql(error) if error.sqlite_extended_error_code() == Some(ffi::SQLITE_IOERR_FSYNC)
    );
    roll_back(conn)?;
    let mut loss = Loss::nothing_written(fault);
    if may_be_there {
        loss.certainty = Certainty::Unknown;
    }
    Err(loss)
}

fn roll_back(conn: &Connection) -> Result<(), Loss> {
    if conn.is_autocommit() {
        return Ok(());
    }
    conn.run("ROLLBACK", []).map(drop).map_err(|fault| Loss {
        certainty: Certainty::Unknown,
        ..Loss::nothing_written(fault)
    })
}

/// Moves what is in the log into the database file. When readers are in the way the log stays, which loses nothing.
fn checkpoint(conn: Connection) -> Result<()> {
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
        .map_err(Fault::from)?;
    conn.close()
        .map_err(|(_, error)| Error::from(Fault::from(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn writer() -> (tempfile::TempDir, Writer) {
        let dir = tempfile::tempdir().unwrap();
        let conn = Connection::open(dir.path().join("w.db")).unwrap();
        conn.execute_batch("CREATE TABLE t (n INTEGER PRIMARY KEY)")
            .unwrap();
        (dir, Writer::start(conn, Signals::default()).unwrap())
    }

    async fn numbers(writer: &Writer) -> Vec<i64> {
        writer
            .write(|tx| {
                tx.conn
                    .all("SELECT n FROM t ORDER BY n", [], |row| row.get(0))
            })
            .await
            .unwrap()
    }

    fn insert(tx: &Tx<'_>, n: i64) -> Outcome<()> {
        tx.conn.run("INSERT INTO t VALUES (?1)", [n]).map(drop)
    }

    #[tokio::test]
    async fn a_request_that_fails_after_writing_harms_only_itself() {
        let (_dir, writer) = writer();
        let calls = (0..60).map(|n| {
            writer.write(move |tx| {
                insert(tx, n)?;
                match n % 3 {
                    0 => Ok(n),
                    1 => Err(internal("no").into()),
                    _ => panic!("really not"),
                }
            })
        });
        let results = futures_all(calls).await;
        for (n, result) in results.iter().enumerate() {
            assert_eq!(result.is_ok(), n % 3 == 0, "{n}: {result:?}");
        }
        let wanted: Vec<i64> = (0..60).filter(|n| n % 3 == 0).collect();
        assert_eq!(numbers(&writer).await, wanted);
    }

    #[tokio::test]
    async fn what_was_queued_before_closing_is_written_and_what_comes_after_is_refused() {
        let (dir, writer) = writer();
        let calls: Vec<_> = (0..20)
            .map(|n| {
                let writer = writer.clone();
                tokio::spawn(async move { writer.write(move |tx| insert(tx, n)).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let accepted = futures_all(calls);
        let (accepted, closed) = tokio::join!(accepted, writer.close());
        closed.unwrap();
        let accepted = accepted
            .into_iter()
            .filter(|r| matches!(r, Ok(Ok(()))))
            .count();
        assert!(writer.write(|tx| insert(tx, 99)).await.is_err());
        assert!(writer.close().await.is_ok());
        let conn = Connection::open(dir.path().join("w.db")).unwrap();
        let found: i64 = conn
            .query_row("SELECT count(*) FROM t", [], |row| row.get(0))
            .unwrap();
        assert_eq!(found, accepted as i64);
    }

    async fn futures_all<T>(futures: impl IntoIterator<Item = impl Future<Output = T>>) -> Vec<T> {
        let mut waiting: Vec<_> = futures.into_iter().map(Box::pin).collect();
        let mut done: Vec<Option<T>> = waiting.iter().map(|_| None).collect();
        std::future::poll_fn(|cx| {
            let mut open = false;
            for (future, slot) in waiting.iter_mut().zip(&mut done) {
                if slot.is_none() {
                    match future.as_mut().poll(cx) {
                        std::task::Poll::Ready(value) => *slot = Some(value),
                        std::task::Poll::Pending => open = true,
                    }
                }
            }
            if open {
                std::task::Poll::Pending
            } else {
                std::task::Poll::Ready(())
            }
        })
        .await;
        done.into_iter().flatten().collect()
    }
}
