//! What is to be done outside.

use async_trait::async_trait;
use domain::Time;
use tokio_postgres::Row;

use super::Postgres;
use super::fault::Outcome;
use super::sql::{count, counted, get, limit, text, up};
use crate::{Errand, ErrandChange, ErrandClaim, ErrandNext, Errands, NewErrand, Result};

#[async_trait]
impl Errands for Postgres {
    async fn add_errand(&self, errand: NewErrand) -> Result<bool> {
        let mut conn = self.pool.get().await?;
        let added = conn
            .run(
                "INSERT INTO errands (id, queue, body, version, due_at) VALUES ($1, $2, $3, 0, $4)
                 ON CONFLICT DO NOTHING RETURNING id",
                &[
                    &text(&errand.id).as_ref(),
                    &text(&errand.queue).as_ref(),
                    &text(&errand.body).as_ref(),
                    &up(errand.due_at),
                ],
            )
            .await?;
        Ok(added)
    }

    async fn claim_errands(&self, claim: ErrandClaim) -> Result<Vec<Errand>> {
        let until = claim.now + claim.lease;
        let mut conn = self.often.get().await?;
        let rows = conn
            .all(
                "WITH due AS MATERIALIZED (
                     SELECT id, due_at FROM errands
                     WHERE queue = $1 AND due_at <= $2 AND done_at IS NULL AND (owned_until IS NULL OR owned_until <= $2)
                     ORDER BY due_at LIMIT $4 FOR UPDATE SKIP LOCKED),
                 taken AS (
                     UPDATE errands AS e SET version = e.version + 1, owned_until = $3, due_at = $3
                     FROM due WHERE e.id = due.id RETURNING e.id, e.body, e.version, false, due.due_at)
                 SELECT * FROM taken ORDER BY due_at",
                &[&claim.queue, &claim.now, &until, &limit(claim.limit)],
            )
            .await?;
        Ok(rows.iter().map(errand).collect::<Outcome<_>>()?)
    }

    async fn save_errand(&self, change: ErrandChange) -> Result<bool> {
        let (owned, due, done) = match change.next {
            ErrandNext::Keep(until) => (Some(until), Some(until), None),
            ErrandNext::Later(at) => (None, Some(up(at)), None),
            ErrandNext::Done(at) => (None, None, Some(at)),
        };
        let mut conn = self.pool.get().await?;
        let saved = conn
            .run(
                "UPDATE errands SET body = $3, owned_until = $4, done_at = $6,
                     due_at = CASE WHEN due_at < owned_until THEN due_at ELSE coalesce($5, due_at) END
                 WHERE id = $1 AND version = $2 AND done_at IS NULL RETURNING id",
                &[
                    &change.id,
                    &count(change.version),
                    &text(&change.body).as_ref(),
                    &owned,
                    &due,
                    &done,
                ],
            )
            .await?;
        Ok(saved)
    }

    async fn wake_errand(&self, id: &str, now: Time) -> Result<bool> {
        let mut conn = self.pool.get().await?;
        let woken = conn
            .run(
                "UPDATE errands SET due_at = least(due_at, $2) WHERE id = $1 AND done_at IS NULL RETURNING id",
                &[&text(id).as_ref(), &now],
            )
            .await?;
        Ok(woken)
    }

    async fn errand(&self, id: &str) -> Result<Option<Errand>> {
        let mut conn = self.pool.get().await?;
        let row = conn
            .first(
                "SELECT id, body, version, done_at IS NOT NULL FROM errands WHERE id = $1",
                &[&text(id).as_ref()],
            )
            .await?;
        Ok(row.as_ref().map(errand).transpose()?)
    }

    async fn forget_errands(&self, before: Time) -> Result<u64> {
        let mut conn = self.pool.get().await?;
        let gone = conn
            .all(
                "DELETE FROM errands WHERE id IN (
                     SELECT id FROM errands WHERE done_at IS NOT NULL AND done_at < $1 LIMIT 1000) RETURNING 1",
                &[&before],
            )
            .await?;
        Ok(gone.len() as u64)
    }
}

fn errand(row: &Row) -> Outcome<Errand> {
    Ok(Errand {
        id: get(row, 0)?,
        body: get(row, 1)?,
        version: counted(get(row, 2)?),
        is_done: get(row, 3)?,
    })
}
