//! What the agents of a team know together.

use domain::ExecutionId;
use tokio_postgres::Row;
use uuid::Uuid;

use super::Postgres;
use super::connection::Conn;
use super::fault::Outcome;
use super::sql::{counted, decode, get, key, text};
use crate::{Result, SharedAnswer, SharedValue, SharedWrite};

impl Postgres {
    pub(super) async fn write_shared(&self, write: SharedWrite) -> Result<SharedAnswer> {
        let value = self.packing.encode("the shared value", &write.value)?;
        let mut conn = self.pool.get().await?;
        conn.begin();
        let answer = put(&mut conn, &write, &value).await?;
        conn.commit().await?;
        Ok(answer)
    }

    pub(super) async fn read_shared(
        &self,
        team: ExecutionId,
        keys: &[String],
    ) -> Result<Vec<SharedValue>> {
        let mut conn = self.pool.get().await?;
        let rows = conn
            .all(
                "SELECT DISTINCT ON (key) key, version, value, execution_id FROM shared_state
                 WHERE team = $1 AND (cardinality($2::text[]) = 0 OR key = ANY ($2)) ORDER BY key, version DESC",
                &[&key(team), &keys],
            )
            .await?;
        let value = |row: &Row| {
            let (name, json): (String, String) = (get(row, 0)?, get(row, 2)?);
            let what = || format!("the value of {name:?} that team {team} shares");
            Ok(SharedValue {
                value: decode(what, &json)?,
                version: counted(get(row, 1)?),
                by: ExecutionId::from_uuid(get::<Uuid>(row, 3)?),
                key: name,
            })
        };
        rows.iter().map(value).collect()
    }
}

async fn put(conn: &mut Conn, write: &SharedWrite, value: &str) -> Outcome<SharedAnswer> {
    let team = key(write.team);
    // One writer of a team at a time, and none after its end.
    let row = conn
        .first(
            "SELECT finished_at IS NULL FROM executions WHERE id = $1 FOR NO KEY UPDATE",
            &[&team],
        )
        .await?;
    let goes_on: bool = row.map_or(Ok(false), |row| get(&row, 0))?;
    let (name, once) = (text(&write.key), text(&write.idempotency_key));
    let before = conn
        .first(
            "SELECT version FROM shared_state WHERE team = $1 AND idempotency_key = $2",
            &[&team, &once.as_ref()],
        )
        .await?;
    if let Some(row) = before {
        let version = counted(get(&row, 0)?);
        return Ok(SharedAnswer::Written { version });
    }
    if !goes_on {
        return Ok(SharedAnswer::Over);
    }
    let row = conn
        .first(
            "SELECT coalesce(max(version) FILTER (WHERE key = $2), 0), count(*) FROM shared_state WHERE team = $1",
            &[&team, &name.as_ref()],
        )
        .await?;
    let (version, writes): (i64, i64) = match &row {
        Some(row) => (get(row, 0)?, get(row, 1)?),
        None => (0, 0),
    };
    if let Some(answer) = write.refusal(counted(version), counted(writes)) {
        return Ok(answer);
    }
    conn.run(
        "INSERT INTO shared_state (team, key, version, value, execution_id, idempotency_key, at)
         VALUES ($1, $2, $3, $4, $5, $6, $7)",
        &[
            &team,
            &name.as_ref(),
            &(version + 1),
            &value,
            &key(write.by),
            &once.as_ref(),
            &write.now,
        ],
    )
    .await?;
    Ok(SharedAnswer::Written {
        version: counted(version) + 1,
    })
}
