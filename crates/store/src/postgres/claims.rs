//! Leases: who may write an execution's journal, and until when.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use domain::{Epoch, ExecutionId, Failure, FailureCode, Priority, Time, WorkerId};
use uuid::Uuid;

use super::Postgres;
use super::connection::Conn;
use super::fault::{Outcome, corrupt};
use super::finish::UnownedEnding;
use super::gather::{Done, Kind};
use super::journal::{self, RawStep};
use super::sql::{decode, get, key, limit, small, smalled, touch};
use super::wake::{self, RawWaiting};
use crate::{Certainty, Claim, Claimed, Error, Renewal, Result, Signal};

const LEASE: &str = include_str!("sql/lease.sql");
const DUE_AGENTS: &str = include_str!("sql/due_agents.sql");
const DRAW: &str = include_str!("sql/draw.sql");

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

/// Claims of one execution each, as the hints of the bus name them, gathered.
pub(super) struct Hints;

/// Who wants one execution.
pub(super) struct Hint {
    id: Uuid,
    terms: Terms,
}

/// On which terms a claim takes leases.
#[derive(Clone)]
struct Terms {
    worker: String,
    now: Time,
    until: Time,
    modes: String,
    without: String,
}

impl Terms {
    fn new(claim: &Claim) -> Self {
        let modes: Vec<&str> = claim.modes.iter().map(|mode| mode.as_str()).collect();
        let without: Vec<&str> = claim.without.iter().map(|agent| agent.as_str()).collect();
        Self {
            worker: claim.worker.as_str().to_owned(),
            now: claim.now,
            until: claim.now + claim.lease,
            modes: modes.join(","),
            without: without.join(","),
        }
    }
}

/// A leased execution as its row tells it.
#[derive(Debug)]
pub(super) struct Lease {
    id: Uuid,
    epoch: u32,
    crashes: u32,
    steps: u32,
    spec: Option<String>,
    waiting: RawWaiting,
    waits_turn: bool,
}

impl Kind for Hints {
    type Request = Hint;
    type Answer = Option<Lease>;

    fn touches(request: &Hint) -> Vec<u64> {
        vec![touch(request.id)]
    }

    async fn perform(&self, conn: &mut Conn, batch: &[Hint]) -> Outcome<Done<Option<Lease>>> {
        let wanted: Vec<(Uuid, &Terms)> = batch.iter().map(|hint| (hint.id, &hint.terms)).collect();
        let mut leases = lease(conn, &wanted).await?;
        let answers = batch.iter().map(|hint| Ok(leases.remove(&hint.id)));
        Ok(Done {
            answers: answers.collect(),
            has_events: false,
            has_work: false,
        })
    }
}

impl Postgres {
    pub(super) async fn take(&self, claim: Claim) -> Result<Vec<Claimed>> {
        if claim.limit == 0 || claim.modes.is_empty() {
            return Ok(Vec::new());
        }
        let terms = Terms::new(&claim);
        let leases = match claim.only {
            Some(id) => {
                let hint = Hint { id: key(id), terms };
                self.hints.perform(hint).await?.into_iter().collect()
            }
            None => self.lease_due(&claim, &terms).await?,
        };
        let claimed = self.read_leases(leases, claim.now).await;
        // The leases are taken, whether they could be read or not.
        Ok(claimed.map_err(|fault| fault.with(Certainty::Unknown))?)
    }

