//! The months' tables: executions and what belongs to each lie together by the time in the execution's id.
//!
//! Made ahead, so that a row never waits for its table; should that fail for months, rows go to `*_other` and nothing
//! stops. An old month in which everything is over is dropped whole.

use chrono::{DateTime, Datelike, Months, NaiveDate, Utc};
use domain::Time;
use uuid::Uuid;

use super::cleanup;
use super::connection::Conn;
use super::fault::Outcome;
use super::schema;
use super::sql::{counted, get};
use crate::Error;

/// The tables, and how full their pages are filled: an execution's row is rewritten with every step, and finds room
/// beside itself.
const TABLES: [(&str, u8); 5] = [
    ("executions", 60),
    ("execution_specs", 100),
    ("steps", 100),
    ("execution_results", 100),
    ("inputs", 80),
];
/// How many months are made ahead.
const AHEAD: u32 = 2;

/// Makes the tables that are missing for this month and the next ones.
pub(super) async fn prepare(conn: &mut Conn) -> Outcome<()> {
    let row = conn.first("SELECT now()", &[]).await?;
    let now: Option<Time> = row.map(|row| get(&row, 0)).transpose()?;
    let first = month_of(now.unwrap_or_default());
    let months: Vec<NaiveDate> = (0..=AHEAD)
        .map(|ahead| first + Months::new(ahead))
        .collect();
    schema::lock(conn).await?;
    for (table, sql) in wanted(&months) {
        if let Err(fault) = conn
            .script(&format!("SAVEPOINT month; {sql}; RELEASE month"))
            .await
        {
            // `*_other` has rows of that month already, or this user may not.
            conn.script("ROLLBACK TO month").await?;
            let error = Error::from(fault);
            tracing::warn!(table, %error, "a month's table can't be made; rows go to {table}_other");
        }
    }
    conn.commit().await
}

/// The statements that make the tables of these months and those for what belongs to none, each with its table.
fn wanted(months: &[NaiveDate]) -> Vec<(&'static str, String)> {
    let others = TABLES
        .iter()
        .map(|(table, fill)| (*table, other(table, *fill)));
    let of_months = months.iter().flat_map(|month| {
        TABLES
            .iter()
            .map(|(table, fill)| (*table, create(table, *fill, *month)))
    });
    others.chain(of_months).collect()
}

/// Makes the tables of this month and the next ones, and of these, within the open transaction: for a database that is
/// empty.
pub(super) async fn make(conn: &mut Conn, months: &[NaiveDate]) -> Outcome<()> {
    let rows = conn.query("SELECT now()", &[]).await?;
    let now: Option<Time> = rows.first().map(|row| get(row, 0)).transpose()?;
    let first = month_of(now.unwrap_or_default());
    let mut all: Vec<NaiveDate> = (0..=AHEAD)
        .map(|ahead| first + Months::new(ahead))
        .collect();
    all.extend(months);
    all.sort_unstable();
    all.dedup();
    for (_, sql) in wanted(&all) {
        conn.script(&sql).await?;
    }
    Ok(())
}

/// The months that have tables, as `YYYY-MM`.
pub(super) async fn months(conn: &mut Conn) -> Outcome<Vec<String>> {
    let months = those_with_tables(conn).await?.into_iter();
    Ok(months.map(cleanup::named).collect())
}

async fn those_with_tables(conn: &mut Conn) -> Outcome<Vec<NaiveDate>> {
    let rows = conn
        .query(
            "SELECT c.relname::text FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
             WHERE i.inhparent = 'executions'::regclass ORDER BY 1",
            &[],
        )
        .await?;
    let names: Vec<String> = rows.iter().map(|row| get(row, 0)).collect::<Outcome<_>>()?;
    Ok(names.iter().filter_map(|name| parse(name)).collect())
}

/// What came of a month.
pub(super) enum Dropped {
    /// It went, with so many executions.
    Whole(u64),
    /// Something in it is not over.
    IsOpen,
}

/// Drops the months that ended before `before`, except where something is not over; answers their names.
pub(super) async fn drop_before(conn: &mut Conn, before: Time) -> Outcome<Vec<String>> {
    let mut dropped = Vec::new();
    for month in self::before(conn, before).await? {
        if let Dropped::Whole(_) = drop_one(conn, month, false).await? {
            dropped.push(cleanup::named(month));
        }
    }
    Ok(dropped)
}

/// The months that have tables and ended before `before`, oldest first.
pub(super) async fn before(conn: &mut Conn, before: Time) -> Outcome<Vec<NaiveDate>> {
    let months = those_with_tables(conn).await?.into_iter();
    Ok(months
        .filter(|month| start(*month + Months::new(1)) <= before)
        .collect())
}

