//! Retention: executions that were over long ago go, a few at a time.

use domain::Time;
use rusqlite::{Connection, params};

use super::Sqlite;
use super::fault::Outcome;
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

/// What has been silent since: nobody has the turn in it, so nobody waits for it.
const SILENT: &str = "updated_at < ?1 AND turn IS NULL";

impl Sqlite {
    pub(super) async fn forget(&self, cleanup: Cleanup) -> Result<Cleaned> {
        let mut cleaned = Cleaned::default();
        if cleanup.dry_run {
            cleaned.executions = self.count_old(cleanup.before).await?;
            cleaned.conversations = self.count("conversations", SILENT, cleanup.before).await?;
            cleaned.dead_letters = self
                .count("dead_letters", "at < ?1", cleanup.before)
                .await?;
            return Ok(cleaned);
        }
        let before = cleanup.before;
        cleaned.dead_letters = self.forget_letters(before).await?;
        cleaned.conversations = self.forget_silent(before).await?;
        cleaned.has_more = cleaned.dead_letters >= MOST || cleaned.conversations >= MOST;
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

    async fn count(&self, table: &str, old: &str, before: Time) -> Result<u64> {
        let sql = format!("SELECT count(*) FROM {table} WHERE {old}");
        let read = move |conn: &Connection| {
            conn.first(&sql, params![micros(before)], |row| row.get::<_, i64>(0))
        };
        Ok(counted(self.readers.read(read).await?.unwrap_or_default()))
    }

    async fn forget_letters(&self, before: Time) -> Result<u64> {
        let forget = move |tx: &mut Tx<'_>| {
            let gone = tx.conn.run(
                "DELETE FROM dead_letters WHERE id IN (
                     SELECT id FROM dead_letters WHERE at < ?1 ORDER BY at LIMIT ?2)",
                params![micros(before), count(MOST)],
            )?;
            Ok(gone as u64)
        };
        self.writer.write(forget).await
    }

    async fn forget_silent(&self, before: Time) -> Result<u64> {
        let mut all = 0;
        loop {
            let gone = self.writer.write(move |tx| silent(tx, before)).await?;
            all += gone;
            if gone < CHUNK || all >= MOST {
                return Ok(all);
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

/// Forgets some conversations with their messages; answers how many.
fn silent(tx: &mut Tx<'_>, before: Time) -> Outcome<u64> {
    let sql =
        format!("SELECT agent_name, conversation_id FROM conversations WHERE {SILENT} LIMIT ?2");
    let found = tx
        .conn
        .all(&sql, params![micros(before), count(CHUNK)], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?))
        })?;
    for (agent, conversation) in &found {
        for table in ["messages", "conversations"] {
            tx.conn.run(
                &format!("DELETE FROM {table} WHERE agent_name = ?1 AND conversation_id = ?2"),
                params![agent, conversation],
            )?;
        }
    }
    Ok(found.len() as u64)
}
