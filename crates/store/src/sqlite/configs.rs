//! Versions of agents' definitions.

use domain::{AgentName, ConfigVersion};
use rusqlite::params;

use super::Sqlite;
use super::sql::{Sql, decode, encode, micros, parse, time};
use super::writer::Tx;
use crate::{ConfigRecord, ConfigSummary, Result};

impl Sqlite {
    pub(super) async fn keep_config(&self, record: ConfigRecord) -> Result<()> {
        let definition = encode("the definition", &record.definition)?;
        let keep = move |tx: &mut Tx<'_>| {
            let (agent, version) = (record.definition.name.as_str(), record.version.as_str());
            tx.conn.run(
                "INSERT INTO agent_configs (agent_name, version, definition, source, path, loaded_at, is_current)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, 0) ON CONFLICT DO NOTHING",
                params![
                    agent,
                    version,
                    definition,
                    record.source,
                    record.path,
                    micros(record.loaded_at)
                ],
            )?;
            tx.conn.run(
                "UPDATE agent_configs SET is_current = (version = ?2)
                 WHERE agent_name = ?1 AND is_current <> (version = ?2)",
                params![agent, version],
            )?;
            Ok(())
        };
        self.writer.write(keep).await
    }

    pub(super) async fn one_config(
        &self,
        agent: &AgentName,
        version: &ConfigVersion,
    ) -> Result<Option<ConfigRecord>> {
        let (name, wanted) = (agent.as_str().to_owned(), version.as_str().to_owned());
        let read = move |conn: &rusqlite::Connection| {
            conn.first(
                "SELECT definition, source, path, loaded_at FROM agent_configs WHERE agent_name = ?1 AND version = ?2",
                params![name, wanted],
                |row| {
                    let (definition, source, path) = (row.get(0)?, row.get(1)?, row.get(2)?);
                    Ok::<(String, String, String, i64), _>((definition, source, path, row.get(3)?))
                },
            )
        };
        let Some((definition, source, path, loaded_at)) = self.readers.read(read).await? else {
            return Ok(None);
        };
        Ok(Some(ConfigRecord {
            definition: decode(
                || format!("version {version} of agent {agent}"),
                &definition,
            )?,
            version: version.clone(),
            source,
            path,
            loaded_at: time(loaded_at)?,
        }))
    }

    pub(super) async fn list_configs(&self, agent: &AgentName) -> Result<Vec<ConfigSummary>> {
        let name = agent.as_str().to_owned();
        let read = move |conn: &rusqlite::Connection| {
            conn.all(
                "SELECT version, loaded_at, is_current FROM agent_configs WHERE agent_name = ?1
                 ORDER BY loaded_at DESC, rowid DESC",
                params![name],
                |row| Ok::<(String, i64, bool), _>((row.get(0)?, row.get(1)?, row.get(2)?)),
            )
        };
        let rows = self.readers.read(read).await?;
        let summaries = rows.into_iter().map(|(version, loaded_at, is_current)| {
            Ok(ConfigSummary {
                version: parse("a row of agent_configs", &version)?,
                loaded_at: time(loaded_at)?,
                is_current,
            })
        });
        summaries.collect()
    }
}
