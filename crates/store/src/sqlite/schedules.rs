//! Schedules and what became of their fire times.

use std::collections::BTreeMap;

use domain::{Schedule, ScheduleName, Time};
use rusqlite::types::Value;
use rusqlite::{Connection, Row, params, params_from_iter};

use super::Sqlite;
use super::fault::Outcome;
use super::sql::{Sql, count, counted, decode, encode, id, limit, micros, micros_up, parse, time};
use super::writer::Tx;
use crate::{
    DueSchedule, DueSchedules, ManagedBy, OpenRun, Result, ScheduleFilter, ScheduleRecord,
    ScheduleRow, ScheduleRun,
};

const COLUMNS: &str =
    "name, definition, file, is_paused, handled_until, next_due, version, created_at, updated_at";
const RUN_COLUMNS: &str =
    "r.fire_time, r.kind, r.state, r.execution_id, r.reason, r.detail, r.noticed_at, e.status,
    e.status_reason, e.started_at, e.finished_at
    FROM schedule_runs r LEFT JOIN executions e ON e.id = r.execution_id";

impl Sqlite {
    pub(super) async fn keep_schedule(
        &self,
        record: ScheduleRecord,
        seen: Option<u64>,
    ) -> Result<bool> {
        let definition = encode("the schedule", &record.schedule)?;
        let file = match &record.managed_by {
            ManagedBy::Api => None,
            ManagedBy::File(path) => Some(path.clone()),
        };
        let keep = move |tx: &mut Tx<'_>| {
            let schedule = &record.schedule;
            let values = params![
                schedule.name.as_str(),
                schedule.agent.as_str(),
                definition,
                file,
                record.is_paused,
                record.is_active(),
                micros(record.cursor),
                record.next_due.map(micros_up),
                count(seen.unwrap_or(0)) + 1,
                micros(record.created_at),
                micros(record.updated_at),
            ];
            let sql = match seen {
                None => {
                    "INSERT INTO schedules (name, agent_name, definition, file, is_paused, is_active, handled_until,
                         next_due, version, created_at, updated_at)
                     VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) ON CONFLICT DO NOTHING"
                }
                Some(_) => {
                    "UPDATE schedules SET agent_name = ?2, definition = ?3, file = ?4, is_paused = ?5, is_active = ?6,
                         handled_until = ?7, next_due = ?8, version = ?9, created_at = ?10, updated_at = ?11
                     WHERE name = ?1 AND version = ?9 - 1"
                }
            };
            Ok(tx.conn.run(sql, values)? == 1)
        };
        self.writer.write(keep).await
    }

    pub(super) async fn forget_schedule(&self, name: &ScheduleName, seen: u64) -> Result<bool> {
        let name = name.to_string();
        let forget = move |tx: &mut Tx<'_>| {
            let sql = "DELETE FROM schedules WHERE name = ?1 AND version = ?2";
            if tx.conn.run(sql, params![name, count(seen)])? == 0 {
                return Ok(false);
            }
            let sql = "DELETE FROM schedule_runs WHERE schedule_name = ?1";
            tx.conn.run(sql, params![name])?;
            Ok(true)
        };
        self.writer.write(forget).await
    }

    pub(super) async fn one_schedule(&self, name: &ScheduleName) -> Result<Option<ScheduleRow>> {
        let name = name.to_string();
        let read = move |conn: &Connection| {
            let sql = format!("SELECT {COLUMNS} FROM schedules WHERE name = ?1");
            let found = conn.first(&sql, params![name], raw)?;
            found
                .map(|found| Ok((found, latest(conn, &name)?)))
                .transpose()
        };
        let found = self.readers.read(read).await?;
        found.map(|(raw, last)| row(raw, last)).transpose()
    }

    pub(super) async fn list_schedules(
        &self,
        filter: ScheduleFilter,
    ) -> Result<(Vec<ScheduleRow>, u64)> {
        let read = move |conn: &Connection| {
            let tx = conn.unchecked_transaction()?;
            list(&tx, &filter)
        };
        let (rows, total) = self.readers.read(read).await?;
        let mut schedules = Vec::with_capacity(rows.len());
        for (raw, last) in rows {
            // One that can't be read must not hide the others.
            match row(raw, last) {
                Ok(row) => schedules.push(row),
                Err(error) => tracing::warn!(%error, "a schedule is left out of a list"),
            }
        }
        Ok((schedules, total))
    }

    pub(super) async fn schedules_to_look_at(
        &self,
        now: Time,
        ahead: Time,
        most: usize,
    ) -> Result<DueSchedules> {
        let (now, ahead) = (micros(now), micros(ahead));
        let read = move |conn: &Connection| {
            // Schedules and their runs of one moment.
            let tx = conn.unchecked_transaction()?;
            let mut found = Vec::new();
            for raw in to_look_at(&tx, now, ahead, most)? {
                let open = open_runs(&tx, &raw.name)?;
                found.push((raw, open));
            }
            let next: Option<(Option<i64>, bool)> = tx.first(
                "SELECT min(next_due), EXISTS (
                     SELECT 1 FROM schedule_runs w JOIN schedules s ON s.name = w.schedule_name
                     WHERE w.state = 'waiting' AND s.is_active)
                 FROM schedules WHERE next_due > ?1",
                params![now],
                |row| Ok((row.get(0)?, row.get(1)?)),
            )?;
            Ok((found, next.unwrap_or_default()))
        };
        let (found, (next, runs_wait)) = self.readers.read(read).await?;
        let mut due = Vec::with_capacity(found.len());
        for (raw, open) in found {
            let open = open.into_iter().map(RawOpen::read).collect::<Result<_>>();
            match raw.read().and_then(|record| {
                Ok(DueSchedule {
                    record,
                    open: open?,
                })
            }) {
                Ok(schedule) => due.push(schedule),
                Err(error) => tracing::error!(%error, "a schedule does not run"),
            }
        }
        let next_due = next.map(time).transpose()?;
        Ok(DueSchedules {
            due,
            next_due,
            runs_wait,
        })
    }

    pub(super) async fn list_runs(
        &self,
        name: &ScheduleName,
        before: Option<Time>,
        most: usize,
    ) -> Result<(Vec<ScheduleRun>, u64)> {
        let name = name.to_string();
        let before = before.map_or(i64::MAX, micros);
        let read = move |conn: &Connection| {
            let tx = conn.unchecked_transaction()?;
            let sql = format!(
                "SELECT {RUN_COLUMNS} WHERE r.schedule_name = ?1 AND r.fire_time < ?2
                 ORDER BY r.fire_time DESC LIMIT ?3"
            );
            let runs = tx.all(&sql, params![name, before, limit(most)], raw_run)?;
            let total: Option<i64> = tx.first(
                "SELECT count(*) FROM schedule_runs WHERE schedule_name = ?1",
                params![name],
                |row| row.get(0),
            )?;
            Ok((runs, counted(total.unwrap_or(0))))
        };
        let (runs, total) = self.readers.read(read).await?;
        Ok((
            runs.into_iter().map(RawRun::read).collect::<Result<_>>()?,
            total,
        ))
    }
}

