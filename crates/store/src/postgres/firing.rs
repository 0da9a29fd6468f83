//! Does what looks at schedules have come to: many in one transaction, each all or nothing.

use std::collections::{HashMap, HashSet};

use domain::{ExecutionId, Time};
use uuid::Uuid;

use super::Postgres;
use super::connection::Conn;
use super::fault::{Outcome, internal};
use super::sql::{Packing, count, get, key, limit, text, up};
use super::submit::{self, Prepared};
use crate::{Fate, Fired, Firing, NewRun, Result, Submitted};

/// A run as it will be written.
struct Run {
    /// The position of its firing.
    firing: usize,
    at: Time,
    kind: &'static str,
    state: &'static str,
    reason: Option<&'static str>,
    detail: Option<String>,
    start: Option<(ExecutionId, Prepared)>,
}

impl Run {
    fn new(firing: usize, run: NewRun, packing: Packing) -> Result<Self> {
        let state = run.fate.state().as_str();
        let (reason, start) = match run.fate {
            Fate::Start(submission) => {
                let id = submission.execution.id;
                (None, Some((id, Prepared::new(*submission, packing)?)))
            }
            Fate::Wait => (None, None),
            Fate::Skip(reason) => (Some(reason), None),
        };
        Ok(Self {
            firing,
            at: run.fire_time,
            kind: run.kind.as_str(),
            state,
            detail: reason
                .as_ref()
                .map(|reason| text(&reason.sentence()).into_owned()),
            reason: reason.map(|reason| reason.as_str()),
            start,
        })
    }
}

/// What is to be written.
struct Batch {
    firings: Vec<Firing>,
    runs: Vec<Run>,
    waited: Vec<Run>,
}

impl Batch {
    fn new(mut firings: Vec<Firing>, packing: Packing) -> Result<Self> {
        let (mut runs, mut waited) = (Vec::new(), Vec::new());
        for (index, firing) in firings.iter_mut().enumerate() {
            for run in std::mem::take(&mut firing.runs) {
                runs.push(Run::new(index, run, packing)?);
            }
            for run in std::mem::take(&mut firing.waited) {
                waited.push(Run::new(index, run, packing)?);
            }
        }
        Ok(Self {
            firings,
            runs,
            waited,
        })
    }

    fn name(&self, firing: usize) -> &str {
        self.firings
            .get(firing)
            .map_or("", |firing| firing.name.as_str())
    }
}

impl Postgres {
    pub(super) async fn act(&self, firings: Vec<Firing>) -> Result<Vec<Fired>> {
        if firings.is_empty() {
            return Ok(Vec::new());
        }
        let batch = Batch::new(firings, self.packing)?;
        let mut conn = self.pool.get().await?;
        conn.begin();
        let held = hold(&mut conn, &batch).await?;
        if held.is_empty() {
            conn.roll_back().await?;
            return Ok(vec![Fired::Raced; batch.firings.len()]);
        }
        close(&mut conn, &batch, &held).await?;
        let mut written = insert(&mut conn, &batch, &held).await?;
        written.extend(change(&mut conn, &batch, &held).await?);
        let started = start(&mut conn, &batch, written).await?;
        forget(&mut conn, &batch, &held).await?;
        conn.commit().await?;
        if !started.is_empty() {
            self.signals.work();
            self.signals.outbox.notify_one();
        }
        let mut answers: Vec<Fired> = (0..batch.firings.len())
            .map(|index| {
                if held.contains(&index) {
                    Fired::Done(Vec::new())
                } else {
                    Fired::Raced
                }
            })
            .collect();
        for (firing, at, id) in started {
            if let Some(Fired::Done(runs)) = answers.get_mut(firing) {
                runs.push((at, id));
            }
        }
        Ok(answers)
    }
}

/// Takes the schedules that are as they were seen and that nobody else is at; answers the positions of their firings.
/// Each is looked up by itself and changed where it was found: a plan for many would search through all schedules.
async fn hold(conn: &mut Conn, batch: &Batch) -> Outcome<HashSet<usize>> {
    let each = || batch.firings.iter();
    let names: Vec<&str> = each().map(|f| f.name.as_str()).collect();
    let versions: Vec<i64> = each().map(|f| count(f.version)).collect();
    let cursors: Vec<Time> = each().map(|f| f.cursor).collect();
    let next: Vec<Option<Time>> = each().map(|f| f.next_due.map(up)).collect();
    let rows = conn
        .all(
            "WITH held AS MATERIALIZED (
                 SELECT s.place, r.*
                 FROM unnest($1::text[], $2::bigint[], $3::timestamptz[], $4::timestamptz[])
                         AS r (name, version, handled_until, next_due)
                     CROSS JOIN LATERAL (
                         SELECT ctid AS place FROM schedules WHERE name = r.name AND version = r.version
                         FOR UPDATE SKIP LOCKED) s
             )
             UPDATE schedules s
             SET handled_until = held.handled_until, next_due = held.next_due, version = s.version + 1
             FROM held
             WHERE s.ctid = ANY (ARRAY(SELECT place FROM held)) AND s.ctid = held.place
             RETURNING s.name",
            &[&names, &versions, &cursors, &next],
        )
        .await?;
    let positions: HashMap<&str, usize> = names
        .iter()
        .enumerate()
        .map(|(index, name)| (*name, index))
        .collect();
    let mut held = HashSet::with_capacity(rows.len());
    for row in &rows {
        let name: String = get(row, 0)?;
        held.extend(positions.get(name.as_str()));
    }
    Ok(held)
}

