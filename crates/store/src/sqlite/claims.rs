//! Leases: who may write an execution's journal, and until when.

use std::sync::{Arc, Mutex, PoisonError};

use domain::{Epoch, ExecutionId, Failure, FailureCode, Priority, Seq, Time};
use rusqlite::params;

use super::Sqlite;
use super::fault::{Outcome, corrupt};
use super::finish::UnownedEnding;
use super::journal::{self, RawStep};
use super::sql::{Sql, counted, decode, id, key, limit, micros};
use super::wake::{self, RawWaiting};
use super::writer::Tx;
use crate::{Claim, Claimed, Error, Renewal, Result, Signal};

/// Which agent was served last, so that the next claim begins with the one after it.
#[derive(Debug, Clone, Default)]
pub(super) struct Turn {
    last: Arc<Mutex<String>>,
}

impl Turn {
    fn get(&self) -> String {
        self.last
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set(&self, agent: &str) {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        agent.clone_into(&mut last);
    }
}

impl Sqlite {
    pub(super) async fn take(&self, claim: Claim) -> Result<Vec<Claimed>> {
        let (now, turn) = (claim.now, self.turn.clone());
        let leased = self
            .writer
            .write(move |tx| lease_due(tx, &claim, &turn))
            .await?;
        let mut claimed = Vec::with_capacity(leased.len());
        for lease in leased {
            let (execution, epoch) = (lease.execution, lease.epoch);
            // Read here, not on the writing thread: a journal can be long.
            match lease.read() {
                Ok(one) => claimed.push(one),
                Err(error) => self.give_up(execution, epoch, &error, now).await,
            }
        }
        Ok(claimed)
    }

    /// Ends an execution that can't be read. When that can't be written either, its lease runs out and the next claim
    /// meets it again.
    async fn give_up(&self, execution: [u8; 16], epoch: u32, error: &Error, now: Time) {
        let id = id(execution);
        tracing::error!(execution_id = %id, %error, "an execution can't be read and ends");
        let outcome = domain::Outcome::Failed(Failure {
            code: FailureCode::Corrupt,
            message: error.to_string(),
        });
        let result = match UnownedEnding::new(outcome, self.packing) {
            Ok(ending) => {
                let end = move |tx: &mut Tx<'_>| match owner(tx, execution, epoch)? {
                    true => ending.write(tx, execution, micros(now)),
                    false => Ok(false),
                };
                self.writer.write(end).await.map(drop)
            }
            Err(error) => Err(error),
        };
        if let Err(error) = result {
            tracing::error!(execution_id = %id, %error, "its end can't be written");
        }
    }

    pub(super) async fn extend(&self, renewal: Renewal) -> Result<Vec<Signal>> {
        if renewal.leases.is_empty() {
            return Ok(Vec::new());
        }
        self.writer.write(move |tx| renew(tx, &renewal)).await
    }
}

/// Whether the lease of that epoch is the current one.
fn owner(tx: &Tx<'_>, execution: [u8; 16], epoch: u32) -> Outcome<bool> {
    let found = tx.conn.first(
        "SELECT 1 FROM executions WHERE id = ?1 AND epoch = ?2 AND worker IS NOT NULL",
        params![execution, epoch],
        |_| Ok(()),
    )?;
    Ok(found.is_some())
}

/// A leased execution as its rows tell it.
struct Lease {
    execution: [u8; 16],
    epoch: u32,
    crashes: u32,
    steps: u32,
    waits_turn: bool,
    spec: Option<String>,
    journal: Vec<RawStep>,
    waiting: RawWaiting,
    /// What could not even be fetched.
    damage: Option<Error>,
}

impl Lease {
    fn load(&mut self, tx: &Tx<'_>) -> Outcome<()> {
        self.spec = tx.conn.first(
            "SELECT spec FROM execution_specs WHERE execution_id = ?1",
            params![self.execution],
            |row| row.get(0),
        )?;
        // All, whatever the row's count of steps says: whether that is right is to be found out.
        self.journal = journal::select(tx.conn, self.execution, 0, i64::MAX)?;
        wake::load(tx.conn, self.execution, &mut self.waiting)
    }

