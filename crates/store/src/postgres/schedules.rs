//! Schedules and what became of their fire times, for reading; [`super::firing`] writes what became of them.

use std::collections::{BTreeMap, HashMap};

use domain::{ExecutionId, ScheduleName, Time};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::Postgres;
use super::connection::Conn;
use super::fault::Outcome;
use super::sql::{count, counted, decode, encode, get, limit, parse, text, up};
use crate::{
    DueSchedule, DueSchedules, ManagedBy, OpenRun, Result, ScheduleFilter, ScheduleRecord,
    ScheduleRow, ScheduleRun,
};

/// The columns that [`record`] reads.
macro_rules! select {
    ($rest:literal) => {
        concat!(
            "SELECT s.name, s.definition, s.file, s.is_paused, s.handled_until, s.next_due, s.version, s.created_at,
                 s.updated_at
             FROM schedules s ",
            $rest
        )
    };
}

/// The columns that [`run`] reads.
macro_rules! select_runs {
    ($rest:literal) => {
        concat!(
            "SELECT r.fire_time, r.kind, r.state, r.execution_id, r.reason, r.detail, r.noticed_at, e.status,
                 e.status_reason, e.started_at, e.finished_at, r.schedule_name
             FROM schedule_runs r LEFT JOIN executions e ON e.id = r.execution_id ",
            $rest
        )
    };
}