/// Notes which runs are over.
async fn close(conn: &mut Conn, batch: &Batch, held: &HashSet<usize>) -> Outcome<()> {
    let (mut names, mut times): (Vec<&str>, Vec<Time>) = (Vec::new(), Vec::new());
    for (_, firing) in batch
        .firings
        .iter()
        .enumerate()
        .filter(|(index, _)| held.contains(index))
    {
        names.extend(firing.over.iter().map(|_| firing.name.as_str()));
        times.extend(&firing.over);
    }
    if names.is_empty() {
        return Ok(());
    }
    conn.run(
        "UPDATE schedule_runs r SET is_open = false
         FROM unnest($1::text[], $2::timestamptz[]) AS o (name, fire_time)
         WHERE r.schedule_name = o.name AND r.fire_time = o.fire_time AND r.state = 'started'",
        &[&names, &times],
    )
    .await?;
    Ok(())
}

/// The columns of runs, one list each.
struct Columns<'a> {
    names: Vec<&'a str>,
    times: Vec<Time>,
    kinds: Vec<&'a str>,
    states: Vec<&'a str>,
    executions: Vec<Option<Uuid>>,
    reasons: Vec<Option<&'a str>>,
    details: Vec<Option<&'a str>>,
    noticed: Vec<Time>,
}

impl<'a> Columns<'a> {
    fn new(batch: &'a Batch, runs: &[&'a Run]) -> Self {
        let noticed = |run: &&Run| {
            let firing = batch.firings.get(run.firing);
            firing.map_or(run.at, |firing| firing.now)
        };
        Self {
            names: runs.iter().map(|run| batch.name(run.firing)).collect(),
            times: runs.iter().map(|run| run.at).collect(),
            kinds: runs.iter().map(|run| run.kind).collect(),
            states: runs.iter().map(|run| run.state).collect(),
            executions: runs
                .iter()
                .map(|run| run.start.as_ref().map(|(id, _)| key(*id)))
                .collect(),
            reasons: runs.iter().map(|run| run.reason).collect(),
            details: runs.iter().map(|run| run.detail.as_deref()).collect(),
            noticed: runs.iter().map(noticed).collect(),
        }
    }
}

/// Writes new rows; answers the runs whose row was not there.
async fn insert<'a>(
    conn: &mut Conn,
    batch: &'a Batch,
    held: &HashSet<usize>,
) -> Outcome<Vec<&'a Run>> {
    let runs: Vec<&Run> = batch
        .runs
        .iter()
        .filter(|run| held.contains(&run.firing))
        .collect();
    if runs.is_empty() {
        return Ok(runs);
    }
    let c = Columns::new(batch, &runs);
    let rows = conn
        .all(
            "INSERT INTO schedule_runs (schedule_name, fire_time, kind, state, execution_id, reason, detail, noticed_at,
                 is_open)
             SELECT name, fire_time, kind, state, execution_id, reason, detail, noticed_at, state <> 'skipped'
             FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::text[], $5::uuid[], $6::text[], $7::text[],
                     $8::timestamptz[])
                 AS r (name, fire_time, kind, state, execution_id, reason, detail, noticed_at)
             ORDER BY name, fire_time
             ON CONFLICT (schedule_name, fire_time) DO NOTHING
             RETURNING schedule_name, fire_time",
            &[&c.names, &c.times, &c.kinds, &c.states, &c.executions, &c.reasons, &c.details, &c.noticed],
        )
        .await?;
    among(batch, runs, &rows)
}

