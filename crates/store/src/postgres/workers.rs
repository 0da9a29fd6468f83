//! Who performs executions.

use domain::{Time, Worker, WorkerId};
use tokio_postgres::Row;

use super::Postgres;
use super::sql::{count, counted, decode, encode, get, parse, small, smalled, text};
use crate::Result;

impl Postgres {
    pub(super) async fn note_worker(&self, worker: Worker, forget_before: Time) -> Result<()> {
        let agents = encode("the agents", &worker.agents)?;
        let mut conn = self.pool.get().await?;
        // Those that another is forgetting at this moment are left to it.
        conn.run(
            "WITH forgotten AS (
                 DELETE FROM workers WHERE id IN (
                     SELECT id FROM workers WHERE last_heartbeat < $13 AND id <> $1 FOR UPDATE SKIP LOCKED)
             )
             INSERT INTO workers (id, pool, host, pid, version, capacity, active, finished, finished_per_minute,
                 agents, started_at, last_heartbeat)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
             ON CONFLICT (id) DO UPDATE SET pool = excluded.pool, host = excluded.host, pid = excluded.pid,
                 version = excluded.version, capacity = excluded.capacity, active = excluded.active,
                 finished = excluded.finished, finished_per_minute = excluded.finished_per_minute,
                 agents = excluded.agents, started_at = excluded.started_at,
                 last_heartbeat = excluded.last_heartbeat",
            &[
                &worker.id.as_str(),
                &worker.pool.as_str(),
                &text(&worker.host).as_ref(),
                &small(worker.process),
                &text(&worker.version).as_ref(),
                &small(worker.capacity),
                &small(worker.active),
                &count(worker.finished),
                &worker.finished_per_minute,
                &agents,
                &worker.started_at,
                &worker.last_heartbeat,
                &forget_before,
            ],
        )
        .await?;
        Ok(())
    }

    pub(super) async fn list_workers(&self) -> Result<Vec<Worker>> {
        let mut conn = self.pool.get().await?;
        let rows = conn
            .all(
                "SELECT id, pool, host, pid, version, capacity, active, finished, finished_per_minute, agents,
                     started_at, last_heartbeat
                 FROM workers ORDER BY id COLLATE \"C\"",
                &[],
            )
            .await?;
        // One that can't be read, of another version perhaps, must not hide the others.
        let workers = rows.iter().filter_map(|row| {
            let read = worker(row);
            read.inspect_err(|error| tracing::warn!(%error, "a worker is left out"))
                .ok()
        });
        Ok(workers.collect())
    }

    pub(super) async fn forget_worker(&self, worker: &WorkerId) -> Result<()> {
        let mut conn = self.pool.get().await?;
        conn.run("DELETE FROM workers WHERE id = $1", &[&worker.as_str()])
            .await?;
        Ok(())
    }
}

fn worker(row: &Row) -> Result<Worker> {
    let (id, pool, agents): (String, String, String) = (get(row, 0)?, get(row, 1)?, get(row, 9)?);
    Ok(Worker {
        agents: decode(|| format!("the agents of worker {id}"), &agents)?,
        id: parse("a worker", &id)?,
        pool: parse("a pool", &pool)?,
        host: get(row, 2)?,
        process: smalled(get(row, 3)?),
        version: get(row, 4)?,
        capacity: smalled(get(row, 5)?),
        active: smalled(get(row, 6)?),
        finished: counted(get(row, 7)?),
        finished_per_minute: get(row, 8)?,
        started_at: get(row, 10)?,
        last_heartbeat: get(row, 11)?,
    })
}
