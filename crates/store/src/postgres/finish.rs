//! How an execution ends: state, result, conversation, the end of its children and the parent's wake-up at once.

use std::collections::{BTreeMap, HashMap};

use domain::{StepBody, Time};
use tokio_postgres::Row;
use uuid::Uuid;

use super::connection::Conn;
use super::fault::Outcome;
use super::sql::{Packing, get, limit};
use super::turns::{self, Name};
use crate::Result;
use crate::codec::Ending;

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

/// What a batch's ends mean to conversations: messages, and whose turn it is.
#[derive(Default)]
pub(super) struct Talk<'a> {
    conversations: BTreeMap<Name<'a>, Vec<Said<'a>>>,
}

/// What an execution leaves behind in its conversation.
struct Said<'a> {
    execution: Uuid,
    now: Time,
    ending: &'a Ending,
}

impl<'a> Talk<'a> {
    pub(super) fn add(&mut self, name: Name<'a>, execution: Uuid, now: Time, ending: &'a Ending) {
        let talk = self.conversations.entry(name).or_default();
        talk.push(Said {
            execution,
            now,
            ending,
        });
    }

    /// Writes the messages behind those that each conversation has, and gives the turn to the next. Tells whether
    /// something became due.
    pub(super) async fn write(&self, conn: &mut Conn) -> Outcome<bool> {
        if self.conversations.is_empty() {
            return Ok(false);
        }
        let before = self.lock(conn).await?;
        self.write_messages(conn, &before).await?;
        let mut over = BTreeMap::new();
        for (name, said) in &self.conversations {
            // Only one of them had the turn; others were accepted by a program that knew none.
            for one in said {
                over.insert(*name, (one.execution, one.now));
                if said.len() > 1 {
                    turns::release(conn, &over).await?;
                }
            }
        }
        turns::release(conn, &over).await
    }

    /// Locks the conversations, in the order of their names, and counts the new messages; answers how many there were.
    async fn lock(&self, conn: &mut Conn) -> Outcome<HashMap<(String, String), i64>> {
        let (mut agents, mut names) = (Vec::new(), Vec::new());
        let (mut times, mut counts, mut changes) = (Vec::new(), Vec::new(), Vec::new());
        for ((agent, name), said) in &self.conversations {
            let count: usize = said.iter().map(|one| one.ending.messages.len()).sum();
            agents.push(*agent);
            names.push(*name);
            times.extend(said.iter().map(|one| one.now).max());
            counts.push(limit(count));
            let changed = |one: &&Said<'_>| one.ending.changes_conversation();
            changes.push(limit(said.iter().filter(changed).count()));
        }
        let rows = conn
            .all(
                "INSERT INTO conversations AS c (agent_name, conversation_id, created_at, updated_at, messages, version)
                 SELECT r.agent, r.name, r.now, r.now, r.n, r.changes
                 FROM unnest($1::text[], $2::text[], $3::timestamptz[], $4::bigint[], $5::bigint[])
                     AS r (agent, name, now, n, changes)
                 ORDER BY r.agent, r.name
                 ON CONFLICT (agent_name, conversation_id) DO UPDATE
                     SET updated_at = excluded.updated_at, messages = c.messages + excluded.messages,
                         version = c.version + excluded.version
                 RETURNING agent_name, conversation_id, messages",
                &[&agents, &names, &times, &counts, &changes],
            )
            .await?;
        let mut before = HashMap::with_capacity(rows.len());
        for row in &rows {
            let (agent, name): (String, String) = (get(row, 0)?, get(row, 1)?);
            let said = self.conversations.get(&(agent.as_str(), name.as_str()));
            let new = said.map_or(0, |said| {
                said.iter().map(|one| one.ending.messages.len()).sum()
            });
            before.insert((agent, name), get::<i64>(row, 2)? - limit(new));
        }
        Ok(before)
    }

    async fn write_messages(
        &self,
        conn: &mut Conn,
        before: &HashMap<(String, String), i64>,
    ) -> Outcome<()> {
        let mut new = Messages::default();
        for ((agent, name), said) in &self.conversations {
            let known = before.get(&((*agent).to_owned(), (*name).to_owned()));
            let mut last = known.copied().unwrap_or_default();
            for one in said {
                if let Some((digest, keep)) = &one.ending.digest {
                    // It stands where the last one stood that it covers.
                    let covered = (last - i64::from(*keep)).max(0);
                    conn.run(
                        "DELETE FROM messages WHERE agent_name = $1 AND conversation_id = $2 AND seq <= $3",
                        &[agent, name, &covered],
                    )
                    .await?;
                    new.add((agent, name), covered, one, digest);
                }
                for message in &one.ending.messages {
                    last += 1;
                    new.add((agent, name), last, one, message);
                }
            }
        }
        new.write(conn).await
    }
}

/// Rows of `messages`, a column each.
#[derive(Default)]
struct Messages<'a> {
    agents: Vec<&'a str>,
    names: Vec<&'a str>,
    seqs: Vec<i64>,
    executions: Vec<Uuid>,
    times: Vec<Time>,
    messages: Vec<&'a str>,
}

impl<'a> Messages<'a> {
    fn add(&mut self, (agent, name): Name<'a>, seq: i64, said: &Said<'_>, message: &'a str) {
        self.agents.push(agent);
        self.names.push(name);
        self.seqs.push(seq);
        self.executions.push(said.execution);
        self.times.push(said.now);
        self.messages.push(message);
    }

    async fn write(&self, conn: &mut Conn) -> Outcome<()> {
        if self.messages.is_empty() {
            return Ok(());
        }
        conn.run(
            "INSERT INTO messages (agent_name, conversation_id, seq, execution_id, created_at, message)
             SELECT * FROM unnest($1::text[], $2::text[], $3::bigint[], $4::uuid[], $5::timestamptz[], $6::text[])",
            &[
                &self.agents,
                &self.names,
                &self.seqs,
                &self.executions,
                &self.times,
                &self.messages,
            ],
        )
        .await?;
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
                     RETURNING e.agent_name, e.parent_id, e.conversation_id, e.waits_turn
                 ), result AS (
                     INSERT INTO execution_results (execution_id, agent_name, status, outcome, created_at)
                     SELECT $1, agent_name, $4, $6, $2 FROM ended
                 ), counts AS (
                     INSERT INTO execution_counts AS c (agent_name, status, slot, n)
                     SELECT agent_name, change.status, pg_backend_pid() % 64, change.n
                     FROM ended, (VALUES ($7::text, -1), ($4::text, 1)) AS change (status, n) ORDER BY 2
                     ON CONFLICT (agent_name, status, slot) DO UPDATE SET n = c.n + excluded.n
                 )
                 SELECT parent_id, agent_name, conversation_id, waits_turn FROM ended",
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
        let (agent, conversation): (String, Option<String>) = (get(&row, 1)?, get(&row, 2)?);
        let mut talk = Talk::default();
        if let Some(conversation) = &conversation
            && !get::<bool>(&row, 3)?
        {
            talk.add((&agent, conversation), id, now, &self.ending);
        }
        let is_next_due = talk.write(conn).await?;
        Ok(family.write(conn).await? || is_next_due)
    }
}
