//! What people said of agents.

use async_trait::async_trait;
use domain::fleet::{Switch, SwitchedOff};
use domain::{AgentName, Time};

use super::Postgres;
use super::sql::{counted, get, text};
use crate::{Result, Switches, switches};

#[async_trait]
impl Switches for Postgres {
    async fn switch_agent(&self, agent: &AgentName, off: Option<SwitchedOff>) -> Result<()> {
        let mut conn = self.pool.get().await?;
        match &off {
            Some(off) => {
                conn.run(
                    "INSERT INTO agent_switches (agent_name, off_by, off_at, restarts) VALUES ($1, $2, $3, 0)
                     ON CONFLICT (agent_name) DO UPDATE SET off_by = excluded.off_by, off_at = excluded.off_at
                     WHERE agent_switches.off_at IS NULL",
                    &[&agent.as_str(), &text(&off.by).as_ref(), &off.at],
                )
                .await?;
            }
            None => {
                conn.run(
                    "UPDATE agent_switches SET off_by = NULL, off_at = NULL WHERE agent_name = $1",
                    &[&agent.as_str()],
                )
                .await?;
            }
        }
        Ok(())
    }

    async fn restart_agent(&self, agent: &AgentName) -> Result<u64> {
        let mut conn = self.pool.get().await?;
        let row = conn
            .first(
                "INSERT INTO agent_switches (agent_name, restarts) VALUES ($1, 1)
                 ON CONFLICT (agent_name) DO UPDATE SET restarts = agent_switches.restarts + 1
                 RETURNING restarts",
                &[&agent.as_str()],
            )
            .await?;
        let restarts: i64 = row.map_or(Ok(0), |row| get(&row, 0))?;
        Ok(counted(restarts))
    }

    async fn switches(&self) -> Result<Vec<Switch>> {
        let mut conn = self.pool.get().await?;
        let rows = conn
            .all(
                "SELECT agent_name, off_by, off_at, restarts FROM agent_switches ORDER BY agent_name COLLATE \"C\"",
                &[],
            )
            .await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            let (agent, off_by): (String, Option<String>) = (get(row, 0)?, get(row, 1)?);
            let off_at: Option<Time> = get(row, 2)?;
            let restarts: i64 = get(row, 3)?;
            found.extend(switches::read(&agent, off_by, off_at, counted(restarts)));
        }
        Ok(found)
    }
}
