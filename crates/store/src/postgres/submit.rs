//! Accepting executions, once each.

use std::collections::{HashMap, HashSet};

use domain::execution::Origin;
use domain::{Execution, ExecutionId, Time};
use uuid::Uuid;

use super::Postgres;
use super::connection::Conn;
use super::fault::{Outcome, internal};
use super::gather::{Done, Kind};
use super::outbox::{self, Outgoing};
use super::sql::{Packing, get, key, small, text, touch, up};
use super::turns::{Name, Seats};
use crate::{IdempotencyKey, Result, Submission, Submitted, WhenBusy};

const SUBMIT: &str = include_str!("sql/submit.sql");

/// A submission as it will be written.
#[derive(Debug)]
pub(super) struct Prepared {
    execution: Execution,
    idempotency: Option<IdempotencyKey>,
    spec: String,
    events: Vec<Outgoing>,
    when_busy: WhenBusy,
}

/// Submissions, gathered.
pub(super) struct Submits;

impl Postgres {
    pub(super) async fn accept(&self, submission: Submission) -> Result<Submitted> {
        self.submits
            .perform(Prepared::new(submission, self.packing)?)
            .await
    }
}

impl Prepared {
    /// Turns it into JSON, on the caller's task rather than on the one that writes.
    pub(super) fn new(submission: Submission, packing: Packing) -> Result<Self> {
        let spec = packing.encode("the task", &submission.execution)?;
        let idempotency = submission.idempotency.map(|given| IdempotencyKey {
            key: text(&given.key).into_owned(),
            body_hash: text(&given.body_hash).into_owned(),
        });
        Ok(Self {
            spec,
            events: outbox::prepare(submission.events)?,
            execution: submission.execution,
            idempotency,
            when_busy: submission.when_busy,
        })
    }

    /// The conversation that it belongs to.
    pub(super) fn conversation(&self) -> Option<Name<'_>> {
        let conversation = self.execution.conversation.as_ref()?;
        Some((self.execution.agent.as_str(), conversation.as_str()))
    }

    /// What becomes of it when that is at an earlier one.
    pub(super) const fn when_busy(&self) -> WhenBusy {
        self.when_busy
    }

    /// When it was accepted.
    pub(super) const fn accepted_at(&self) -> Time {
        self.execution.created_at
    }

    pub(super) fn id(&self) -> Uuid {
        key(self.execution.id)
    }

    /// Which steps it shares.
    fn shares(&self) -> Option<&Origin> {
        self.execution
            .origin
            .as_ref()
            .filter(|origin| origin.steps > 0)
    }

    fn event_id(&self) -> Option<&str> {
        self.execution.event_id.as_ref().map(|id| id.as_str())
    }
}

impl Kind for Submits {
    type Request = Prepared;
    type Answer = Submitted;

    fn touches(request: &Prepared) -> Vec<u64> {
        let mut touches = vec![touch(request.id())];
        if let Some(event) = request.event_id() {
            touches.push(touch((request.execution.agent.as_str(), event)));
        }
        if let Some(idempotency) = &request.idempotency {
            touches.push(touch(&idempotency.key));
        }
        touches
    }

    async fn perform(&self, conn: &mut Conn, batch: &[Prepared]) -> Outcome<Done<Submitted>> {
        let keyed: Vec<&Prepared> = batch.iter().filter(|p| p.idempotency.is_some()).collect();
        let is_plain = keyed.is_empty()
            && batch
                .iter()
                .all(|p| p.conversation().is_none() && p.shares().is_none());
        if !is_plain {
            conn.begin();
        }
        let known = if keyed.is_empty() {
            HashMap::new()
        } else {
            take_keys(conn, &keyed).await?
        };
        let mut wanted: Vec<&Prepared> = batch
            .iter()
            .filter(|prepared| !known.contains_key(&prepared.id()))
            .collect();
        let orphans = orphans(conn, &wanted).await?;
        wanted.retain(|prepared| !orphans.contains(&prepared.id()));
        let mut seats = Seats::reserve(conn, &wanted).await?;
        let mut refused = std::mem::take(&mut seats.refused);
        wanted.retain(|prepared| !refused.contains_key(&prepared.id()));
        refused.extend(orphans.into_iter().map(|id| (id, Submitted::NoOrigin)));
        let new = insert(conn, &wanted).await?;
        seats.sit_down(conn, &new).await?;
        share_steps(conn, &wanted, &new).await?;
        if !keyed.is_empty() {
            give_keys_back(conn, &keyed, &known, &new).await?;
        }
        if !is_plain {
            conn.commit().await?;
        }
        let mut answers = Vec::with_capacity(batch.len());
        for prepared in batch {
            answers.push(match known.get(&prepared.id()) {
                Some(answer) => Ok(*answer),
                None if new.contains(&prepared.id()) => Ok(Submitted::New),
                None => match known_by_row(conn, prepared).await {
                    Ok(Some(known)) => Ok(known),
                    Ok(None) => refused
                        .get(&prepared.id())
                        .copied()
                        .ok_or_else(|| internal("an execution was refused by no other")),
                    Err(fault) => Err(fault.into()),
                },
            });
        }
        Ok(Done {
            answers,
            has_events: batch
                .iter()
                .any(|p| !p.events.is_empty() && new.contains(&p.id())),
            has_work: !new.is_empty(),
        })
    }
}