    /// High priority first; then in turn between agents; then the longest due.
    async fn lease_due(&self, claim: &Claim, terms: &Terms) -> Result<Vec<Lease>> {
        let mut conn = self.often.get().await?;
        let mut agents = due_agents(&mut conn, claim).await?;
        if agents.is_empty() {
            return Ok(Vec::new());
        }
        conn.begin();
        let mut picked = Vec::new();
        for priority in [Priority::High, Priority::Normal, Priority::Low] {
            let room = claim.limit.saturating_sub(picked.len());
            if room == 0 {
                break;
            }
            let Some(mut queues) = agents.remove(&(priority as i16)) else {
                continue;
            };
            // As a circle that begins behind the agent that was served last.
            let last = self.turn.get();
            queues.sort_by(|a, b| (a.agent <= last, &a.agent).cmp(&(b.agent <= last, &b.agent)));
            queues.truncate(room);
            draw(
                &mut conn,
                claim.now,
                priority,
                &mut queues,
                room,
                &mut picked,
            )
            .await?;
            if let Some(served) = queues.iter().rfind(|queue| queue.taken > 0) {
                self.turn.set(&served.agent);
            }
        }
        let wanted: Vec<(Uuid, &Terms)> = picked.iter().map(|id| (*id, terms)).collect();
        let mut leases = lease(&mut conn, &wanted).await?;
        conn.commit().await?;
        Ok(picked.iter().filter_map(|id| leases.remove(id)).collect())
    }

    /// Reads what the leases are about. One that can't be read ends, and holds up no other.
    async fn read_leases(&self, leases: Vec<Lease>, now: Time) -> Outcome<Vec<Claimed>> {
        let mut waiting: HashMap<Uuid, RawWaiting> = HashMap::new();
        let mut journals: HashMap<Uuid, Vec<RawStep>> = HashMap::new();
        // Nobody can have written to one that was never leased before; but it may share the steps of another one.
        let begun: Vec<Uuid> = leases
            .iter()
            .filter(|l| l.epoch > 1 || l.steps > 0)
            .map(|l| l.id)
            .collect();
        if !begun.is_empty() {
            let mut conn = self.pool.get().await?;
            journals = read_journals(&mut conn, &begun).await?;
            waiting = wake::load(&mut conn, &begun).await?;
        }
        let mut claimed = Vec::with_capacity(leases.len());
        for mut lease in leases {
            let (id, epoch) = (lease.id, lease.epoch);
            if let Some(more) = waiting.remove(&id) {
                lease.waiting.add(more);
            }
            match lease.read(journals.remove(&id).unwrap_or_default()) {
                Ok(one) => claimed.push(one),
                Err(error) => self.give_up(id, epoch, &error, now).await,
            }
        }
        Ok(claimed)
    }

    /// Ends an execution that can't be read. When that can't be written either, its lease runs out and the next claim
    /// meets it again.
    async fn give_up(&self, key: Uuid, epoch: u32, error: &Error, now: Time) {
        let id = ExecutionId::from_uuid(key);
        tracing::error!(execution_id = %id, %error, "an execution can't be read and ends");
        let outcome = domain::Outcome::Failed(Failure {
            code: FailureCode::Corrupt,
            message: error.to_string(),
        });
        if let Err(error) = self.end_unread(key, epoch, outcome, now).await {
            let error = Error::from(error);
            tracing::error!(execution_id = %id, %error, "its end can't be written");
        }
    }

    async fn end_unread(
        &self,
        id: Uuid,
        epoch: u32,
        outcome: domain::Outcome,
        now: Time,
    ) -> Outcome<()> {
        let ending = UnownedEnding::new(outcome, self.packing)?;
        let mut conn = self.pool.get().await?;
        conn.begin();
        let owned = conn
            .first(
                "SELECT status FROM executions WHERE id = $1 AND epoch = $2 AND worker IS NOT NULL FOR UPDATE",
                &[&id, &small(epoch)],
            )
            .await?;
        if let Some(row) = owned {
            let was: String = get(&row, 0)?;
            if ending.write(&mut conn, id, &was, now).await? {
                self.signals.work();
            }
        }
        conn.commit().await
    }

    pub(super) async fn news_for(&self, worker: &WorkerId) -> Result<Vec<Signal>> {
        let mut conn = self.pool.get().await?;
        let rows = conn
            .all(
                "SELECT id, wakes FROM executions WHERE worker = $1 AND wakes > wakes_claimed",
                &[&worker.as_str()],
            )
            .await?;
        let signal = |row| {
            Ok(Signal::Woken {
                id: ExecutionId::from_uuid(get(row, 0)?),
                wakes: journal::wakes(row, 1)?,
            })
        };
        Ok(rows.iter().map(signal).collect::<Outcome<_>>()?)
    }

