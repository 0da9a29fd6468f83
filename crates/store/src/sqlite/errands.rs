//! What is to be done outside.

use async_trait::async_trait;
use domain::Time;
use rusqlite::{Connection, Row, params};

use super::Sqlite;
use super::sql::{Sql, count, counted, limit, micros, micros_up};
use super::writer::Tx;
use crate::{Errand, ErrandChange, ErrandClaim, ErrandNext, Errands, NewErrand, Result};

#[async_trait]
impl Errands for Sqlite {
    async fn add_errand(&self, errand: NewErrand) -> Result<bool> {
        let add = move |tx: &mut Tx<'_>| {
            let added = tx.conn.run(
                "INSERT INTO errands (id, queue, body, version, due_at) VALUES (?1, ?2, ?3, 0, ?4)
                 ON CONFLICT DO NOTHING",
                params![
                    errand.id,
                    errand.queue,
                    errand.body,
                    micros_up(errand.due_at)
                ],
            )?;
            Ok(added == 1)
        };
        self.writer.write(add).await
    }

    async fn claim_errands(&self, claim: ErrandClaim) -> Result<Vec<Errand>> {
        let (now, until) = (micros(claim.now), micros(claim.now + claim.lease));
        // Asked often, and mostly there is nothing: that needs no writer.
        let queue = claim.queue.clone();
        let any = move |conn: &Connection| {
            conn.first(
                "SELECT 1 FROM errands WHERE queue = ?1 AND due_at <= ?2 AND done_at IS NULL
                     AND (owned_until IS NULL OR owned_until <= ?2) LIMIT 1",
                params![queue, now],
                |_| Ok(()),
            )
        };
        if self.readers.read(any).await?.is_none() {
            return Ok(Vec::new());
        }
        let take = move |tx: &mut Tx<'_>| {
            let mut taken = tx.conn.all(
                "SELECT id, body, version, done_at IS NOT NULL FROM errands
                 WHERE queue = ?1 AND due_at <= ?2 AND done_at IS NULL AND (owned_until IS NULL OR owned_until <= ?2)
                 ORDER BY due_at LIMIT ?3",
                params![claim.queue, now, limit(claim.limit)],
                errand,
            )?;
            for one in &mut taken {
                one.version += 1;
                tx.conn.run(
                    "UPDATE errands SET version = ?2, owned_until = ?3, due_at = ?3 WHERE id = ?1",
                    params![one.id, count(one.version), until],
                )?;
            }
            Ok(taken)
        };
        self.writer.write(take).await
    }

    async fn save_errand(&self, change: ErrandChange) -> Result<bool> {
        let (owned, due, done) = match change.next {
            ErrandNext::Keep(until) => (Some(micros(until)), Some(micros(until)), None),
            ErrandNext::Later(at) => (None, Some(micros_up(at)), None),
            ErrandNext::Done(at) => (None, None, Some(micros(at))),
        };
        let save = move |tx: &mut Tx<'_>| {
            let saved = tx.conn.run(
                "UPDATE errands SET body = ?3, owned_until = ?4, done_at = ?6,
                     due_at = CASE WHEN due_at < owned_until THEN due_at ELSE coalesce(?5, due_at) END
                 WHERE id = ?1 AND version = ?2 AND done_at IS NULL",
                params![
                    change.id,
                    count(change.version),
                    change.body,
                    owned,
                    due,
                    done
                ],
            )?;
            Ok(saved == 1)
        };
        self.writer.write(save).await
    }

    async fn wake_errand(&self, id: &str, now: Time) -> Result<bool> {
        let id = id.to_owned();
        let wake = move |tx: &mut Tx<'_>| {
            let woken = tx.conn.run(
                "UPDATE errands SET due_at = min(due_at, ?2) WHERE id = ?1 AND done_at IS NULL",
                params![id, micros(now)],
            )?;
            Ok(woken == 1)
        };
        self.writer.write(wake).await
    }

    async fn errand(&self, id: &str) -> Result<Option<Errand>> {
        let id = id.to_owned();
        let read = move |conn: &Connection| {
            conn.first(
                "SELECT id, body, version, done_at IS NOT NULL FROM errands WHERE id = ?1",
                [id],
                errand,
            )
        };
        self.readers.read(read).await
    }

    async fn forget_errands(&self, before: Time) -> Result<u64> {
        let forget = move |tx: &mut Tx<'_>| {
            let gone = tx.conn.run(
                "DELETE FROM errands WHERE id IN (
                     SELECT id FROM errands WHERE done_at IS NOT NULL AND done_at < ?1 LIMIT 1000)",
                [micros(before)],
            )?;
            Ok(gone as u64)
        };
        self.writer.write(forget).await
    }
}

fn errand(row: &Row<'_>) -> rusqlite::Result<Errand> {
    Ok(Errand {
        id: row.get(0)?,
        body: row.get(1)?,
        version: counted(row.get(2)?),
        is_done: row.get(3)?,
    })
}