/// Writes those that are not there; answers which. It gives no seats in conversations: children have none.
pub(super) async fn insert(conn: &mut Conn, batch: &[&Prepared]) -> Outcome<HashSet<Uuid>> {
    let mut new = HashSet::with_capacity(batch.len());
    if batch.is_empty() {
        return Ok(new);
    }
    // The same twice would have two specifications.
    let mut seen = HashSet::with_capacity(batch.len());
    let batch: Vec<&Prepared> = batch
        .iter()
        .copied()
        .filter(|prepared| seen.insert(prepared.id()))
        .collect();
    let each = || batch.iter().map(|prepared| &prepared.execution);
    let ids: Vec<Uuid> = each().map(|e| key(e.id)).collect();
    let agents: Vec<&str> = each().map(|e| e.agent.as_str()).collect();
    let versions: Vec<&str> = each().map(|e| e.version.as_str()).collect();
    let modes: Vec<&str> = each().map(|e| e.mode.as_str()).collect();
    let priorities: Vec<i16> = each().map(|e| e.priority as i16).collect();
    let created: Vec<Time> = each().map(|e| e.created_at).collect();
    let deadlines: Vec<Time> = each().map(|e| up(e.deadline)).collect();
    let conversations: Vec<Option<&str>> = each()
        .map(|e| e.conversation.as_ref().map(|id| id.as_str()))
        .collect();
    let traces: Vec<&str> = each().map(|e| e.trace_id.as_str()).collect();
    let parents: Vec<Option<Uuid>> = each()
        .map(|e| e.parent.map(|parent| key(parent.id)))
        .collect();
    let callbacks: Vec<bool> = each().map(|e| e.callback_url.is_some()).collect();
    let event_ids: Vec<Option<&str>> = batch.iter().map(|p| p.event_id()).collect();
    let specs: Vec<&str> = batch.iter().map(|p| p.spec.as_str()).collect();
    let outgoing = || {
        batch
            .iter()
            .flat_map(|p| p.events.iter().map(|event| (p.id(), event)))
    };
    let owners: Vec<Uuid> = outgoing().map(|(id, _)| id).collect();
    let outgoing_ids: Vec<&str> = outgoing().map(|(_, o)| o.event_id.as_str()).collect();
    let outgoing_json: Vec<&str> = outgoing().map(|(_, o)| o.event.as_str()).collect();
    let rows = conn
        .all(
            SUBMIT,
            &[
                &ids,
                &agents,
                &versions,
                &modes,
                &priorities,
                &created,
                &deadlines,
                &conversations,
                &traces,
                &parents,
                &event_ids,
                &specs,
                &owners,
                &outgoing_ids,
                &outgoing_json,
                &callbacks,
            ],
        )
        .await?;
    for row in &rows {
        new.insert(get(row, 0)?);
    }
    Ok(new)
}

/// Those that are to share steps that are not there. The origins of the others stay until the transaction is over.
async fn orphans(conn: &mut Conn, wanted: &[&Prepared]) -> Outcome<HashSet<Uuid>> {
    let mut orphans = HashSet::new();
    for prepared in wanted {
        let Some(origin) = prepared.shares() else {
            continue;
        };
        let found = conn
            .first(
                "SELECT 1 FROM executions WHERE id = $1 AND steps >= $2 FOR KEY SHARE",
                &[&key(origin.id), &small(origin.steps)],
            )
            .await?;
        if found.is_none() {
            orphans.insert(prepared.id());
        }
    }
    Ok(orphans)
}

/// Copies the steps that new ones share: from then on they are their own, and stay when the other ones are forgotten.
async fn share_steps(conn: &mut Conn, wanted: &[&Prepared], new: &HashSet<Uuid>) -> Outcome<()> {
    for prepared in wanted.iter().filter(|p| new.contains(&p.id())) {
        let Some(origin) = prepared.shares() else {
            continue;
        };
        let (id, steps) = (prepared.id(), small(origin.steps));
        conn.run(
            "INSERT INTO steps (execution_id, seq, at, epoch, kind, body)
             SELECT $1, seq, at, 0, kind, body FROM steps WHERE execution_id = $2 AND seq <= $3",
            &[&id, &key(origin.id), &steps],
        )
        .await?;
        conn.run(
            "UPDATE executions SET steps = $2 WHERE id = $1",
            &[&id, &steps],
        )
        .await?;
    }
    Ok(())
}

