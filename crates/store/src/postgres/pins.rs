//! What tools of servers were approved as.

use async_trait::async_trait;
use domain::pin::{Pin, Seen, Sight};
use domain::{AgentName, Time};

use super::Postgres;
use super::connection::Conn;
use super::fault::Outcome;
use super::sql::{get, text};
use crate::pins::{Known, Row, is_no_news, judged, known};
use crate::{Pins, Result, ToolApproval};

#[async_trait]
impl Pins for Postgres {
    async fn see_tools(&self, agent: &AgentName, sights: &[Sight], now: Time) -> Result<Vec<Seen>> {
        let mut conn = self.pool.get().await?;
        let seen = judged(&all(&mut conn, agent).await?, sights);
        if is_no_news(&seen) {
            return Ok(seen);
        }
        conn.begin();
        // One at a time: two processes that see an agent's tools for the first time, or changed, agree on it.
        conn.run(
            "SELECT pg_advisory_xact_lock(hashtextextended('tool_pins/' || $1::text, 0))",
            &[&agent.as_str()],
        )
        .await?;
        let seen = judged(&all(&mut conn, agent).await?, sights);
        for (sight, seen) in sights.iter().zip(&seen) {
            write_down(&mut conn, agent, sight, *seen, now).await?;
        }
        conn.commit().await?;
        Ok(seen)
    }

    async fn changed_tools(&self, agent: Option<&AgentName>) -> Result<Vec<Pin>> {
        let mut conn = self.pool.get().await?;
        let rows = conn
            .all(
                "SELECT agent_name, server, tool, approved, definition, approved_by, changed, changed_definition,
                     approved_at, changed_at
                 FROM tool_pins WHERE changed IS NOT NULL AND ($1::text IS NULL OR agent_name = $1)
                 ORDER BY agent_name COLLATE \"C\", server COLLATE \"C\", tool COLLATE \"C\"",
                &[&agent.map(AgentName::as_str)],
            )
            .await?;
        let mut found = Vec::with_capacity(rows.len());
        for row in &rows {
            let read = Row {
                agent: get(row, 0)?,
                server: get(row, 1)?,
                tool: get(row, 2)?,
                approved: get(row, 3)?,
                definition: get(row, 4)?,
                approved_by: get(row, 5)?,
                changed: get(row, 6)?,
                changed_definition: get(row, 7)?,
                approved_at: get(row, 8)?,
                changed_at: get(row, 9)?,
            };
            found.push(read.read()?);
        }
        Ok(found)
    }

    async fn approve_tool(&self, approval: ToolApproval) -> Result<bool> {
        let mut conn = self.pool.get().await?;
        let approved = conn
            .run(
                "UPDATE tool_pins SET
                     approved = $4, definition = CASE WHEN changed = $4 THEN changed_definition ELSE definition END,
                     approved_at = $5, approved_by = $6, changed = NULL, changed_definition = NULL, changed_at = NULL
                 WHERE agent_name = $1 AND server = $2 AND tool = $3 AND changed IS NOT NULL
                     AND (changed = $4 OR approved = $4)
                 RETURNING 1",
                &[
                    &approval.agent.as_str(),
                    &text(&approval.server).as_ref(),
                    &text(&approval.tool).as_ref(),
                    &text(approval.fingerprint.as_str()).as_ref(),
                    &approval.at,
                    &text(&approval.by).as_ref(),
                ],
            )
            .await?;
        Ok(approved)
    }
}

/// What is known of an agent's tools.
async fn all(conn: &mut Conn, agent: &AgentName) -> Outcome<Known> {
    let rows = conn
        .all(
            "SELECT server, tool, approved, changed FROM tool_pins WHERE agent_name = $1",
            &[&agent.as_str()],
        )
        .await?;
    let rows = rows.iter().map(|row| {
        Ok(known(
            get(row, 0)?,
            get(row, 1)?,
            get(row, 2)?,
            get(row, 3)?,
        ))
    });
    rows.collect()
}

async fn write_down(
    conn: &mut Conn,
    agent: &AgentName,
    sight: &Sight,
    seen: Seen,
    now: Time,
) -> Outcome<()> {
    let sql = match seen {
        Seen::First => {
            "INSERT INTO tool_pins (agent_name, server, tool, approved, definition, approved_at)
             VALUES ($1, $2, $3, $4, $5, $6) RETURNING 1"
        }
        Seen::Changed | Seen::ChangedAgain => {
            "UPDATE tool_pins SET changed = $4, changed_definition = $5, changed_at = $6
             WHERE agent_name = $1 AND server = $2 AND tool = $3 RETURNING 1"
        }
        Seen::Approved | Seen::Withheld => return Ok(()),
    };
    // JSON has its zero characters as escapes.
    let definition = sight.definition.to_string();
    conn.run(
        sql,
        &[
            &agent.as_str(),
            &text(&sight.server).as_ref(),
            &text(&sight.tool).as_ref(),
            &sight.fingerprint.as_str(),
            &definition,
            &now,
        ],
    )
    .await?;
    Ok(())
}