    fn read(self) -> Result<Claimed> {
        if let Some(error) = self.damage {
            return Err(error);
        }
        let id = id(self.execution);
        let what = || format!("execution {id}");
        let spec = self
            .spec
            .ok_or_else(|| corrupt(what(), "its task is gone"))?;
        let execution = decode(what, &spec)?;
        let steps: Vec<_> = self
            .journal
            .into_iter()
            .map(|step| step.read(id))
            .collect::<Result<_>>()?;
        let is_whole = (1..).zip(&steps).all(|(n, step)| step.seq == Seq::new(n));
        if !is_whole || steps.len() != self.steps as usize {
            let message = format!("{} of its {} steps are there", steps.len(), self.steps);
            return Err(corrupt(format!("the journal of execution {id}"), message));
        }
        Ok(Claimed {
            execution,
            epoch: Epoch::new(self.epoch),
            steps,
            crashes: self.crashes,
            waiting: self.waiting.read(id)?,
            waits_turn: self.waits_turn,
        })
    }
}

fn lease_due(tx: &mut Tx<'_>, claim: &Claim, turn: &Turn) -> Outcome<Vec<Lease>> {
    let due = match claim.only {
        Some(id) => only(tx, claim, id)?,
        None => pick(tx, claim, turn)?,
    };
    let mut leases = Vec::with_capacity(due.len());
    for execution in due {
        leases.extend(lease(tx, claim, execution)?);
    }
    Ok(leases)
}

fn lease(tx: &Tx<'_>, claim: &Claim, execution: [u8; 16]) -> Outcome<Option<Lease>> {
    let lease = tx.conn.first(
        "UPDATE executions
         SET epoch = epoch + 1, crashes = crashes + (worker IS NOT NULL), worker = ?2, due_at = ?3,
             heartbeat_at = ?4, started_at = coalesce(started_at, ?4), status = 'running', status_reason = NULL,
             wakes_claimed = wakes
         WHERE id = ?1 AND due_at <= ?4
         RETURNING epoch, crashes, steps, wakes, cancel_by, cancel_reason, waits_turn",
        params![
            execution,
            claim.worker.as_str(),
            micros(claim.now + claim.lease),
            micros(claim.now)
        ],
        |row| {
            Ok(Lease {
                execution,
                epoch: row.get(0)?,
                crashes: row.get(1)?,
                steps: row.get(2)?,
                waits_turn: row.get(6)?,
                spec: None,
                journal: Vec::new(),
                waiting: RawWaiting::new(row.get(3)?, row.get(4)?, row.get(5)?),
                damage: None,
            })
        },
    )?;
    let Some(mut lease) = lease else {
        return Ok(None);
    };
    match lease.load(tx) {
        Err(fault) if fault.is_misread() => lease.damage = Some(fault.into()),
        other => other?,
    }
    Ok(Some(lease))
}

fn only(tx: &Tx<'_>, claim: &Claim, wanted: ExecutionId) -> Outcome<Vec<[u8; 16]>> {
    let found = tx.conn.first(
        "SELECT execution_mode, agent_name FROM executions WHERE id = ?1 AND due_at <= ?2",
        params![key(wanted), micros(claim.now)],
        |row| Ok((row.get::<_, String>(0)?, row.get::<_, String>(1)?)),
    )?;
    let is_wanted = found.is_some_and(|(mode, agent)| {
        claim.limit > 0
            && claim.modes.iter().any(|m| m.as_str() == mode)
            && claim.without.iter().all(|a| a.as_str() != agent)
    });
    Ok(is_wanted.then(|| key(wanted)).into_iter().collect())
}

/// The due executions of one agent, in one mode and priority.
struct Queue {
    mode: &'static str,
    agent: String,
    taken: usize,
    is_dry: bool,
}

