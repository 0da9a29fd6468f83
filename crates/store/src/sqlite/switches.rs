//! What people said of agents.

use async_trait::async_trait;
use domain::AgentName;
use domain::fleet::{Switch, SwitchedOff};
use rusqlite::{Connection, params};

use super::Sqlite;
use super::fault::Outcome;
use super::sql::{Sql, counted, micros, time};
use super::writer::Tx;
use crate::{Result, Switches, switches};

#[async_trait]
impl Switches for Sqlite {
    async fn switch_agent(&self, agent: &AgentName, off: Option<SwitchedOff>) -> Result<()> {
        let agent = agent.clone();
        let switch = move |tx: &mut Tx<'_>| {
            match &off {
                Some(off) => tx.conn.run(
                    "INSERT INTO agent_switches (agent_name, off_by, off_at, restarts) VALUES (?1, ?2, ?3, 0)
                     ON CONFLICT (agent_name) DO UPDATE SET off_by = excluded.off_by, off_at = excluded.off_at
                     WHERE agent_switches.off_at IS NULL",
                    params![agent.as_str(), off.by, micros(off.at)],
                )?,
                None => tx.conn.run(
                    "UPDATE agent_switches SET off_by = NULL, off_at = NULL WHERE agent_name = ?1",
                    [agent.as_str()],
                )?,
            };
            Ok(())
        };
        self.writer.write(switch).await
    }

    async fn restart_agent(&self, agent: &AgentName) -> Result<u64> {
        let agent = agent.clone();
        let restart = move |tx: &mut Tx<'_>| {
            tx.conn.run(
                "INSERT INTO agent_switches (agent_name, restarts) VALUES (?1, 1)
                 ON CONFLICT (agent_name) DO UPDATE SET restarts = restarts + 1",
                [agent.as_str()],
            )?;
            let restarts = tx.conn.first(
                "SELECT restarts FROM agent_switches WHERE agent_name = ?1",
                [agent.as_str()],
                |row| row.get(0),
            )?;
            Ok(counted(restarts.unwrap_or_default()))
        };
        self.writer.write(restart).await
    }

    async fn switches(&self) -> Result<Vec<Switch>> {
        let rows = self.readers.read(select).await?;
        let mut found = Vec::with_capacity(rows.len());
        for (agent, off_by, off_at, restarts) in rows {
            let off_at = off_at.map(time).transpose()?;
            found.extend(switches::read(&agent, off_by, off_at, counted(restarts)));
        }
        Ok(found)
    }
}

type Raw = (String, Option<String>, Option<i64>, i64);

fn select(conn: &Connection) -> Outcome<Vec<Raw>> {
    conn.all(
        "SELECT agent_name, off_by, off_at, restarts FROM agent_switches ORDER BY agent_name",
        [],
        |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
    )
}
