//! Does what looks at schedules have come to: many in one transaction, each all or nothing.

use domain::{ExecutionId, Time};
use rusqlite::params;

use super::Sqlite;
use super::fault::Outcome;
use super::sql::{Packing, Sql, count, key, limit, micros, micros_up};
use super::submit::Prepared;
use super::writer::Tx;
use crate::{Fate, Fired, Firing, NewRun, Result, RunKind, Submitted};

impl Sqlite {
    pub(super) async fn act(&self, firings: Vec<Firing>) -> Result<Vec<Fired>> {
        let prepared = firings
            .into_iter()
            .map(|firing| PreparedFiring::new(firing, self.packing))
            .collect::<Result<Vec<_>>>()?;
        self.writer
            .write(move |tx| prepared.iter().map(|firing| firing.write(tx)).collect())
            .await
    }
}

/// A firing as it will be written.
struct PreparedFiring {
    name: String,
    version: i64,
    cursor: i64,
    next_due: Option<i64>,
    runs: Vec<PreparedRun>,
    waited: Vec<PreparedRun>,
    over: Vec<i64>,
    now: i64,
    forget_before: i64,
}

struct PreparedRun {
    at: Time,
    kind: RunKind,
    state: &'static str,
    is_open: bool,
    reason: Option<(&'static str, String)>,
    start: Option<(ExecutionId, Prepared)>,
}

impl PreparedRun {
    fn new(run: NewRun, packing: Packing) -> Result<Self> {
        let state = run.fate.state();
        let (reason, start) = match run.fate {
            Fate::Start(submission) => {
                let id = submission.execution.id;
                (None, Some((id, Prepared::new(*submission, packing)?)))
            }
            Fate::Wait => (None, None),
            Fate::Skip(reason) => (Some((reason.as_str(), reason.sentence())), None),
        };
        Ok(Self {
            at: run.fire_time,
            kind: run.kind,
            state: state.as_str(),
            is_open: reason.is_none(),
            reason,
            start,
        })
    }

    fn execution(&self) -> Option<[u8; 16]> {
        self.start.as_ref().map(|(id, _)| key(*id))
    }

    /// Accepts its execution, now that its row is there.
    fn begin(&self, tx: &mut Tx<'_>, name: &str) -> Outcome<Option<(Time, ExecutionId)>> {
        let Some((wanted, prepared)) = &self.start else {
            return Ok(None);
        };
        let Submitted::Existing(known) = prepared.insert(tx)? else {
            return Ok(Some((self.at, *wanted)));
        };
        // The same happening was acted on before: this row is about that execution, unless another row is.
        let values = params![name, micros(self.at), key(known)];
        let has_row = tx.conn.first(
            "SELECT 1 FROM schedule_runs WHERE schedule_name = ?1 AND execution_id = ?3 AND fire_time <> ?2",
            values,
            |_| Ok(()),
        )?;
        let sql = if has_row.is_some() {
            "DELETE FROM schedule_runs WHERE schedule_name = ?1 AND fire_time = ?2 AND ?3 IS NOT NULL"
        } else {
            "UPDATE schedule_runs SET execution_id = ?3 WHERE schedule_name = ?1 AND fire_time = ?2"
        };
        tx.conn.run(sql, values)?;
        Ok(Some((self.at, known)))
    }
}

impl PreparedFiring {
    fn new(firing: Firing, packing: Packing) -> Result<Self> {
        let prepare = |runs: Vec<NewRun>| {
            runs.into_iter()
                .map(|run| PreparedRun::new(run, packing))
                .collect::<Result<Vec<_>>>()
        };
        Ok(Self {
            name: firing.name.into(),
            version: count(firing.version),
            cursor: micros(firing.cursor),
            next_due: firing.next_due.map(micros_up),
            runs: prepare(firing.runs)?,
            waited: prepare(firing.waited)?,
            over: firing.over.into_iter().map(micros).collect(),
            now: micros(firing.now),
            forget_before: micros(firing.forget_before),
        })
    }

    fn write(&self, tx: &mut Tx<'_>) -> Outcome<Fired> {
        let is_first = tx.conn.run(
            "UPDATE schedules SET handled_until = ?3, next_due = ?4, version = version + 1
             WHERE name = ?1 AND version = ?2",
            params![self.name, self.version, self.cursor, self.next_due],
        )?;
        if is_first == 0 {
            return Ok(Fired::Raced);
        }
        for over in &self.over {
            tx.conn.run(
                "UPDATE schedule_runs SET is_open = 0 WHERE schedule_name = ?1 AND fire_time = ?2 AND state = 'started'",
                params![self.name, over],
            )?;
        }
        let mut started = Vec::new();
        for run in &self.runs {
            if self.insert(tx, run)? {
                started.extend(run.begin(tx, &self.name)?);
            }
        }
        for run in &self.waited {
            if self.change(tx, run)? {
                started.extend(run.begin(tx, &self.name)?);
            }
        }
        self.forget(tx)?;
        Ok(Fired::Done(started))
    }

    fn insert(&self, tx: &Tx<'_>, run: &PreparedRun) -> Outcome<bool> {
        let (reason, detail) = run
            .reason
            .as_ref()
            .map(|(word, text)| (*word, text))
            .unzip();
        let inserted = tx.conn.run(
            "INSERT INTO schedule_runs (schedule_name, fire_time, kind, state, execution_id, reason, detail, noticed_at,
                 is_open)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9) ON CONFLICT DO NOTHING",
            params![
                self.name,
                micros(run.at),
                run.kind.as_str(),
                run.state,
                run.execution(),
                reason,
                detail,
                self.now,
                run.is_open
            ],
        )?;
        Ok(inserted == 1)
    }

    fn change(&self, tx: &Tx<'_>, run: &PreparedRun) -> Outcome<bool> {
        let (reason, detail) = run
            .reason
            .as_ref()
            .map(|(word, text)| (*word, text))
            .unzip();
        let changed = tx.conn.run(
            "UPDATE schedule_runs SET state = ?3, execution_id = ?4, reason = ?5, detail = ?6, noticed_at = ?7, is_open = ?8
             WHERE schedule_name = ?1 AND fire_time = ?2 AND state = 'waiting'",
            params![
                self.name,
                micros(run.at),
                run.state,
                run.execution(),
                reason,
                detail,
                self.now,
                run.is_open
            ],
        )?;
        Ok(changed == 1)
    }

    /// Each look takes a few old rows away, so that there is never much to clean up.
    fn forget(&self, tx: &Tx<'_>) -> Outcome<()> {
        tx.conn.run(
            "DELETE FROM schedule_runs WHERE schedule_name = ?1 AND fire_time IN (
                 SELECT fire_time FROM schedule_runs
                 WHERE schedule_name = ?1 AND fire_time < ?2 AND NOT is_open ORDER BY fire_time LIMIT ?3)",
            params![self.name, self.forget_before, limit(self.runs.len() + 4)],
        )?;
        Ok(())
    }
}
