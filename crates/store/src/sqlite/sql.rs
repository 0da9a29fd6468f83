//! Statements, and the values that go in and out of them.

use domain::{ExecutionId, Time};
use rusqlite::{Connection, OptionalExtension, Params, Row};

use super::fault::{Outcome, corrupt};
use crate::Result;
pub(super) use crate::codec::{Packing, decode, encode, parse};

/// Statements on a connection; all are prepared once and kept.
pub(super) trait Sql {
    /// Runs a statement; answers the number of rows that it changed.
    fn run(&self, sql: &str, params: impl Params) -> Outcome<usize>;

    /// The first row, if there is one.
    fn first<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Outcome<Option<T>>;

    /// All rows.
    fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Outcome<Vec<T>>;
}

impl Sql for Connection {
    fn run(&self, sql: &str, params: impl Params) -> Outcome<usize> {
        Ok(self.prepare_cached(sql)?.execute(params)?)
    }

    fn first<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Outcome<Option<T>> {
        Ok(self
            .prepare_cached(sql)?
            .query_row(params, read)
            .optional()?)
    }

    fn all<T>(
        &self,
        sql: &str,
        params: impl Params,
        read: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Outcome<Vec<T>> {
        let mut statement = self.prepare_cached(sql)?;
        let rows = statement.query_map(params, read)?;
        Ok(rows.collect::<rusqlite::Result<_>>()?)
    }
}

/// An execution id as it is stored.
pub(super) fn key(id: ExecutionId) -> [u8; 16] {
    id.as_uuid().into_bytes()
}

/// An execution id as it was stored.
pub(super) fn id(key: [u8; 16]) -> ExecutionId {
    ExecutionId::from_uuid(uuid::Uuid::from_bytes(key))
}

/// A time as it is stored.
pub(super) fn micros(time: Time) -> i64 {
    time.timestamp_micros()
}

/// A time before which nothing is to happen, as it is stored: rounded up, so that whoever is woken by it finds that
/// it has come.
pub(super) fn micros_up(time: Time) -> i64 {
    let below = time.timestamp_micros();
    let rest = time.timestamp_subsec_nanos() % 1000;
    below.saturating_add(i64::from(rest > 0))
}

/// A time as it was stored.
pub(super) fn time(micros: i64) -> Result<Time> {
    Time::from_timestamp_micros(micros)
        .ok_or_else(|| corrupt(format!("the time {micros}"), "it is out of range"))
}

/// A count as it is stored: SQLite's integers have a sign.
pub(super) fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A limit as it is stored.
pub(super) fn limit(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A count as it was stored.
pub(super) fn counted(n: i64) -> u64 {
    u64::try_from(n).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_wait_for_is_never_stored_too_early() {
        let time = Time::from_timestamp_nanos(1_500);
        assert_eq!((micros(time), micros_up(time)), (1, 2));
        let whole = Time::from_timestamp_nanos(2_000);
        assert_eq!((micros(whole), micros_up(whole)), (2, 2));
    }
}