impl Postgres {
    pub(super) async fn keep_schedule(
        &self,
        record: ScheduleRecord,
        seen: Option<u64>,
    ) -> Result<bool> {
        let definition = encode("the schedule", &record.schedule)?;
        let file = match &record.managed_by {
            ManagedBy::Api => None,
            ManagedBy::File(path) => Some(text(path).into_owned()),
        };
        let version = count(seen.unwrap_or(0)) + 1;
        let next_due = record.next_due.map(up);
        let sql = match seen {
            None => {
                "INSERT INTO schedules (name, agent_name, definition, file, is_paused, is_active, handled_until, next_due,
                     version, created_at, updated_at)
                 VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT (name) DO NOTHING RETURNING name"
            }
            Some(_) => {
                "UPDATE schedules SET agent_name = $2, definition = $3, file = $4, is_paused = $5, is_active = $6,
                     handled_until = $7, next_due = $8, version = $9, created_at = $10, updated_at = $11
                 WHERE name = $1 AND version = $9::bigint - 1 RETURNING name"
            }
        };
        let mut conn = self.pool.get().await?;
        let kept = conn
            .run(
                sql,
                &[
                    &record.schedule.name.as_str(),
                    &record.schedule.agent.as_str(),
                    &definition,
                    &file,
                    &record.is_paused,
                    &record.is_active(),
                    &record.cursor,
                    &next_due,
                    &version,
                    &record.created_at,
                    &record.updated_at,
                ],
            )
            .await?;
        Ok(kept)
    }

    pub(super) async fn forget_schedule(&self, name: &ScheduleName, seen: u64) -> Result<bool> {
        let mut conn = self.pool.get().await?;
        let gone = conn
            .run(
                "WITH gone AS (DELETE FROM schedules WHERE name = $1 AND version = $2 RETURNING name),
                     runs AS (DELETE FROM schedule_runs WHERE schedule_name IN (SELECT name FROM gone))
                 SELECT name FROM gone",
                &[&name.as_str(), &count(seen)],
            )
            .await?;
        Ok(gone)
    }

    pub(super) async fn one_schedule(&self, name: &ScheduleName) -> Result<Option<ScheduleRow>> {
        let mut conn = self.pool.get().await?;
        let found = conn
            .first(select!("WHERE s.name = $1"), &[&name.as_str()])
            .await?;
        let Some(found) = found else { return Ok(None) };
        let last_run = latest(&mut conn, &[name.as_str()])
            .await?
            .into_values()
            .next();
        Ok(Some(ScheduleRow {
            record: record(&found)?,
            last_run,
        }))
    }

    pub(super) async fn list_schedules(
        &self,
        filter: ScheduleFilter,
    ) -> Result<(Vec<ScheduleRow>, u64)> {
        let mut conn = self.pool.get().await?;
        let (rows, total) = list(&mut conn, &filter).await?;
        let mut schedules = Vec::with_capacity(rows.len());
        for row in &rows {
            // One that can't be read must not hide the others.
            match record(row) {
                Ok(record) => schedules.push(record),
                Err(error) => tracing::warn!(%error, "a schedule is left out of a list"),
            }
        }
        let names: Vec<&str> = schedules
            .iter()
            .map(|record| record.schedule.name.as_str())
            .collect();
        let mut last = latest(&mut conn, &names).await?;
        let with_last = |record: ScheduleRecord| ScheduleRow {
            last_run: last.remove(record.schedule.name.as_str()),
            record,
        };
        Ok((schedules.into_iter().map(with_last).collect(), total))
    }

    pub(super) async fn schedules_to_look_at(
        &self,
        now: Time,
        ahead: Time,
        most: usize,
    ) -> Result<DueSchedules> {
        let mut conn = self.pool.get().await?;
        let mut found = conn
            .all(
                select!("WHERE s.next_due <= $1 ORDER BY s.next_due LIMIT $2"),
                &[&now, &limit(most)],
            )
            .await?;
        let others = conn
            .all(
                select!(
                    "WHERE s.name IN (
                         SELECT a.name FROM schedules a WHERE a.next_due IS NOT NULL AND a.handled_until > $1
                         UNION
                         SELECT w.schedule_name FROM schedule_runs w WHERE w.state = 'waiting')
                     AND (s.handled_until > $1 OR (s.is_active AND NOT EXISTS (
                         SELECT 1 FROM schedule_runs r JOIN executions e ON e.id = r.execution_id
                         WHERE r.schedule_name = s.name AND r.is_open AND r.state = 'started'
                             AND e.finished_at IS NULL)))
                     LIMIT $2"
                ),
                &[&ahead, &limit(most)],
            )
            .await?;
        found.extend(others);
        let mut due: BTreeMap<String, (usize, ScheduleRecord)> = BTreeMap::new();
        for (index, row) in found.iter().enumerate() {
            match record(row) {
                Ok(record) => {
                    let name = record.schedule.name.to_string();
                    due.entry(name).or_insert((index, record));
                }
                Err(error) => tracing::error!(%error, "a schedule does not run"),
            }
        }
        let names: Vec<&str> = due.keys().map(String::as_str).collect();
        let mut open = open_runs(&mut conn, &names).await?;
        let next = conn
            .first(
                "SELECT min(next_due), EXISTS (
                     SELECT 1 FROM schedule_runs w JOIN schedules s ON s.name = w.schedule_name
                     WHERE w.state = 'waiting' AND s.is_active)
                 FROM schedules WHERE next_due > $1",
                &[&now],
            )
            .await?;
        let (next_due, runs_wait) = match next {
            None => (None, false),
            Some(row) => (get(&row, 0)?, get(&row, 1)?),
        };
        let mut due: Vec<_> = due.into_values().collect();
        due.sort_by_key(|(index, _)| *index);
        let with_runs = |(_, record): (usize, ScheduleRecord)| DueSchedule {
            open: open
                .remove(record.schedule.name.as_str())
                .unwrap_or_default(),
            record,
        };
        Ok(DueSchedules {
            due: due.into_iter().map(with_runs).collect(),
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
        let mut conn = self.pool.get().await?;
        let rows = conn
            .all(
                select_runs!(
                    "WHERE r.schedule_name = $1 AND ($2::timestamptz IS NULL OR r.fire_time < $2)
                     ORDER BY r.fire_time DESC LIMIT $3"
                ),
                &[&name.as_str(), &before, &limit(most)],
            )
            .await?;
        let total = conn
            .first(
                "SELECT count(*) FROM schedule_runs WHERE schedule_name = $1",
                &[&name.as_str()],
            )
            .await?;
        let total: i64 = total.map_or(Ok(0), |row| get(&row, 0))?;
        Ok((rows.iter().map(run).collect::<Result<_>>()?, counted(total)))
    }
}

fn record(row: &Row) -> Result<ScheduleRecord> {
    let (name, definition): (String, String) = (get(row, 0)?, get(row, 1)?);
    let file: Option<String> = get(row, 2)?;
    Ok(ScheduleRecord {
        schedule: decode(|| format!("schedule {name}"), &definition)?,
        managed_by: file.map_or(ManagedBy::Api, ManagedBy::File),
        is_paused: get(row, 3)?,
        cursor: get(row, 4)?,
        next_due: get(row, 5)?,
        version: counted(get(row, 6)?),
        created_at: get(row, 7)?,
        updated_at: get(row, 8)?,
    })
}

