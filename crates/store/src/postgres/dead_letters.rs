//! Events that could not be delivered or processed.

use domain::Time;
use tokio_postgres::Row;

use super::Postgres;
use super::sql::{decode, encode, get, limit, small, smalled, text};
use crate::{DeadLetter, Page, Result};

impl Postgres {
    pub(super) async fn bury(&self, letter: DeadLetter) -> Result<()> {
        let event = encode("the event", &letter.event)?;
        let mut conn = self.pool.get().await?;
        conn.run(
            "INSERT INTO dead_letters (id, queue, event, reason, attempts, at) VALUES ($1, $2, $3, $4, $5, $6)
             ON CONFLICT (id) DO UPDATE SET queue = excluded.queue, event = excluded.event,
                 reason = excluded.reason, attempts = excluded.attempts, at = excluded.at",
            &[
                &text(&letter.id).as_ref(),
                &text(&letter.queue).as_ref(),
                &event,
                &text(&letter.reason).as_ref(),
                &small(letter.attempts),
                &letter.at,
            ],
        )
        .await?;
        Ok(())
    }

    pub(super) async fn list_dead_letters(&self, page: Page) -> Result<Vec<DeadLetter>> {
        let (at, id): (Option<Time>, String) = match page.after {
            Some((at, id)) => (Some(at), id),
            None => (None, String::new()),
        };
        let mut conn = self.pool.get().await?;
        let rows = conn
            .all(
                "SELECT id, queue, event, reason, attempts, at FROM dead_letters
                 WHERE $1::timestamptz IS NULL OR (at, id) < ($1, $2) ORDER BY at DESC, id DESC LIMIT $3",
                &[&at, &id, &limit(page.limit)],
            )
            .await?;
        rows.iter().map(letter).collect()
    }

    pub(super) async fn forget_dead_letter(&self, id: &str) -> Result<bool> {
        let mut conn = self.pool.get().await?;
        let id = text(id);
        Ok(conn
            .run(
                "DELETE FROM dead_letters WHERE id = $1 RETURNING id",
                &[&id.as_ref()],
            )
            .await?)
    }
}

fn letter(row: &Row) -> Result<DeadLetter> {
    let (id, json): (String, String) = (get(row, 0)?, get(row, 2)?);
    Ok(DeadLetter {
        event: decode(|| format!("dead letter {id}"), &json)?,
        id,
        queue: get(row, 1)?,
        reason: get(row, 3)?,
        attempts: smalled(get(row, 4)?),
        at: get(row, 5)?,
    })
}
