//! Accepting executions, once each.

use domain::Execution;
use rusqlite::params;

use super::Sqlite;
use super::fault::{Outcome, internal};
use super::outbox::{self, Outgoing};
use super::sql::{Packing, Sql, id, key, micros, micros_up};
use super::turns::{self, Seat};
use super::writer::Tx;
use crate::{IdempotencyKey, Result, Submission, Submitted, WhenBusy};

/// How long a caller's key is remembered.
const KEY_LIFE_MICROS: i64 = 24 * 60 * 60 * 1_000_000;

/// A submission as it will be written.
#[derive(Debug)]
pub(super) struct Prepared {
    execution: Execution,
    idempotency: Option<IdempotencyKey>,
    spec: String,
    events: Vec<Outgoing>,
    when_busy: WhenBusy,
}

impl Sqlite {
    pub(super) async fn accept(&self, submission: Submission) -> Result<Submitted> {
        let prepared = Prepared::new(submission, self.packing)?;
        self.writer.write(move |tx| prepared.insert(tx)).await
    }
}

impl Prepared {
    /// Turns it into JSON, on the caller's thread rather than on the one that writes.
    pub(super) fn new(submission: Submission, packing: Packing) -> Result<Self> {
        let spec = packing.encode("the task", &submission.execution)?;
        Ok(Self {
            spec,
            events: outbox::prepare(submission.events)?,
            execution: submission.execution,
            idempotency: submission.idempotency,
            when_busy: submission.when_busy,
        })
    }

    /// Writes it, unless it is there.
    pub(super) fn insert(&self, tx: &mut Tx<'_>) -> Outcome<Submitted> {
        let now = micros(self.execution.created_at);
        if let Some(known) = self.known_by_key(tx, now)? {
            return Ok(known);
        }
        if !self.has_origin(tx)? {
            return Ok(self.known_by_row(tx)?.unwrap_or(Submitted::NoOrigin));
        }
        let seat = match self.seat(tx, now)? {
            Ok(seat) => seat,
            Err(refused) => return Ok(self.known_by_row(tx)?.unwrap_or(refused)),
        };
        if !self.insert_row(tx, now, seat)? {
            let known = self.known_by_row(tx)?;
            return Ok(known.ok_or_else(|| internal("an execution was refused by no other"))?);
        }
        let key = key(self.execution.id);
        if let (Some(seat), Some(conversation)) = (seat, &self.execution.conversation) {
            let (agent, conversation) = (self.execution.agent.as_str(), conversation.as_str());
            turns::sit_down(tx, (agent, conversation), key, seat, now)?;
        }
        tx.conn.run(
            "INSERT INTO execution_specs (execution_id, spec) VALUES (?1, ?2)",
            params![key, self.spec],
        )?;
        self.share_steps(tx, key)?;
        if let Some(idempotency) = &self.idempotency {
            tx.conn.run(
                "INSERT OR REPLACE INTO idempotency_keys (key, body_hash, execution_id, created_at)
                 VALUES (?1, ?2, ?3, ?4)",
                params![idempotency.key, idempotency.body_hash, key, now],
            )?;
            forget_old_keys(tx, now)?;
        }
        outbox::insert(tx, &self.events)?;
        tx.has_work = true;
        Ok(Submitted::New)
    }

    fn known_by_key(&self, tx: &Tx<'_>, now: i64) -> Outcome<Option<Submitted>> {
        let Some(idempotency) = &self.idempotency else {
            return Ok(None);
        };
        let found = tx.conn.first(
            "SELECT body_hash, execution_id FROM idempotency_keys WHERE key = ?1 AND created_at > ?2",
            params![idempotency.key, now - KEY_LIFE_MICROS],
            |row| Ok((row.get::<_, String>(0)?, row.get(1)?)),
        )?;
        Ok(found.map(|(hash, execution)| {
            if hash == idempotency.body_hash {
                Submitted::Existing(id(execution))
            } else {
                Submitted::KeyMismatch
            }
        }))
    }

