//! Events on their way out.

use domain::Event;
use rusqlite::params;

use super::Sqlite;
use super::fault::Outcome;
use super::sql::{Sql, decode, encode, micros};
use super::writer::Tx;
use crate::{OutboxClaim, OutboxEntry, Result};

/// An event as it will be written.
#[derive(Debug)]
pub(super) struct Outgoing {
    event_id: String,
    event: String,
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

/// Adds events; one whose id is still waiting to go out is there already.
pub(super) fn insert(tx: &mut Tx<'_>, events: &[Outgoing]) -> Outcome<()> {
    for outgoing in events {
        tx.conn.run(
            "INSERT INTO outbox (event_id, event) VALUES (?1, ?2) ON CONFLICT DO NOTHING",
            params![outgoing.event_id, outgoing.event],
        )?;
        tx.has_events = true;
    }
    Ok(())
}

/// Claims the oldest that nobody has, and answers them as they are stored.
fn take(tx: &mut Tx<'_>, claim: OutboxClaim) -> Outcome<Vec<(i64, String)>> {
    let (now, until) = (micros(claim.now), micros(claim.now + claim.lease));
    let limit = i64::try_from(claim.limit).unwrap_or(i64::MAX);
    let free = tx.conn.all(
        "SELECT id, event FROM outbox WHERE claimed_until IS NULL OR claimed_until <= ?1 ORDER BY id LIMIT ?2",
        params![now, limit],
        |row| {
            let json = row.get_ref(1)?.as_str().unwrap_or_default();
            Ok((row.get(0)?, json.to_owned()))
        },
    )?;
    for (id, _) in &free {
        let sql = "UPDATE outbox SET claimed_until = ?2 WHERE id = ?1";
        tx.conn.run(sql, params![id, until])?;
    }
    Ok(free)
}

/// An event as it was stored. One that can't be read is passed over: it must not hold up those behind it.
fn readable(id: i64, json: &str) -> Option<OutboxEntry> {
    decode(|| format!("event {id} of the outbox"), json)
        .inspect_err(|error| tracing::warn!(%error, "an event is not sent"))
        .ok()
        .map(|event| OutboxEntry { id, event })
}

impl Sqlite {
    pub(super) async fn send_out(&self, events: &[Event]) -> Result<()> {
        let outgoing = prepare(events.to_vec())?;
        self.writer.write(move |tx| insert(tx, &outgoing)).await
    }

    pub(super) async fn waiting_events(&self, limit: usize) -> Result<Vec<OutboxEntry>> {
        let read = move |conn: &rusqlite::Connection| {
            let mut statement = conn.prepare_cached("SELECT id, event FROM outbox ORDER BY id")?;
            let mut rows = statement.query([])?;
            let mut entries = Vec::new();
            while entries.len() < limit
                && let Some(row) = rows.next()?
            {
                let id = row.get(0)?;
                entries.extend(readable(id, row.get_ref(1)?.as_str().unwrap_or_default()));
            }
            Ok(entries)
        };
        self.readers.read(read).await
    }

    pub(super) async fn claim_events(&self, claim: OutboxClaim) -> Result<Vec<OutboxEntry>> {
        let claimed = self.writer.write(move |tx| take(tx, claim)).await?;
        Ok(claimed
            .into_iter()
            .filter_map(|(id, json)| readable(id, &json))
            .collect())
    }

    pub(super) async fn release_events(&self, ids: &[i64]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let ids = ids.to_vec();
        let release = move |tx: &mut Tx<'_>| {
            for id in &ids {
                let sql = "UPDATE outbox SET claimed_until = NULL WHERE id = ?1";
                tx.conn.run(sql, [id])?;
            }
            Ok(())
        };
        self.writer.write(release).await
    }

    pub(super) async fn forget_events(&self, ids: &[i64]) -> Result<()> {
        if ids.is_empty() {
            return Ok(());
        }
        let ids = ids.to_vec();
        let forget = move |tx: &mut Tx<'_>| {
            for id in &ids {
                tx.conn.run("DELETE FROM outbox WHERE id = ?1", [id])?;
            }
            Ok(())
        };
        self.writer.write(forget).await
    }
}