/// Drops a month, or counts what is in it.
pub(super) async fn drop_one(conn: &mut Conn, month: NaiveDate, dry_run: bool) -> Outcome<Dropped> {
    schema::lock(conn).await?;
    let executions = name("executions", month);
    let here = conn
        .query(
            &format!("SELECT to_regclass('{executions}') IS NOT NULL"),
            &[],
        )
        .await?;
    if !here.first().map_or(Ok(false), |row| get(row, 0))? {
        // Another process was first.
        conn.roll_back().await?;
        return Ok(Dropped::Whole(0));
    }
    let open = format!("SELECT 1 FROM {executions} WHERE due_at IS NOT NULL LIMIT 1");
    if !conn.query(&open, &[]).await?.is_empty() {
        conn.roll_back().await?;
        tracing::info!(table = executions, "a month is kept: not all of it is over");
        return Ok(Dropped::IsOpen);
    }
    let count = format!("SELECT count(*) FROM {executions}");
    let rows = conn.query(&count, &[]).await?;
    let all = counted(rows.first().map_or(Ok(0), |row| get(row, 0))?);
    if dry_run {
        conn.roll_back().await?;
        return Ok(Dropped::Whole(all));
    }
    // Whoever wants a table waits behind us while we wait for those who use it: not for long.
    conn.script("SET LOCAL lock_timeout = '2s'").await?;
    conn.script(&format!(
        "INSERT INTO execution_counts AS c (agent_name, status, slot, n)
             SELECT agent_name, status, 0, -count(*) FROM {executions} GROUP BY 1, 2 ORDER BY 1, 2
             ON CONFLICT (agent_name, status, slot) DO UPDATE SET n = c.n + excluded.n"
    ))
    .await?;
    for (table, _) in TABLES {
        conn.script(&format!("DROP TABLE IF EXISTS {}", name(table, month)))
            .await?;
    }
    conn.commit().await?;
    Ok(Dropped::Whole(all))
}

fn month_of(time: Time) -> NaiveDate {
    let day = time.date_naive();
    day.with_day(1).unwrap_or(day)
}

fn start(month: NaiveDate) -> DateTime<Utc> {
    month.and_time(chrono::NaiveTime::MIN).and_utc()
}

pub(super) fn name(table: &str, month: NaiveDate) -> String {
    format!("{table}_y{}", month.format("%Ym%m"))
}

fn parse(name: &str) -> Option<NaiveDate> {
    let (year, month) = name.rsplit_once("_y")?.1.split_once('m')?;
    NaiveDate::from_ymd_opt(year.parse().ok()?, month.parse().ok()?, 1)
}

/// The least id of version 7 of a month.
fn bound(month: NaiveDate) -> Uuid {
    least_id(start(month))
}

/// The least id of version 7 of a time.
pub(super) fn least_id(time: Time) -> Uuid {
    let millis = u128::try_from(time.timestamp_millis()).unwrap_or(0);
    Uuid::from_u128(millis << 80)
}

fn create(table: &str, fill: u8, month: NaiveDate) -> String {
    let (from, to) = (bound(month), bound(month + Months::new(1)));
    let name = name(table, month);
    format!(
        "CREATE TABLE IF NOT EXISTS {name} PARTITION OF {table} FOR VALUES FROM ('{from}') TO ('{to}') WITH (fillfactor = {fill})"
    )
}

fn other(table: &str, fill: u8) -> String {
    format!(
        "CREATE TABLE IF NOT EXISTS {table}_other PARTITION OF {table} DEFAULT WITH (fillfactor = {fill})"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_months_ids_lie_between_its_bounds() {
        let month = NaiveDate::from_ymd_opt(2026, 12, 1).unwrap();
        let (from, to) = (bound(month), bound(month + Months::new(1)));
        for (time, is_in) in [
            ("2026-11-30T23:59:59.999Z", false),
            ("2026-12-01T00:00:00Z", true),
            ("2026-12-31T23:59:59.999Z", true),
            ("2027-01-01T00:00:00Z", false),
        ] {
            let time: Time = time.parse().unwrap();
            let millis = u128::try_from(time.timestamp_millis()).unwrap();
            let id = Uuid::from_u128(millis << 80 | 7 << 76 | 12345);
            assert_eq!(from <= id && id < to, is_in, "{time}");
        }
        assert_eq!(parse(&name("execution_specs", month)), Some(month));
        assert_eq!(parse("executions_other"), None);
    }
}