    pub(super) async fn extend(&self, renewal: Renewal) -> Result<Vec<Signal>> {
        if renewal.leases.is_empty() {
            return Ok(Vec::new());
        }
        let mut sorted = renewal.leases.clone();
        sorted.sort();
        sorted.dedup();
        let ids: Vec<Uuid> = sorted.iter().map(|(id, _)| key(*id)).collect();
        let epochs: Vec<i32> = sorted.iter().map(|(_, epoch)| small(epoch.get())).collect();
        let mut conn = self.pool.get().await?;
        let rows = conn
            .all(
                "WITH held AS MATERIALIZED (
                     SELECT e.id FROM executions e JOIN unnest($1::uuid[], $2::int[]) AS r (id, epoch)
                         ON e.id = r.id AND e.epoch = r.epoch
                     WHERE e.id = ANY ($1) AND e.worker = $3
                     ORDER BY e.id FOR UPDATE OF e
                 )
                 UPDATE executions e SET due_at = $4, heartbeat_at = $5 WHERE e.id IN (SELECT id FROM held)
                 RETURNING e.id, e.epoch, e.wakes, e.wakes_claimed",
                &[
                    &ids,
                    &epochs,
                    &renewal.worker.as_str(),
                    &renewal.until,
                    &renewal.now,
                ],
            )
            .await?;
        let mut kept = HashMap::with_capacity(rows.len());
        for row in &rows {
            let (id, epoch) = (get::<Uuid>(row, 0)?, smalled(get(row, 1)?));
            kept.insert(
                (id, epoch),
                (journal::wakes(row, 2)?, journal::wakes(row, 3)?),
            );
        }
        let news = renewal.leases.iter().filter_map(|(id, epoch)| {
            match kept.get(&(key(*id), epoch.get())) {
                None => Some(Signal::Lost(*id)),
                Some((wakes, seen)) if wakes > seen => Some(Signal::Woken {
                    id: *id,
                    wakes: *wakes,
                }),
                Some(_) => None,
            }
        });
        Ok(news.collect())
    }
}

impl Lease {
    fn read(self, journal: Vec<RawStep>) -> Result<Claimed> {
        let id = ExecutionId::from_uuid(self.id);
        let what = || format!("execution {id}");
        let spec = self
            .spec
            .ok_or_else(|| corrupt(what(), "its task is gone"))?;
        let execution = decode(what, &spec)?;
        let steps: Vec<_> = journal
            .into_iter()
            .map(|step| step.read(id))
            .collect::<Result<_>>()?;
        if !journal::is_whole(&steps, self.steps) {
            let message = format!("{} of its {} steps are there", steps.len(), self.steps);
            return Err(corrupt(format!("the journal of execution {id}"), message));
        }
        Ok(Claimed {
            execution,
            epoch: Epoch::new(self.epoch),
            steps,
            crashes: self.crashes,
            waiting: self.waiting.read()?,
            waits_turn: self.waits_turn,
        })
    }
}

/// Takes the leases of those that are due and that nobody else is taking at this moment.
async fn lease(conn: &mut Conn, wanted: &[(Uuid, &Terms)]) -> Outcome<HashMap<Uuid, Lease>> {
    let mut wanted = wanted.to_vec();
    wanted.sort_by_key(|(id, _)| *id);
    let ids: Vec<Uuid> = wanted.iter().map(|(id, _)| *id).collect();
    let workers: Vec<&str> = wanted.iter().map(|(_, t)| t.worker.as_str()).collect();
    let now: Vec<Time> = wanted.iter().map(|(_, t)| t.now).collect();
    let until: Vec<Time> = wanted.iter().map(|(_, t)| t.until).collect();
    let modes: Vec<&str> = wanted.iter().map(|(_, t)| t.modes.as_str()).collect();
    let without: Vec<&str> = wanted.iter().map(|(_, t)| t.without.as_str()).collect();
    let rows = conn
        .all(LEASE, &[&ids, &workers, &now, &until, &modes, &without])
        .await?;
    let mut leases = HashMap::with_capacity(rows.len());
    for row in &rows {
        let id: Uuid = get(row, 0)?;
        let waiting = RawWaiting::new(journal::wakes(row, 4)?, get(row, 5)?, get(row, 6)?);
        let one = Lease {
            id,
            epoch: smalled(get(row, 1)?),
            crashes: smalled(get(row, 2)?),
            steps: smalled(get(row, 3)?),
            spec: get(row, 7)?,
            waits_turn: get(row, 8)?,
            waiting,
        };
        leases.insert(id, one);
    }
    Ok(leases)
}