/// Changes the rows of runs that were waiting; answers those that were.
async fn change<'a>(
    conn: &mut Conn,
    batch: &'a Batch,
    held: &HashSet<usize>,
) -> Outcome<Vec<&'a Run>> {
    let runs: Vec<&Run> = batch
        .waited
        .iter()
        .filter(|run| held.contains(&run.firing))
        .collect();
    if runs.is_empty() {
        return Ok(runs);
    }
    let c = Columns::new(batch, &runs);
    let rows = conn
        .all(
            "UPDATE schedule_runs r
             SET state = n.state, execution_id = n.execution_id, reason = n.reason, detail = n.detail,
                 noticed_at = n.noticed_at, is_open = n.state <> 'skipped'
             FROM unnest($1::text[], $2::timestamptz[], $3::text[], $4::uuid[], $5::text[], $6::text[],
                     $7::timestamptz[])
                 AS n (name, fire_time, state, execution_id, reason, detail, noticed_at)
             WHERE r.schedule_name = n.name AND r.fire_time = n.fire_time AND r.state = 'waiting'
             RETURNING r.schedule_name, r.fire_time",
            &[&c.names, &c.times, &c.states, &c.executions, &c.reasons, &c.details, &c.noticed],
        )
        .await?;
    among(batch, runs, &rows)
}

fn among<'a>(
    batch: &Batch,
    runs: Vec<&'a Run>,
    rows: &[tokio_postgres::Row],
) -> Outcome<Vec<&'a Run>> {
    let mut known: HashSet<(String, Time)> = HashSet::with_capacity(rows.len());
    for row in rows {
        known.insert((get(row, 0)?, get(row, 1)?));
    }
    let is_known = |run: &&Run| known.contains(&(batch.name(run.firing).to_owned(), run.at));
    Ok(runs.into_iter().filter(is_known).collect())
}

/// Accepts the executions of runs whose rows are there now; answers which they are.
async fn start(
    conn: &mut Conn,
    batch: &Batch,
    written: Vec<&Run>,
) -> Outcome<Vec<(usize, Time, ExecutionId)>> {
    let starting: Vec<(&Run, ExecutionId, &Prepared)> = written
        .into_iter()
        .filter_map(|run| {
            run.start
                .as_ref()
                .map(|(id, prepared)| (run, *id, prepared))
        })
        .collect();
    let prepared: Vec<&Prepared> = starting.iter().map(|(_, _, prepared)| *prepared).collect();
    let new = submit::insert(conn, &prepared).await?;
    let mut started = Vec::with_capacity(starting.len());
    for (run, id, prepared) in starting {
        let id = if new.contains(&key(id)) {
            id
        } else {
            adopt(conn, batch.name(run.firing), run.at, prepared).await?
        };
        started.push((run.firing, run.at, id));
    }
    Ok(started)
}

/// The same happening was acted on before: the row is about that execution, unless another row is.
async fn adopt(conn: &mut Conn, name: &str, at: Time, prepared: &Prepared) -> Outcome<ExecutionId> {
    let known = match submit::known_by_row(conn, prepared).await? {
        Some(Submitted::Existing(known)) => known,
        _ => return Err(internal("an execution was refused by no other").into()),
    };
    conn.run(
        "WITH other AS (
             SELECT 1 FROM schedule_runs WHERE schedule_name = $1 AND execution_id = $3 AND fire_time <> $2
         ), gone AS (
             DELETE FROM schedule_runs WHERE schedule_name = $1 AND fire_time = $2 AND EXISTS (SELECT 1 FROM other)
         )
         UPDATE schedule_runs SET execution_id = $3
         WHERE schedule_name = $1 AND fire_time = $2 AND NOT EXISTS (SELECT 1 FROM other)",
        &[&name, &at, &key(known)],
    )
    .await?;
    Ok(known)
}

/// Each look takes a few old rows away, so that there is never much to clean up.
async fn forget(conn: &mut Conn, batch: &Batch, held: &HashSet<usize>) -> Outcome<()> {
    let mine = || {
        batch
            .firings
            .iter()
            .enumerate()
            .filter(|(index, _)| held.contains(index))
    };
    let names: Vec<&str> = mine().map(|(_, firing)| firing.name.as_str()).collect();
    let before: Vec<Time> = mine().map(|(_, firing)| firing.forget_before).collect();
    let few = limit(batch.runs.len() + 4);
    conn.run(
        "DELETE FROM schedule_runs WHERE (schedule_name, fire_time) IN (
             SELECT o.schedule_name, o.fire_time
             FROM unnest($1::text[], $2::timestamptz[]) AS f (name, before) CROSS JOIN LATERAL (
                 SELECT schedule_name, fire_time FROM schedule_runs
                 WHERE schedule_name = f.name AND fire_time < f.before AND NOT is_open
                 ORDER BY fire_time LIMIT $3) o)",
        &[&names, &before, &few],
    )
    .await?;
    Ok(())
}
