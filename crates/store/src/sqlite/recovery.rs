//! What a lost process left behind.

use domain::{Time, WorkerId};
use rusqlite::{Connection, params};

use super::Sqlite;
use super::sql::{Sql, micros, parse};
use super::writer::Tx;
use crate::Result;

impl Sqlite {
    pub(super) async fn holders(&self) -> Result<Vec<WorkerId>> {
        let read = |conn: &Connection| {
            conn.all(
                "SELECT DISTINCT worker FROM executions WHERE due_at IS NOT NULL AND worker IS NOT NULL",
                [],
                |row| row.get::<_, String>(0),
            )
        };
        let workers = self.readers.read(read).await?;
        workers
            .iter()
            .map(|worker| parse("a worker", worker))
            .collect()
    }

    pub(super) async fn give_up_leases(&self, worker: &WorkerId, now: Time) -> Result<u64> {
        let (worker, now) = (worker.clone(), micros(now));
        self.writer
            .write(move |tx: &mut Tx<'_>| {
                // The worker stays in the row: whoever claims next sees that a lease ended without its owner.
                let ended = tx.conn.run(
                    "UPDATE executions SET due_at = min(due_at, ?2) WHERE worker = ?1 AND due_at IS NOT NULL",
                    params![worker.as_str(), now],
                )?;
                tx.has_work |= ended > 0;
                Ok(ended as u64)
            })
            .await
    }
}