fn run(row: &Row) -> Result<ScheduleRun> {
    let what = "a row of schedule_runs";
    let (kind, state, status): (String, String, Option<String>) =
        (get(row, 1)?, get(row, 2)?, get(row, 7)?);
    let execution: Option<Uuid> = get(row, 3)?;
    Ok(ScheduleRun {
        fire_time: get(row, 0)?,
        kind: parse(what, &kind)?,
        state: parse(what, &state)?,
        execution: execution.map(ExecutionId::from_uuid),
        reason: get(row, 4)?,
        detail: get(row, 5)?,
        noticed_at: get(row, 6)?,
        status: status.map(|word| parse(what, &word)).transpose()?,
        status_reason: get(row, 8)?,
        started_at: get(row, 9)?,
        finished_at: get(row, 10)?,
    })
}

async fn list(conn: &mut Conn, filter: &ScheduleFilter) -> Outcome<(Vec<Row>, u64)> {
    let agent = filter.agent.as_ref().map(|agent| agent.as_str());
    let after = filter.after.as_ref().map(|name| name.as_str());
    let most = limit(filter.limit);
    let chosen: [&(dyn ToSql + Sync); 3] = [&agent, &filter.is_active, &filter.is_of_file];
    let total = conn
        .first(
            "SELECT count(*) FROM schedules s
             WHERE ($1::text IS NULL OR s.agent_name = $1) AND ($2::boolean IS NULL OR s.is_active = $2)
                 AND ($3::boolean IS NULL OR (s.file IS NOT NULL) = $3)",
            &chosen,
        )
        .await?;
    let [agent, is_active, is_of_file] = chosen;
    let rows = conn
        .all(
            select!(
                "WHERE ($1::text IS NULL OR s.agent_name = $1) AND ($2::boolean IS NULL OR s.is_active = $2)
                     AND ($3::boolean IS NULL OR (s.file IS NOT NULL) = $3) AND ($4::text IS NULL OR s.name > $4 COLLATE \"C\")
                 ORDER BY s.name COLLATE \"C\" LIMIT $5"
            ),
            &[agent, is_active, is_of_file, &after, &most],
        )
        .await?;
    let total: i64 = total.map_or(Ok(0), |row| get(&row, 0))?;
    Ok((rows, counted(total)))
}

/// The run of the latest fire time of each.
async fn latest(conn: &mut Conn, names: &[&str]) -> Result<HashMap<String, ScheduleRun>> {
    if names.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = conn
        .all(
            select_runs!(
                "JOIN unnest($1::text[]) AS n (name) ON r.schedule_name = n.name
                 WHERE r.fire_time = (SELECT max(fire_time) FROM schedule_runs WHERE schedule_name = n.name)"
            ),
            &[&names],
        )
        .await?;
    rows.iter()
        .map(|row| Ok((get::<String>(row, 11)?, run(row)?)))
        .collect()
}

async fn open_runs(conn: &mut Conn, names: &[&str]) -> Outcome<HashMap<String, Vec<OpenRun>>> {
    let mut open: HashMap<String, Vec<OpenRun>> = HashMap::new();
    if names.is_empty() {
        return Ok(open);
    }
    // An execution that was deleted is over.
    let rows = conn
        .all(
            "SELECT r.schedule_name, r.fire_time, r.execution_id,
                 r.execution_id IS NOT NULL AND (e.id IS NULL OR e.finished_at IS NOT NULL)
             FROM schedule_runs r LEFT JOIN executions e ON e.id = r.execution_id
             WHERE r.schedule_name = ANY ($1) AND r.is_open ORDER BY r.schedule_name, r.fire_time",
            &[&names],
        )
        .await?;
    for row in &rows {
        let execution: Option<Uuid> = get(row, 2)?;
        open.entry(get(row, 0)?).or_default().push(OpenRun {
            fire_time: get(row, 1)?,
            execution: execution.map(ExecutionId::from_uuid),
            is_over: get(row, 3)?,
        });
    }
    Ok(open)
}
