//! What a lost process left behind.

use domain::{Time, WorkerId};

use super::Postgres;
use super::fault::Outcome;
use super::sql::{counted, get, parse};
use crate::Result;

impl Postgres {
    pub(super) async fn holders(&self) -> Result<Vec<WorkerId>> {
        let mut conn = self.pool.get().await?;
        let rows = conn
            .all(
                "SELECT DISTINCT worker FROM executions WHERE due_at IS NOT NULL AND worker IS NOT NULL",
                &[],
            )
            .await?;
        let workers: Vec<String> = rows.iter().map(|row| get(row, 0)).collect::<Outcome<_>>()?;
        workers
            .iter()
            .map(|worker| parse("a worker", worker))
            .collect()
    }

    pub(super) async fn give_up_leases(&self, worker: &WorkerId, now: Time) -> Result<u64> {
        let mut conn = self.pool.get().await?;
        // The worker stays in the row: whoever claims next sees that a lease ended without its owner. Locked in the
        // order of ids, as everywhere.
        let row = conn
            .first(
                "WITH held AS MATERIALIZED (
                     SELECT id FROM executions WHERE worker = $1 AND due_at IS NOT NULL ORDER BY id FOR UPDATE
                 ), ended AS (
                     UPDATE executions SET due_at = least(due_at, $2) WHERE id IN (SELECT id FROM held) RETURNING id
                 )
                 SELECT count(*) FROM ended",
                &[&worker.as_str(), &now],
            )
            .await?;
        let ended = row.map_or(Ok(0), |row| get(&row, 0))?;
        if ended > 0 {
            self.signals.work();
        }
        Ok(counted(ended))
    }
}