/// A schedule as its row tells it.
struct Raw {
    name: String,
    definition: String,
    file: Option<String>,
    is_paused: bool,
    handled_until: i64,
    next_due: Option<i64>,
    version: i64,
    created_at: i64,
    updated_at: i64,
}

fn raw(row: &Row<'_>) -> rusqlite::Result<Raw> {
    Ok(Raw {
        name: row.get(0)?,
        definition: row.get(1)?,
        file: row.get(2)?,
        is_paused: row.get(3)?,
        handled_until: row.get(4)?,
        next_due: row.get(5)?,
        version: row.get(6)?,
        created_at: row.get(7)?,
        updated_at: row.get(8)?,
    })
}

impl Raw {
    fn read(self) -> Result<ScheduleRecord> {
        let schedule: Schedule = decode(|| format!("schedule {}", self.name), &self.definition)?;
        Ok(ScheduleRecord {
            schedule,
            managed_by: self.file.map_or(ManagedBy::Api, ManagedBy::File),
            is_paused: self.is_paused,
            cursor: time(self.handled_until)?,
            next_due: self.next_due.map(time).transpose()?,
            version: counted(self.version),
            created_at: time(self.created_at)?,
            updated_at: time(self.updated_at)?,
        })
    }
}

fn row(raw: Raw, last: Option<RawRun>) -> Result<ScheduleRow> {
    Ok(ScheduleRow {
        record: raw.read()?,
        last_run: last.map(RawRun::read).transpose()?,
    })
}

type Rows = Vec<(Raw, Option<RawRun>)>;

fn list(conn: &Connection, filter: &ScheduleFilter) -> Outcome<(Rows, u64)> {
    let mut sql = String::from(" FROM schedules WHERE true");
    let mut values: Vec<Value> = Vec::new();
    if let Some(agent) = &filter.agent {
        sql.push_str(" AND agent_name = ?");
        values.push(Value::from(agent.as_str().to_owned()));
    }
    if let Some(is_active) = filter.is_active {
        sql.push_str(" AND is_active = ?");
        values.push(Value::from(is_active));
    }
    if let Some(is_of_file) = filter.is_of_file {
        sql.push_str(" AND (file IS NOT NULL) = ?");
        values.push(Value::from(is_of_file));
    }
    let total: Option<i64> = conn.first(
        &format!("SELECT count(*){sql}"),
        params_from_iter(values.clone()),
        |row| row.get(0),
    )?;
    if let Some(after) = &filter.after {
        sql.push_str(" AND name > ?");
        values.push(Value::from(after.as_str().to_owned()));
    }
    values.push(Value::from(limit(filter.limit)));
    let sql = format!("SELECT {COLUMNS}{sql} ORDER BY name LIMIT ?");
    let mut rows = Vec::new();
    for raw in conn.all(&sql, params_from_iter(values), raw)? {
        let last = latest(conn, &raw.name)?;
        rows.push((raw, last));
    }
    Ok((rows, counted(total.unwrap_or(0))))
}

