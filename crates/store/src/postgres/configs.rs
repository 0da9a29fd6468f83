//! Versions of agents' definitions.

use domain::{AgentName, ConfigVersion};

use super::Postgres;
use super::sql::{decode, encode, get, parse, text};
use crate::{ConfigRecord, ConfigSummary, Result};

impl Postgres {
    pub(super) async fn keep_config(&self, record: ConfigRecord) -> Result<()> {
        let definition = encode("the definition", &record.definition)?;
        let (agent, version) = (record.definition.name.as_str(), record.version.as_str());
        let mut conn = self.pool.get().await?;
        conn.begin();
        conn.run(
            "INSERT INTO agent_configs (agent_name, version, definition, source, path, loaded_at, is_current)
             VALUES ($1, $2, $3, $4, $5, $6, false) ON CONFLICT (agent_name, version) DO NOTHING",
            &[
                &agent,
                &version,
                &definition,
                &text(&record.source).as_ref(),
                &text(&record.path).as_ref(),
                &record.loaded_at,
            ],
        )
        .await?;
        // Two processes that load at once must not wait for each other's rows crosswise.
        conn.run(
            "SELECT 1 FROM agent_configs WHERE agent_name = $1 ORDER BY version FOR UPDATE",
            &[&agent],
        )
        .await?;
        conn.run(
            "UPDATE agent_configs SET is_current = (version = $2)
             WHERE agent_name = $1 AND is_current <> (version = $2)",
            &[&agent, &version],
        )
        .await?;
        Ok(conn.commit().await?)
    }

    pub(super) async fn one_config(
        &self,
        agent: &AgentName,
        version: &ConfigVersion,
    ) -> Result<Option<ConfigRecord>> {
        let mut conn = self.pool.get().await?;
        let row = conn
            .first(
                "SELECT definition, source, path, loaded_at FROM agent_configs WHERE agent_name = $1 AND version = $2",
                &[&agent.as_str(), &version.as_str()],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let definition: String = get(&row, 0)?;
        Ok(Some(ConfigRecord {
            definition: decode(
                || format!("version {version} of agent {agent}"),
                &definition,
            )?,
            version: version.clone(),
            source: get(&row, 1)?,
            path: get(&row, 2)?,
            loaded_at: get(&row, 3)?,
        }))
    }

    pub(super) async fn list_configs(&self, agent: &AgentName) -> Result<Vec<ConfigSummary>> {
        let mut conn = self.pool.get().await?;
        let rows = conn
            .all(
                "SELECT version, loaded_at, is_current FROM agent_configs WHERE agent_name = $1
                 ORDER BY loaded_at DESC, loaded DESC",
                &[&agent.as_str()],
            )
            .await?;
        let summaries = rows.iter().map(|row| {
            let version: String = get(row, 0)?;
            Ok(ConfigSummary {
                version: parse("a row of agent_configs", &version)?,
                loaded_at: get(row, 1)?,
                is_current: get(row, 2)?,
            })
        });
        summaries.collect()
    }
}
