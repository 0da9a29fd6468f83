//! Retention: executions that were over long ago go, a few at a time.

use domain::Time;
use rusqlite::{Connection, params};

use super::Sqlite;
use super::outgoing;
use super::sql::{Sql, count, counted, micros};
use super::writer::Tx;
use crate::{Cleaned, Cleanup, Result};

/// How many executions go in one transaction: others' commits wait for it.
const CHUNK: u64 = 100;
/// How many go in one call.
const MOST: u64 = 10_000;

/// What is over, and whose parent does not go on. The creation is named for its index.
const OLD: &str = "created_at < ?1 AND finished_at < ?1 AND NOT EXISTS (
    SELECT 1 FROM executions AS p WHERE p.id = e.parent_id AND p.finished_at IS NULL)";

impl Sqlite {
    pub(super) async fn forget(&self, cleanup: Cleanup) -> Result<Cleaned> {
        let mut cleaned = Cleaned::default();
        if cleanup.dry_run {
            cleaned.executions = self.count_old(cleanup.before).await?;
            return Ok(cleaned);
        }
        let before = cleanup.before;
        self.writer
            .write(move |tx: &mut Tx<'_>| outgoing::forget(tx, before))
            .await?;
        loop {
            let gone = self.forget_some(cleanup.before).await?;
            cleaned.executions += gone;
            if gone < CHUNK {
                return Ok(cleaned);
            }
            if cleaned.executions >= MOST {
                cleaned.has_more = true;
                return Ok(cleaned);
            }
        }
    }

    async fn count_old(&self, before: Time) -> Result<u64> {
        let sql = format!("SELECT count(*) FROM executions AS e WHERE {OLD}");
        let read = move |conn: &Connection| {
            conn.first(&sql, params![micros(before)], |row| row.get::<_, i64>(0))
        };
        Ok(counted(self.readers.read(read).await?.unwrap_or_default()))
    }

    /// The rows of other tables go with the execution's: they refer to it.
    async fn forget_some(&self, before: Time) -> Result<u64> {
        let sql = format!(
            "DELETE FROM executions WHERE id IN (
                 SELECT id FROM executions AS e WHERE {OLD} ORDER BY created_at LIMIT ?2)"
        );
        let forget = move |tx: &mut Tx<'_>| {
            let gone = tx.conn.run(&sql, params![micros(before), count(CHUNK)])?;
            Ok(gone as u64)
        };
        self.writer.write(forget).await
    }
}