fn latest(conn: &Connection, name: &str) -> Outcome<Option<RawRun>> {
    let sql = format!(
        "SELECT {RUN_COLUMNS} WHERE r.schedule_name = ?1 ORDER BY r.fire_time DESC LIMIT 1"
    );
    conn.first(&sql, params![name], raw_run)
}

/// Due ones, those ahead of the clock, and those whose first waiting run has nothing before it.
fn to_look_at(conn: &Connection, now: i64, ahead: i64, most: usize) -> Outcome<Vec<Raw>> {
    let mut found: Vec<Raw> = conn.all(
        &format!("SELECT {COLUMNS} FROM schedules WHERE next_due <= ?1 ORDER BY next_due LIMIT ?2"),
        params![now, limit(most)],
        raw,
    )?;
    let mut others: BTreeMap<String, Raw> = BTreeMap::new();
    let sql = format!(
        "SELECT {COLUMNS} FROM schedules WHERE next_due IS NOT NULL AND handled_until > ?1 LIMIT ?2"
    );
    let ahead: Vec<Raw> = conn.all(&sql, params![ahead, limit(most)], raw)?;
    let sql = format!(
        "SELECT {COLUMNS} FROM schedules
         WHERE is_active AND name IN (SELECT DISTINCT schedule_name FROM schedule_runs WHERE state = 'waiting')
             AND NOT EXISTS (
                 SELECT 1 FROM schedule_runs r INDEXED BY schedule_runs_open JOIN executions e ON e.id = r.execution_id
                 WHERE r.schedule_name = schedules.name AND r.is_open AND r.state = 'started' AND e.finished_at IS NULL)
         LIMIT ?1"
    );
    let waiting: Vec<Raw> = conn.all(&sql, params![limit(most)], raw)?;
    others.extend(
        ahead
            .into_iter()
            .chain(waiting)
            .map(|raw| (raw.name.clone(), raw)),
    );
    for raw in &found {
        others.remove(&raw.name);
    }
    found.extend(others.into_values());
    Ok(found)
}

struct RawOpen {
    fire_time: i64,
    execution: Option<[u8; 16]>,
    is_over: bool,
}

impl RawOpen {
    fn read(self) -> Result<OpenRun> {
        Ok(OpenRun {
            fire_time: time(self.fire_time)?,
            execution: self.execution.map(id),
            is_over: self.is_over,
        })
    }
}

fn open_runs(conn: &Connection, name: &str) -> Outcome<Vec<RawOpen>> {
    // An execution that was deleted is over. The index is named: a list of runs may be long, and few of them are open.
    conn.all(
        "SELECT r.fire_time, r.execution_id,
             r.execution_id IS NOT NULL AND (e.id IS NULL OR e.finished_at IS NOT NULL)
         FROM schedule_runs r INDEXED BY schedule_runs_open LEFT JOIN executions e ON e.id = r.execution_id
         WHERE r.schedule_name = ?1 AND r.is_open ORDER BY r.fire_time",
        params![name],
        |row| {
            Ok(RawOpen {
                fire_time: row.get(0)?,
                execution: row.get(1)?,
                is_over: row.get(2)?,
            })
        },
    )
}

/// A run as its row tells it.
struct RawRun {
    fire_time: i64,
    kind: String,
    state: String,
    execution: Option<[u8; 16]>,
    reason: Option<String>,
    detail: Option<String>,
    noticed_at: i64,
    status: Option<String>,
    status_reason: Option<String>,
    started_at: Option<i64>,
    finished_at: Option<i64>,
}

fn raw_run(row: &Row<'_>) -> rusqlite::Result<RawRun> {
    Ok(RawRun {
        fire_time: row.get(0)?,
        kind: row.get(1)?,
        state: row.get(2)?,
        execution: row.get(3)?,
        reason: row.get(4)?,
        detail: row.get(5)?,
        noticed_at: row.get(6)?,
        status: row.get(7)?,
        status_reason: row.get(8)?,
        started_at: row.get(9)?,
        finished_at: row.get(10)?,
    })
}

impl RawRun {
    fn read(self) -> Result<ScheduleRun> {
        let what = "a row of schedule_runs";
        Ok(ScheduleRun {
            fire_time: time(self.fire_time)?,
            kind: parse(what, &self.kind)?,
            state: parse(what, &self.state)?,
            execution: self.execution.map(id),
            reason: self.reason,
            detail: self.detail,
            noticed_at: time(self.noticed_at)?,
            status: self.status.map(|word| parse(what, &word)).transpose()?,
            status_reason: self.status_reason,
            started_at: self.started_at.map(time).transpose()?,
            finished_at: self.finished_at.map(time).transpose()?,
        })
    }
}
