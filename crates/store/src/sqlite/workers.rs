//! Who performs executions.

use domain::{Time, Worker, WorkerId};
use rusqlite::{Connection, params};

use super::Sqlite;
use super::fault::Outcome;
use super::sql::{Sql, count, counted, decode, encode, micros, parse, time};
use super::writer::Tx;
use crate::Result;

impl Sqlite {
    pub(super) async fn note_worker(&self, worker: Worker, forget_before: Time) -> Result<()> {
        let agents = encode("the agents", &worker.agents)?;
        let note = move |tx: &mut Tx<'_>| {
            tx.conn.run(
                "INSERT OR REPLACE INTO workers (id, pool, host, pid, version, capacity, active, finished,
                     finished_per_minute, agents, started_at, last_heartbeat)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)",
                params![
                    worker.id.as_str(),
                    worker.pool.as_str(),
                    worker.host,
                    worker.process,
                    worker.version,
                    worker.capacity,
                    worker.active,
                    count(worker.finished),
                    worker.finished_per_minute,
                    agents,
                    micros(worker.started_at),
                    micros(worker.last_heartbeat)
                ],
            )?;
            tx.conn.run(
                "DELETE FROM workers WHERE last_heartbeat < ?1",
                [micros(forget_before)],
            )?;
            Ok(())
        };
        self.writer.write(note).await
    }

    pub(super) async fn list_workers(&self) -> Result<Vec<Worker>> {
        let rows = self.readers.read(select).await?;
        // One that can't be read, of another version perhaps, must not hide the others.
        let workers = rows.into_iter().filter_map(|row| {
            let read = row.read();
            read.inspect_err(|error| tracing::warn!(%error, "a worker is left out"))
                .ok()
        });
        Ok(workers.collect())
    }

    pub(super) async fn forget_worker(&self, worker: &WorkerId) -> Result<()> {
        let worker = worker.clone();
        let forget = move |tx: &mut Tx<'_>| {
            tx.conn
                .run("DELETE FROM workers WHERE id = ?1", [worker.as_str()])?;
            Ok(())
        };
        self.writer.write(forget).await
    }
}

struct Raw {
    id: String,
    pool: String,
    host: String,
    process: u32,
    version: String,
    capacity: u32,
    active: u32,
    finished: i64,
    finished_per_minute: f64,
    agents: String,
    started_at: i64,
    last_heartbeat: i64,
}

impl Raw {
    fn read(self) -> Result<Worker> {
        Ok(Worker {
            agents: decode(|| format!("the agents of worker {}", self.id), &self.agents)?,
            id: parse("a worker", &self.id)?,
            pool: parse("a pool", &self.pool)?,
            host: self.host,
            process: self.process,
            version: self.version,
            capacity: self.capacity,
            active: self.active,
            finished: counted(self.finished),
            finished_per_minute: self.finished_per_minute,
            started_at: time(self.started_at)?,
            last_heartbeat: time(self.last_heartbeat)?,
        })
    }
}

fn select(conn: &Connection) -> Outcome<Vec<Raw>> {
    conn.all(
        "SELECT id, pool, host, pid, version, capacity, active, finished, finished_per_minute, agents, started_at,
             last_heartbeat
         FROM workers ORDER BY id",
        [],
        |row| {
            Ok(Raw {
                id: row.get(0)?,
                pool: row.get(1)?,
                host: row.get(2)?,
                process: row.get(3)?,
                version: row.get(4)?,
                capacity: row.get(5)?,
                active: row.get(6)?,
                finished: row.get(7)?,
                finished_per_minute: row.get(8)?,
                agents: row.get(9)?,
                started_at: row.get(10)?,
                last_heartbeat: row.get(11)?,
            })
        },
    )
}
