//! Values that go in and out of statements.

use std::hash::{DefaultHasher, Hash, Hasher};

use domain::{ExecutionId, Time};
use tokio_postgres::Row;
use tokio_postgres::types::FromSqlOwned;
use uuid::Uuid;

use super::fault::{Fault, Outcome};
pub(super) use crate::codec::{Packing, decode, encode, parse, text};

/// A column of a row.
pub(super) fn get<T: FromSqlOwned>(row: &Row, column: usize) -> Outcome<T> {
    row.try_get(column)
        .map_err(|error| Fault::sql(error, false))
}

/// An execution id as it is stored.
pub(super) fn key(id: ExecutionId) -> Uuid {
    id.as_uuid()
}

/// A time before which nothing is to happen, as it is stored: rounded up to microseconds, so that whoever is woken by
/// it finds that it has come.
pub(super) fn up(time: Time) -> Time {
    let rest = i64::from(time.timestamp_subsec_nanos() % 1000);
    if rest == 0 {
        return time;
    }
    time.checked_add_signed(chrono::TimeDelta::nanoseconds(1000 - rest))
        .unwrap_or(time)
}

/// A count as it is stored.
pub(super) fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A limit as it is stored.
pub(super) fn limit(n: usize) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

/// A small number as it is stored.
pub(super) fn small(n: u32) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// A count as it was stored.
pub(super) fn counted(n: i64) -> u64 {
    u64::try_from(n).unwrap_or_default()
}

/// A small number as it was stored.
pub(super) fn smalled(n: i32) -> u32 {
    u32::try_from(n).unwrap_or_default()
}

/// Something that two requests may have in common.
pub(super) fn touch(what: impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    what.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_to_wait_for_is_never_stored_too_early() {
        let time = Time::from_timestamp_nanos;
        assert_eq!(up(time(1_500)), time(2_000));
        assert_eq!(up(time(2_000)), time(2_000));
    }
}
