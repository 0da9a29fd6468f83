//! How an execution ends: state, result, conversation, the end of its children and the parent's wake-up at once.

use std::collections::BTreeMap;

use domain::{Message, Status, StepBody, Time};
use tokio_postgres::Row;
use uuid::Uuid;

use super::connection::Conn;
use super::fault::Outcome;
use super::sql::{Packing, get, text};
use crate::Result;

/// An end as it will be written.
#[derive(Debug)]
pub(super) struct Ending {
    pub(super) status: Status,
    pub(super) reason: String,
    pub(super) outcome: String,
    messages: Vec<String>,
}

impl Ending {
    /// Turns it into JSON.
    pub(super) fn new(
        outcome: &domain::Outcome,
        messages: &[Message],
        packing: Packing,
    ) -> Result<Self> {
        let messages = messages
            .iter()
            .map(|message| packing.encode("the message", message));
        Ok(Self {
            status: outcome.status(),
            reason: text(&outcome.reason()).into_owned(),
            outcome: packing.encode("the outcome", outcome)?,
            messages: messages.collect::<Result<_>>()?,
        })
    }
}

/// What a batch's ends mean to parents and children.
#[derive(Default)]
pub(super) struct Family {
    /// How often each parent is woken, and when last. Sorted, so that all who write lock in the same order.
    parents: BTreeMap<Uuid, (i64, Time)>,
    /// Whose children are to end, why and when.
    orphaned: BTreeMap<Uuid, (String, Time)>,
}

impl Family {
    /// The end of a child wakes its parent.
    pub(super) fn wake(&mut self, parent: Uuid, now: Time) {
        let (times, last) = self.parents.entry(parent).or_insert((0, now));
        *times += 1;
        *last = now.max(*last);
    }

    /// Nobody waits for the children of an ended execution any more.
    pub(super) fn end_children(&mut self, parent: Uuid, why: &str, now: Time) {
        self.orphaned.insert(parent, (why.to_owned(), now));
    }

    /// Writes it; tells whether something became due.
    pub(super) async fn write(&self, conn: &mut Conn) -> Outcome<bool> {
        let is_woken = self.wake_parents(conn).await?;
        Ok(self.ask_children(conn).await? || is_woken)
    }

    async fn wake_parents(&self, conn: &mut Conn) -> Outcome<bool> {
        if self.parents.is_empty() {
            return Ok(false);
        }
        let ids: Vec<Uuid> = self.parents.keys().copied().collect();
        let times: Vec<i64> = self.parents.values().map(|(times, _)| *times).collect();
        let now: Vec<Time> = self.parents.values().map(|(_, now)| *now).collect();
        let woken = conn
            .all(
                "UPDATE executions e SET wakes = e.wakes + r.n,
                     due_at = CASE WHEN e.worker IS NULL THEN least(e.due_at, r.now) ELSE e.due_at END
                 FROM unnest($1::uuid[], $2::bigint[], $3::timestamptz[]) AS r (id, n, now)
                 WHERE e.id = ANY ($1) AND e.id = r.id AND e.finished_at IS NULL
                 RETURNING e.worker IS NULL",
                &[&ids, &times, &now],
            )
            .await?;
        any(&woken)
    }

    async fn ask_children(&self, conn: &mut Conn) -> Outcome<bool> {
        if self.orphaned.is_empty() {
            return Ok(false);
        }
        let parents: Vec<Uuid> = self.orphaned.keys().copied().collect();
        let rows = conn
            .all(
                "SELECT id, parent_id FROM executions
                 WHERE parent_id = ANY ($1) AND finished_at IS NULL AND cancel_by IS NULL ORDER BY id FOR UPDATE",
                &[&parents],
            )
            .await?;
        let (mut ids, mut why, mut now) = (Vec::<Uuid>::new(), Vec::new(), Vec::new());
        for row in &rows {
            if let Some((reason, at)) = self.orphaned.get(&get::<Uuid>(row, 1)?) {
                ids.push(get(row, 0)?);
                why.push(reason.as_str());
                now.push(*at);
            }
        }
        if ids.is_empty() {
            return Ok(false);
        }
        let asked = conn
            .all(
                "UPDATE executions e SET cancel_by = 'its parent', cancel_reason = r.why, wakes = e.wakes + 1,
                     due_at = CASE WHEN e.worker IS NULL THEN least(e.due_at, r.now) ELSE e.due_at END
                 FROM unnest($1::uuid[], $2::text[], $3::timestamptz[]) AS r (id, why, now)
                 WHERE e.id = ANY ($1) AND e.id = r.id
                 RETURNING e.worker IS NULL",
                &[&ids, &why, &now],
            )
            .await?;
        any(&asked)
    }
}

