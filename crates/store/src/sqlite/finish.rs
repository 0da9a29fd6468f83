//! How an execution ends: state, result, conversation, the end of its children and the parent's wake-up at once.

use domain::{Status, StepBody};
use rusqlite::{OptionalExtension, params};

use super::fault::Outcome;
use super::sql::{Packing, Sql, limit};
use super::turns;
use super::wake;
use super::writer::Tx;
use crate::Result;
use crate::codec::Ending;

impl Ending {
    /// Writes it; tells whether it was the execution's end, or that had come before.
    pub(super) fn write(&self, tx: &mut Tx<'_>, execution: [u8; 16], now: i64) -> Outcome<bool> {
        debug_assert!(is_on_the_graph(tx, execution, self.status));
        let ended = tx.conn.first(
            "UPDATE executions
             SET status = ?2, status_reason = ?3, finished_at = ?4, due_at = NULL, worker = NULL
             WHERE id = ?1 AND finished_at IS NULL
             RETURNING agent_name, conversation_id, parent_id",
            params![execution, self.status.as_str(), self.reason, now],
            |row| {
                Ok((
                    row.get::<_, String>(0)?,
                    row.get::<_, Option<String>>(1)?,
                    row.get::<_, Option<[u8; 16]>>(2)?,
                ))
            },
        )?;
        let Some((agent, conversation, parent)) = ended else {
            return Ok(false);
        };
        tx.conn.run(
            "INSERT INTO execution_results (execution_id, agent_name, status, outcome, created_at)
             VALUES (?1, ?2, ?3, ?4, ?5)",
            params![execution, agent, self.status.as_str(), self.outcome, now],
        )?;
        if let Some(conversation) = conversation {
            self.continue_conversation(tx, execution, &agent, &conversation, now)?;
            turns::release(tx, (&agent, &conversation), execution, now)?;
        }
        wake::end_children(tx, execution, &self.reason, now)?;
        if let Some(parent) = parent {
            wake::wake(tx, parent, now)?;
        }
        Ok(true)
    }

    fn continue_conversation(
        &self,
        tx: &Tx<'_>,
        execution: [u8; 16],
        agent: &str,
        conversation: &str,
        now: i64,
    ) -> Outcome<()> {
        if !self.changes_conversation() {
            return Ok(());
        }
        let added = limit(self.messages.len());
        let last: Option<i64> = tx.conn.first(
            "INSERT INTO conversations (agent_name, conversation_id, created_at, updated_at, messages, version)
             VALUES (?1, ?2, ?3, ?3, ?4, 1)
             ON CONFLICT DO UPDATE SET updated_at = ?3, messages = messages + ?4, version = version + 1
             RETURNING messages",
            params![agent, conversation, now, added],
            |row| row.get(0),
        )?;
        let before = last.unwrap_or(added) - added;
        if let Some((digest, keep)) = &self.digest {
            // It stands where the last one stood that it covers.
            let covered = (before - i64::from(*keep)).max(0);
            tx.conn.run(
                "DELETE FROM messages WHERE agent_name = ?1 AND conversation_id = ?2 AND seq <= ?3",
                params![agent, conversation, covered],
            )?;
            tx.conn.run(
                "INSERT INTO messages (agent_name, conversation_id, seq, execution_id, created_at, message)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![agent, conversation, covered, execution, now, digest],
            )?;
        }
        for (seq, message) in (before + 1..).zip(&self.messages) {
            tx.conn.run(
                "INSERT INTO messages (agent_name, conversation_id, seq, execution_id, created_at, message)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![agent, conversation, seq, execution, now, message],
            )?;
        }
        Ok(())
    }
}

/// An end that no owner writes: of an execution that nobody has begun, or that nobody can read.
#[derive(Debug)]
pub(super) struct UnownedEnding {
    ending: Ending,
    step: String,
}

impl UnownedEnding {
    /// Turns it into JSON.
    pub(super) fn new(outcome: domain::Outcome, packing: Packing) -> Result<Self> {
        Ok(Self {
            ending: Ending::new(&outcome, &[], None, packing)?,
            step: packing.encode("the outcome", &StepBody::Finished { outcome })?,
        })
    }

    /// Writes the end and the journal's last step; tells whether it was the end.
    pub(super) fn write(&self, tx: &mut Tx<'_>, execution: [u8; 16], now: i64) -> Outcome<bool> {
        if !self.ending.write(tx, execution, now)? {
            return Ok(false);
        }
        tx.conn.run(
            "INSERT INTO steps (execution_id, seq, at, epoch, kind, body)
             SELECT ?1, 1 + coalesce((SELECT max(seq) FROM steps WHERE execution_id = ?1), 0), ?2, epoch,
                    'finished', ?3
             FROM executions WHERE id = ?1",
            params![execution, now, self.step],
        )?;
        tx.conn.run(
            "UPDATE executions SET steps = (SELECT max(seq) FROM steps WHERE execution_id = ?1) WHERE id = ?1",
            params![execution],
        )?;
        Ok(true)
    }
}

/// Whether the declared graph of states has the edge; whether there is such a row at all is not asked here.
fn is_on_the_graph(tx: &Tx<'_>, execution: [u8; 16], next: Status) -> bool {
    let status: Option<String> = tx
        .conn
        .query_row(
            "SELECT status FROM executions WHERE id = ?1",
            params![execution],
            |row| row.get(0),
        )
        .optional()
        .unwrap_or_default();
    status
        .and_then(|word| word.parse::<Status>().ok())
        .is_none_or(|from| from.is_terminal() || from.may_become(next))
}