    /// Whether the steps that it is to share are there.
    fn has_origin(&self, tx: &Tx<'_>) -> Outcome<bool> {
        let Some(origin) = self.execution.origin.as_ref().filter(|o| o.steps > 0) else {
            return Ok(true);
        };
        let found = tx.conn.first(
            "SELECT 1 FROM executions WHERE id = ?1 AND steps >= ?2",
            params![key(origin.id), origin.steps],
            |_| Ok(()),
        )?;
        Ok(found.is_some())
    }

    /// Copies them: from then on they are its own, and stay when the other one is forgotten.
    fn share_steps(&self, tx: &Tx<'_>, key: [u8; 16]) -> Outcome<()> {
        let Some(origin) = self.execution.origin.as_ref().filter(|o| o.steps > 0) else {
            return Ok(());
        };
        tx.conn.run(
            "INSERT INTO steps (execution_id, seq, at, epoch, kind, body)
             SELECT ?1, seq, at, 0, kind, body FROM steps WHERE execution_id = ?2 AND seq <= ?3",
            params![key, self::key(origin.id), origin.steps],
        )?;
        tx.conn.run(
            "UPDATE executions SET steps = ?2 WHERE id = ?1",
            params![key, origin.steps],
        )?;
        Ok(())
    }

    /// Its place in its conversation, if it belongs to one.
    fn seat(&self, tx: &mut Tx<'_>, now: i64) -> Outcome<Result<Option<Seat>, Submitted>> {
        let Some(conversation) = &self.execution.conversation else {
            return Ok(Ok(None));
        };
        let name = (self.execution.agent.as_str(), conversation.as_str());
        Ok(turns::seat(tx, name, self.when_busy, now)?.map(Some))
    }

    fn insert_row(&self, tx: &Tx<'_>, now: i64, seat: Option<Seat>) -> Outcome<bool> {
        let execution = &self.execution;
        let waits = seat.is_some_and(|seat| seat.waits);
        let deadline = micros_up(execution.deadline);
        let inserted = tx.conn.run(
            "INSERT INTO executions (id, agent_name, version, execution_mode, priority, status, created_at,
                 deadline, due_at, conversation_id, trace_id, parent_id, event_id, place, waits_turn, status_reason,
                 has_callback)
             VALUES (?1, ?2, ?3, ?4, ?5, 'queued', ?6, ?7, ?12, ?8, ?9, ?10, ?11, ?13, ?14, ?15, ?16)
             ON CONFLICT DO NOTHING",
            params![
                key(execution.id),
                execution.agent.as_str(),
                execution.version.as_str(),
                execution.mode.as_str(),
                execution.priority as i64,
                now,
                deadline,
                execution.conversation.as_ref().map(|id| id.as_str()),
                execution.trace_id.as_str(),
                execution.parent.map(|parent| key(parent.id)),
                execution.event_id.as_ref().map(|id| id.as_str()),
                if waits { deadline } else { now },
                seat.map(|seat| seat.place),
                waits,
                waits.then_some(turns::WAITS),
                execution.callback_url.is_some(),
            ],
        )?;
        Ok(inserted == 1)
    }

    /// The execution that is the same, or was started by the same event.
    fn known_by_row(&self, tx: &Tx<'_>) -> Outcome<Option<Submitted>> {
        let execution = &self.execution;
        let found = tx.conn.first(
            "SELECT id FROM executions WHERE id = ?1
             UNION ALL
             SELECT id FROM executions WHERE agent_name = ?2 AND event_id = ?3
             LIMIT 1",
            params![
                key(execution.id),
                execution.agent.as_str(),
                execution.event_id.as_ref().map(|id| id.as_str()),
            ],
            |row| row.get(0),
        )?;
        Ok(found.map(|found| Submitted::Existing(id(found))))
    }
}

/// Each new key takes a few old ones away, so that there is never much to clean up.
fn forget_old_keys(tx: &Tx<'_>, now: i64) -> Outcome<()> {
    tx.conn.run(
        "DELETE FROM idempotency_keys WHERE key IN
             (SELECT key FROM idempotency_keys WHERE created_at <= ?1 ORDER BY created_at LIMIT 4)",
        params![now - KEY_LIFE_MICROS],
    )?;
    Ok(())
}
