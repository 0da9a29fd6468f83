//! What tools of servers were approved as.

use async_trait::async_trait;
use domain::pin::{Pin, Seen, Sight};
use domain::{AgentName, Time};
use rusqlite::{Connection, params};

use super::Sqlite;
use super::fault::Outcome;
use super::sql::{Sql, micros, time};
use super::writer::Tx;
use crate::pins::{Known, Row, is_no_news, judged, known};
use crate::{Pins, Result, ToolApproval};

#[async_trait]
impl Pins for Sqlite {
    async fn see_tools(&self, agent: &AgentName, sights: &[Sight], now: Time) -> Result<Vec<Seen>> {
        let name = agent.to_string();
        let seen = judged(
            &self.readers.read(move |conn| all(conn, &name)).await?,
            sights,
        );
        if is_no_news(&seen) {
            return Ok(seen);
        }
        let (agent, sights) = (agent.to_string(), sights.to_vec());
        let see = move |tx: &mut Tx<'_>| {
            let seen = judged(&all(tx.conn, &agent)?, &sights);
            for (sight, seen) in sights.iter().zip(&seen) {
                write_down(tx.conn, &agent, sight, *seen, now)?;
            }
            Ok(seen)
        };
        self.writer.write(see).await
    }

    async fn changed_tools(&self, agent: Option<&AgentName>) -> Result<Vec<Pin>> {
        let agent = agent.map(ToString::to_string);
        let rows = self.readers.read(move |conn| changed(conn, agent)).await?;
        rows.into_iter()
            .map(|(mut row, approved_at, changed_at)| {
                (row.approved_at, row.changed_at) = (time(approved_at)?, time(changed_at)?);
                row.read()
            })
            .collect()
    }

    async fn approve_tool(&self, approval: ToolApproval) -> Result<bool> {
        let approve = move |tx: &mut Tx<'_>| {
            let what = params![
                approval.agent.as_str(),
                approval.server,
                approval.tool,
                approval.fingerprint.as_str(),
                micros(approval.at),
                approval.by
            ];
            let approved = tx.conn.run(
                "UPDATE tool_pins SET
                     approved = ?4, definition = CASE WHEN changed = ?4 THEN changed_definition ELSE definition END,
                     approved_at = ?5, approved_by = ?6, changed = NULL, changed_definition = NULL, changed_at = NULL
                 WHERE agent_name = ?1 AND server = ?2 AND tool = ?3 AND changed IS NOT NULL
                     AND (changed = ?4 OR approved = ?4)",
                what,
            )?;
            Ok(approved == 1)
        };
        self.writer.write(approve).await
    }
}

/// What is known of an agent's tools.
fn all(conn: &Connection, agent: &str) -> Outcome<Known> {
    let rows = conn.all(
        "SELECT server, tool, approved, changed FROM tool_pins WHERE agent_name = ?1",
        [agent],
        |row| Ok(known(row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)),
    )?;
    Ok(rows.into_iter().collect())
}

fn write_down(conn: &Connection, agent: &str, sight: &Sight, seen: Seen, now: Time) -> Outcome<()> {
    let sql = match seen {
        Seen::First => {
            "INSERT INTO tool_pins (agent_name, server, tool, approved, definition, approved_at)
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)"
        }
        Seen::Changed | Seen::ChangedAgain => {
            "UPDATE tool_pins SET changed = ?4, changed_definition = ?5, changed_at = ?6
             WHERE agent_name = ?1 AND server = ?2 AND tool = ?3"
        }
        Seen::Approved | Seen::Withheld => return Ok(()),
    };
    let what = params![
        agent,
        sight.server,
        sight.tool,
        sight.fingerprint.as_str(),
        sight.definition.to_string(),
        micros(now)
    ];
    conn.run(sql, what)?;
    Ok(())
}

fn changed(conn: &Connection, agent: Option<String>) -> Outcome<Vec<(Row, i64, i64)>> {
    conn.all(
        "SELECT agent_name, server, tool, approved, definition, approved_by, changed, changed_definition,
             approved_at, changed_at
         FROM tool_pins WHERE changed IS NOT NULL AND (?1 IS NULL OR agent_name = ?1)
         ORDER BY agent_name, server, tool",
        [agent],
        |row| {
            let read = Row {
                agent: row.get(0)?,
                server: row.get(1)?,
                tool: row.get(2)?,
                approved: row.get(3)?,
                definition: row.get(4)?,
                approved_by: row.get(5)?,
                changed: row.get(6)?,
                changed_definition: row.get(7)?,
                approved_at: Time::UNIX_EPOCH,
                changed_at: Time::UNIX_EPOCH,
            };
            Ok((read, row.get(8)?, row.get(9)?))
        },
    )
}
