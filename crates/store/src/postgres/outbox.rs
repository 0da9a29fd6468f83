//! Events on their way out.

use domain::Event;
use tokio_postgres::Row;

use super::Postgres;
use super::fault::Outcome;
use super::sql::{decode, encode, get, limit};
use crate::{OutboxClaim, OutboxEntry, Result};

/// How many rows are read at once.
const PAGE: usize = 1000;

const CLAIM: &str = include_str!("sql/claim_outbox.sql");

/// An event as it will be written.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) event_id: String,
    pub(super) event: String,
}

/// Turns events into JSON.
pub(super) fn prepare(events: Vec<Event>) -> Result<Vec<Outgoing>> {
    let outgoing = events.into_iter().map(|event| {
        Ok(Outgoing {
            event: encode("the event", &event)?,
            event_id: event.id.into(),
        })
    });
    outgoing.collect()
}

impl Postgres {
    pub(super) async fn send_out(&self, events: &[Event]) -> Result<()> {
        if events.is_empty() {
            return Ok(());
        }
        let outgoing = prepare(events.to_vec())?;
        let ids: Vec<&str> = outgoing.iter().map(|o| o.event_id.as_str()).collect();
        let events: Vec<&str> = outgoing.iter().map(|o| o.event.as_str()).collect();
        let mut conn = self.pool.get().await?;
        conn.run(
            "INSERT INTO outbox (event_id, event)
             SELECT o.event_id, o.event
             FROM unnest($1::text[], $2::text[]) WITH ORDINALITY AS o (event_id, event, n) ORDER BY o.n
             ON CONFLICT (event_id) DO NOTHING",
            &[&ids, &events],
        )
        .await?;
        self.signals.outbox.notify_one();
        Ok(())
    }

    pub(super) async fn waiting_events(&self, most: usize) -> Result<Vec<OutboxEntry>> {
        let mut conn = self.pool.get().await?;
        let (mut entries, mut after) = (Vec::new(), 0i64);
        while entries.len() < most {
            let page = PAGE.min(most - entries.len());
            let rows = conn
                .all(
                    "SELECT id, event FROM outbox WHERE id > $1 ORDER BY id LIMIT $2",
                    &[&after, &limit(page)],
                )
                .await?;
            for row in &rows {
                after = get(row, 0)?;
                entries.extend(readable(row));
            }
            if rows.len() < page {
                break;
            }
        }
        Ok(entries)
    }

    pub(super) async fn claim_events(&self, claim: OutboxClaim) -> Result<Vec<OutboxEntry>> {
        let until = claim.now + claim.lease;
        let mut conn = self.often.get().await?;
        let rows = conn
            .all(CLAIM, &[&claim.now, &until, &limit(claim.limit)])
            .await?;
        let mut entries: Vec<_> = rows.iter().filter_map(readable).collect();
        entries.sort_unstable_by_key(|entry| entry.id);
        Ok(entries)
    }

    pub(super) async fn release_events(&self, ids: &[i64]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut conn = self.often.get().await?;
        let sql = "UPDATE outbox SET claimed_until = NULL WHERE id = ANY ($1)";
        conn.run(sql, &[&ids]).await?;
        Ok(())
    }

    pub(super) async fn forget_events(&self, ids: &[i64]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let mut conn = self.often.get().await?;
        // One that comes back with a server that crashed is sent twice: that need not wait for the disk.
        conn.run(
            "WITH quickly AS (SELECT set_config('synchronous_commit', 'off', true))
             DELETE FROM outbox o USING quickly WHERE o.id = ANY ($1)",
            &[&ids],
        )
        .await?;
        Ok(())
    }
}

/// One that can't be read is passed over: it must not hold up those behind it.
fn readable(row: &Row) -> Option<OutboxEntry> {
    entry(row)
        .map_err(crate::Error::from)
        .inspect_err(|error| tracing::warn!(%error, "an event is not sent"))
        .ok()
}

fn entry(row: &Row) -> Outcome<OutboxEntry> {
    let (id, json): (i64, String) = (get(row, 0)?, get(row, 1)?);
    let event = decode(|| format!("event {id} of the outbox"), &json)?;
    Ok(OutboxEntry { id, event })
}