async fn read_journals(conn: &mut Conn, ids: &[Uuid]) -> Outcome<HashMap<Uuid, Vec<RawStep>>> {
    let rows = conn
        .all(
            "SELECT execution_id, seq, at, epoch, kind, body FROM steps WHERE execution_id = ANY ($1)
             ORDER BY execution_id, seq",
            &[&ids],
        )
        .await?;
    let mut journals: HashMap<Uuid, Vec<RawStep>> = HashMap::new();
    for row in &rows {
        let step = RawStep::from_row(row, 1)?;
        journals.entry(get(row, 0)?).or_default().push(step);
    }
    Ok(journals)
}

/// The due executions of one agent, in one mode and priority.
struct Queue {
    mode: String,
    agent: String,
    taken: usize,
    is_dry: bool,
}

/// The agents with due work, by priority.
async fn due_agents(conn: &mut Conn, claim: &Claim) -> Outcome<HashMap<i16, Vec<Queue>>> {
    let priorities = [Priority::High, Priority::Normal, Priority::Low].map(|p| p as i16);
    let modes: Vec<&str> = claim.modes.iter().map(|mode| mode.as_str()).collect();
    let without: Vec<&str> = claim.without.iter().map(|agent| agent.as_str()).collect();
    let rows = conn
        .all(
            DUE_AGENTS,
            &[&priorities.as_slice(), &modes, &claim.now, &without],
        )
        .await?;
    let mut agents: HashMap<i16, Vec<Queue>> = HashMap::new();
    for row in &rows {
        let queue = Queue {
            mode: get(row, 1)?,
            agent: get(row, 2)?,
            taken: 0,
            is_dry: false,
        };
        agents.entry(get(row, 0)?).or_default().push(queue);
    }
    Ok(agents)
}

/// Takes an equal share from each queue; what some leave over is shared again. What is taken is locked.
async fn draw(
    conn: &mut Conn,
    now: Time,
    priority: Priority,
    queues: &mut [Queue],
    mut room: usize,
    picked: &mut Vec<Uuid>,
) -> Outcome<()> {
    loop {
        let open = queues.iter().filter(|queue| !queue.is_dry).count();
        if open == 0 || room == 0 {
            return Ok(());
        }
        let share = room.div_ceil(open);
        let mut left = room;
        let shares: Vec<usize> = queues
            .iter()
            .map(|queue| {
                let share = if queue.is_dry { 0 } else { share.min(left) };
                left -= share;
                share
            })
            .collect();
        let modes: Vec<&str> = queues.iter().map(|queue| queue.mode.as_str()).collect();
        let agents: Vec<&str> = queues.iter().map(|queue| queue.agent.as_str()).collect();
        let limits: Vec<i64> = shares.iter().map(|share| limit(*share)).collect();
        let rows = conn
            .all(
                DRAW,
                &[&(priority as i16), &modes, &agents, &limits, &now, picked],
            )
            .await?;
        let mut found = vec![0usize; queues.len()];
        for row in &rows {
            let n = usize::try_from(get::<i64>(row, 0)? - 1).unwrap_or(usize::MAX);
            if let Some(found) = found.get_mut(n) {
                *found += 1;
            }
            picked.push(get(row, 1)?);
        }
        for ((queue, found), share) in queues.iter_mut().zip(found).zip(shares) {
            queue.taken += found;
            // One that was given nothing for lack of room may have more.
            queue.is_dry |= found < share;
            room = room.saturating_sub(found);
        }
    }
}
