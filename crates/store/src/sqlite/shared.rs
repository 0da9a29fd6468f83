//! What the agents of a team know together.

use domain::ExecutionId;
use rusqlite::{Connection, params};

use super::Sqlite;
use super::fault::Outcome;
use super::sql::{Sql, counted, decode, id, key, micros};
use super::writer::Tx;
use crate::{Result, SharedAnswer, SharedValue, SharedWrite};

impl Sqlite {
    pub(super) async fn write_shared(&self, write: SharedWrite) -> Result<SharedAnswer> {
        let value = self.packing.encode("the shared value", &write.value)?;
        let work = move |tx: &mut Tx<'_>| put(tx, &write, &value);
        self.writer.write(work).await
    }

    pub(super) async fn read_shared(
        &self,
        team: ExecutionId,
        keys: &[String],
    ) -> Result<Vec<SharedValue>> {
        let read = move |conn: &Connection| {
            conn.all(
                "SELECT key, version, value, execution_id FROM shared_state AS s
                 WHERE team = ?1 AND version = (
                     SELECT max(version) FROM shared_state WHERE team = s.team AND key = s.key)
                 ORDER BY key",
                params![key(team)],
                |row| {
                    Ok::<(String, i64, String, [u8; 16]), _>((
                        row.get(0)?,
                        row.get(1)?,
                        row.get(2)?,
                        row.get(3)?,
                    ))
                },
            )
        };
        let rows = self.readers.read(read).await?;
        let wanted = rows
            .into_iter()
            .filter(|(key, ..)| keys.is_empty() || keys.contains(key));
        let value = |(key, version, json, by): (String, i64, String, [u8; 16])| {
            let what = || format!("the value of {key:?} that team {team} shares");
            Ok(SharedValue {
                value: decode(what, &json)?,
                version: counted(version),
                by: id(by),
                key,
            })
        };
        wanted.map(value).collect()
    }
}

fn put(tx: &Tx<'_>, write: &SharedWrite, value: &str) -> Outcome<SharedAnswer> {
    let team = key(write.team);
    let number = |row: &rusqlite::Row<'_>| row.get::<_, i64>(0);
    let before = tx.conn.first(
        "SELECT version FROM shared_state WHERE team = ?1 AND idempotency_key = ?2",
        params![team, write.idempotency_key],
        number,
    )?;
    if let Some(version) = before {
        return Ok(SharedAnswer::Written {
            version: counted(version),
        });
    }
    let goes_on = tx.conn.first(
        "SELECT 1 FROM executions WHERE id = ?1 AND finished_at IS NULL",
        params![team],
        number,
    )?;
    if goes_on.is_none() {
        return Ok(SharedAnswer::Over);
    }
    let (version, writes) = tx
        .conn
        .first(
            "SELECT coalesce(max(version) FILTER (WHERE key = ?2), 0), count(*) FROM shared_state WHERE team = ?1",
            params![team, write.key],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?)),
        )?
        .unwrap_or_default();
    if let Some(answer) = write.refusal(counted(version), counted(writes)) {
        return Ok(answer);
    }
    tx.conn.run(
        "INSERT INTO shared_state (team, key, version, value, execution_id, idempotency_key, at)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        params![
            team,
            write.key,
            version + 1,
            value,
            key(write.by),
            write.idempotency_key,
            micros(write.now)
        ],
    )?;
    Ok(SharedAnswer::Written {
        version: counted(version) + 1,
    })
}