/// Takes the callers' keys that are free, or were taken more than a day ago; answers what is known about the others.
async fn take_keys(conn: &mut Conn, keyed: &[&Prepared]) -> Outcome<HashMap<Uuid, Submitted>> {
    let each = || {
        keyed
            .iter()
            .filter_map(|p| p.idempotency.as_ref().map(|given| (*p, given)))
    };
    let keys: Vec<&str> = each().map(|(_, given)| given.key.as_str()).collect();
    let hashes: Vec<&str> = each().map(|(_, given)| given.body_hash.as_str()).collect();
    let ids: Vec<Uuid> = each().map(|(p, _)| p.id()).collect();
    let times: Vec<Time> = each().map(|(p, _)| p.execution.created_at).collect();
    let taken = conn
        .all(
            "INSERT INTO idempotency_keys AS k (key, body_hash, execution_id, created_at)
             SELECT * FROM unnest($1::text[], $2::text[], $3::uuid[], $4::timestamptz[]) AS r (key, hash, id, now)
             ORDER BY key
             ON CONFLICT (key) DO UPDATE SET body_hash = excluded.body_hash, execution_id = excluded.execution_id,
                 created_at = excluded.created_at
             WHERE k.created_at <= excluded.created_at - interval '24 hours'
             RETURNING key",
            &[&keys, &hashes, &ids, &times],
        )
        .await?;
    let mut known = HashMap::new();
    if taken.len() == keys.len() {
        return Ok(known);
    }
    let taken: HashSet<String> = taken
        .iter()
        .map(|row| get(row, 0))
        .collect::<Outcome<_>>()?;
    let rows = conn
        .all(
            "SELECT key, body_hash, execution_id FROM idempotency_keys WHERE key = ANY ($1)",
            &[&keys],
        )
        .await?;
    let mut earlier = HashMap::new();
    for row in &rows {
        let (key, hash, id): (String, String, Uuid) = (get(row, 0)?, get(row, 1)?, get(row, 2)?);
        earlier.insert(key, (hash, id));
    }
    for (prepared, given) in each().filter(|(_, given)| !taken.contains(&given.key)) {
        let (hash, id) = earlier
            .get(&given.key)
            .ok_or_else(|| internal("an idempotency key was refused by no other"))?;
        let answer = if *hash == given.body_hash {
            Submitted::Existing(ExecutionId::from_uuid(*id))
        } else {
            Submitted::KeyMismatch
        };
        known.insert(prepared.id(), answer);
    }
    Ok(known)
}

/// A key that was taken for an execution that had been accepted before is free again. And each batch of new keys takes
/// a few old ones away, so that there is never much to clean up.
async fn give_keys_back(
    conn: &mut Conn,
    keyed: &[&Prepared],
    known: &HashMap<Uuid, Submitted>,
    new: &HashSet<Uuid>,
) -> Outcome<()> {
    let unused: Vec<&str> = keyed
        .iter()
        .filter(|p| !known.contains_key(&p.id()) && !new.contains(&p.id()))
        .filter_map(|p| p.idempotency.as_ref().map(|given| given.key.as_str()))
        .collect();
    if !unused.is_empty() {
        conn.run(
            "DELETE FROM idempotency_keys WHERE key = ANY ($1)",
            &[&unused],
        )
        .await?;
    }
    let Some(now) = keyed.iter().map(|p| p.execution.created_at).min() else {
        return Ok(());
    };
    let few = i64::try_from(keyed.len()).unwrap_or(1).saturating_mul(4);
    conn.run(
        "DELETE FROM idempotency_keys WHERE key = ANY (ARRAY(
             SELECT key FROM idempotency_keys WHERE created_at <= $1::timestamptz - interval '24 hours'
             ORDER BY created_at LIMIT $2 FOR UPDATE SKIP LOCKED))",
        &[&now, &few],
    )
    .await?;
    Ok(())
}

/// The execution that is the same, or was started by the same event.
pub(super) async fn known_by_row(
    conn: &mut Conn,
    prepared: &Prepared,
) -> Outcome<Option<Submitted>> {
    let row = conn
        .first(
            "SELECT id FROM executions WHERE id = $1
             UNION ALL
             SELECT execution_id FROM execution_events WHERE agent_name = $2 AND event_id = $3
             LIMIT 1",
            &[
                &prepared.id(),
                &prepared.execution.agent.as_str(),
                &prepared.event_id(),
            ],
        )
        .await?;
    let existing = |row| Ok(Submitted::Existing(ExecutionId::from_uuid(get(&row, 0)?)));
    row.map(existing).transpose()
}