/// Whether one of the rows says so.
fn any(rows: &[Row]) -> Outcome<bool> {
    let mut is_any = false;
    for row in rows {
        is_any |= get::<bool>(row, 0)?;
    }
    Ok(is_any)
}

/// What a batch's ends add to conversations.
#[derive(Default)]
pub(super) struct Talk<'a> {
    conversations: BTreeMap<(&'a str, &'a str), Vec<Said<'a>>>,
}

struct Said<'a> {
    execution: Uuid,
    now: Time,
    message: &'a str,
}

impl<'a> Talk<'a> {
    pub(super) fn add(
        &mut self,
        agent: &'a str,
        conversation: &'a str,
        execution: Uuid,
        now: Time,
        ending: &'a Ending,
    ) {
        if ending.messages.is_empty() {
            return;
        }
        let said = ending.messages.iter().map(|message| Said {
            execution,
            now,
            message,
        });
        let talk = self.conversations.entry((agent, conversation));
        talk.or_default().extend(said);
    }

    /// Writes the messages behind those that each conversation has.
    pub(super) async fn write(&self, conn: &mut Conn) -> Outcome<()> {
        for ((agent, conversation), said) in &self.conversations {
            let executions: Vec<Uuid> = said.iter().map(|said| said.execution).collect();
            let times: Vec<Time> = said.iter().map(|said| said.now).collect();
            let messages: Vec<&str> = said.iter().map(|said| said.message).collect();
            conn.run(
                "WITH talk AS (
                     INSERT INTO conversations AS c (agent_name, conversation_id, created_at, updated_at, messages)
                     VALUES ($1, $2, ($4::timestamptz[])[1], ($4::timestamptz[])[1], cardinality($5::text[]))
                     ON CONFLICT (agent_name, conversation_id) DO UPDATE
                         SET updated_at = excluded.updated_at, messages = c.messages + excluded.messages
                     RETURNING messages
                 )
                 INSERT INTO messages (agent_name, conversation_id, seq, execution_id, created_at, message)
                 SELECT $1, $2, talk.messages - cardinality($5::text[]) + said.n, said.execution, said.now, said.message
                 FROM talk, unnest($3::uuid[], $4::timestamptz[], $5::text[]) WITH ORDINALITY
                     AS said (execution, now, message, n)",
                &[agent, conversation, &executions, &times, &messages],
            )
            .await?;
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
            ending: Ending::new(&outcome, &[], packing)?,
            step: packing.encode("the outcome", &StepBody::Finished { outcome })?,
        })
    }

    /// Writes the end and the journal's last step in the open transaction, which holds the execution's row locked. Tells
    /// whether something became due.
    pub(super) async fn write(
        &self,
        conn: &mut Conn,
        id: Uuid,
        was: &str,
        now: Time,
    ) -> Outcome<bool> {
        let ended = conn
            .first(
                "WITH last AS (
                     INSERT INTO steps (execution_id, seq, at, epoch, kind, body)
                     SELECT e.id, 1 + coalesce((SELECT max(seq) FROM steps WHERE execution_id = $1), 0), $2, e.epoch,
                         'finished', $3
                     FROM executions e WHERE e.id = $1 AND e.finished_at IS NULL
                     RETURNING seq
                 ), ended AS (
                     UPDATE executions e SET status = $4, status_reason = $5, finished_at = $2, due_at = NULL,
                         worker = NULL, steps = last.seq
                     FROM last WHERE e.id = $1 AND e.finished_at IS NULL
                     RETURNING e.agent_name, e.parent_id
                 ), result AS (
                     INSERT INTO execution_results (execution_id, agent_name, status, outcome, created_at)
                     SELECT $1, agent_name, $4, $6, $2 FROM ended
                 ), counts AS (
                     INSERT INTO execution_counts AS c (agent_name, status, slot, n)
                     SELECT agent_name, change.status, pg_backend_pid() % 64, change.n
                     FROM ended, (VALUES ($7::text, -1), ($4::text, 1)) AS change (status, n) ORDER BY 2
                     ON CONFLICT (agent_name, status, slot) DO UPDATE SET n = c.n + excluded.n
                 )
                 SELECT parent_id FROM ended",
                &[
                    &id,
                    &now,
                    &self.step,
                    &self.ending.status.as_str(),
                    &self.ending.reason,
                    &self.ending.outcome,
                    &was,
                ],
            )
            .await?;
        let Some(row) = ended else { return Ok(false) };
        let mut family = Family::default();
        if let Some(parent) = get(&row, 0)? {
            family.wake(parent, now);
        }
        family.end_children(id, &self.ending.reason, now);
        family.write(conn).await
    }
}