/// High priority first; then in turn between agents; then the longest due.
fn pick(tx: &Tx<'_>, claim: &Claim, turn: &Turn) -> Outcome<Vec<[u8; 16]>> {
    let mut picked = Vec::new();
    for priority in [Priority::High, Priority::Normal, Priority::Low] {
        let room = claim.limit.saturating_sub(picked.len());
        if room == 0 {
            break;
        }
        let last = turn.get();
        let mut queues = Vec::new();
        for mode in &claim.modes {
            queues.extend(due_queues(tx, claim, priority, mode.as_str(), &last, room)?);
        }
        // As a circle that begins behind the agent that was served last.
        queues.sort_by(|a, b| (a.agent <= last, &a.agent).cmp(&(b.agent <= last, &b.agent)));
        queues.truncate(room);
        draw(tx, claim, priority, &mut queues, room, &mut picked)?;
        if let Some(served) = queues.iter().rfind(|queue| queue.taken > 0) {
            turn.set(&served.agent);
        }
    }
    Ok(picked)
}

/// At most `room` agents with due work, in a circle that begins behind `last`. It leaps from agent to agent in the
/// index, so that it costs the same however much work each of them has.
fn due_queues(
    tx: &Tx<'_>,
    claim: &Claim,
    priority: Priority,
    mode: &'static str,
    last: &str,
    room: usize,
) -> Outcome<Vec<Queue>> {
    let (mut queues, mut position, mut has_wrapped) = (Vec::new(), last.to_owned(), false);
    while queues.len() < room {
        let next = tx.conn.first(
            "SELECT agent_name, due_at FROM executions INDEXED BY executions_due
             WHERE due_at IS NOT NULL AND priority = ?1 AND execution_mode = ?2 AND agent_name > ?3
             ORDER BY agent_name, due_at LIMIT 1",
            params![priority as i64, mode, position],
            |row| Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?)),
        )?;
        match next {
            Some((agent, _)) if has_wrapped && agent.as_str() > last => break,
            Some((agent, due_at)) => {
                if due_at <= micros(claim.now) && claim.without.iter().all(|a| a.as_str() != agent)
                {
                    queues.push(Queue {
                        mode,
                        agent: agent.clone(),
                        taken: 0,
                        is_dry: false,
                    });
                }
                position = agent;
            }
            None if has_wrapped => break,
            None => {
                has_wrapped = true;
                position.clear();
            }
        }
    }
    Ok(queues)
}

/// Takes an equal share from each queue; what some leave over is shared again.
fn draw(
    tx: &Tx<'_>,
    claim: &Claim,
    priority: Priority,
    queues: &mut [Queue],
    mut room: usize,
    picked: &mut Vec<[u8; 16]>,
) -> Outcome<()> {
    loop {
        let open = queues.iter().filter(|queue| !queue.is_dry).count();
        if open == 0 || room == 0 {
            return Ok(());
        }
        let share = room.div_ceil(open);
        for queue in queues.iter_mut().filter(|queue| !queue.is_dry) {
            let wanted = share.min(room);
            let found: Vec<[u8; 16]> = tx.conn.all(
                "SELECT id FROM executions INDEXED BY executions_due
                 WHERE priority = ?1 AND execution_mode = ?2 AND agent_name = ?3 AND due_at <= ?4
                 ORDER BY due_at LIMIT ?5 OFFSET ?6",
                params![
                    priority as i64,
                    queue.mode,
                    queue.agent,
                    micros(claim.now),
                    limit(wanted),
                    limit(queue.taken)
                ],
                |row| row.get(0),
            )?;
            queue.is_dry = found.len() < wanted;
            queue.taken += found.len();
            room -= found.len();
            picked.extend(found);
        }
    }
}

fn renew(tx: &Tx<'_>, renewal: &Renewal) -> Outcome<Vec<Signal>> {
    let mut signals = Vec::new();
    for (id, epoch) in &renewal.leases {
        let wakes = tx.conn.first(
            "UPDATE executions SET due_at = ?4, heartbeat_at = ?5
             WHERE id = ?1 AND epoch = ?2 AND worker = ?3
             RETURNING wakes, wakes_claimed",
            params![
                key(*id),
                epoch.get(),
                renewal.worker.as_str(),
                micros(renewal.until),
                micros(renewal.now)
            ],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
        )?;
        match wakes {
            None => signals.push(Signal::Lost(*id)),
            Some((wakes, seen)) if wakes > seen => signals.push(Signal::Woken {
                id: *id,
                wakes: counted(wakes),
            }),
            Some(_) => {}
        }
    }
    Ok(signals)
}
