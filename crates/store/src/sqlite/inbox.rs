//! What waits for a person.

use domain::{ExecutionId, Seq};
use rusqlite::{Connection, params};

use super::Sqlite;
use super::sql::{Sql, counted, encode, id, key, limit, micros, parse};
use crate::{InboxFilter, OpenRequest, Result};

/// Unanswered questions of executions that go on.
const OPEN: &str = "FROM inputs i JOIN executions e ON e.id = i.execution_id
    WHERE i.answer IS NULL AND i.consumed = 0 AND e.finished_at IS NULL AND i.until > ?1
        AND (?2 IS NULL OR e.agent_name IN (SELECT value FROM json_each(?2)))
        AND (?3 IS NULL OR i.execution_id = ?3)
        AND (?4 IS NULL OR i.question LIKE ?4)";

impl Sqlite {
    pub(super) async fn open_requests(
        &self,
        filter: InboxFilter,
    ) -> Result<(Vec<OpenRequest>, u64)> {
        let agents = match filter.agents.is_empty() {
            true => None,
            false => Some(encode("the agents", &filter.agents)?),
        };
        // The kind is the first field of the question's JSON.
        let kind = filter
            .kind
            .map(|kind| format!("{{\"question\":\"{kind}\"%"));
        let now = micros(filter.now);
        let execution = filter.execution.map(key);
        let (after, seq) = filter
            .after
            .map_or((None, 0), |(id, seq)| (Some(key(id)), seq.get()));
        let most = limit(filter.limit);
        let read = move |conn: &Connection| {
            // List and total of one moment.
            let tx = conn.unchecked_transaction()?;
            let rows: Vec<([u8; 16], String, u32)> = tx.all(
                &format!(
                    "SELECT i.execution_id, e.agent_name, i.request {OPEN}
                         AND (?5 IS NULL OR (i.execution_id, i.request) > (?5, ?6))
                     ORDER BY i.execution_id, i.request LIMIT ?7"
                ),
                params![now, agents, execution, kind, after, seq, most],
                |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)),
            )?;
            let total: Option<i64> = tx.first(
                &format!("SELECT count(*) {OPEN}"),
                params![now, agents, execution, kind],
                |row| row.get(0),
            )?;
            Ok((rows, total.unwrap_or_default()))
        };
        let (rows, total) = self.readers.read(read).await?;
        let open = |(execution, agent, request): ([u8; 16], String, u32)| -> Result<OpenRequest> {
            let id: ExecutionId = id(execution);
            Ok(OpenRequest {
                id,
                agent: parse("an agent", &agent)?,
                request: Seq::new(request),
            })
        };
        let rows = rows.into_iter().map(open).collect::<Result<_>>()?;
        Ok((rows, counted(total)))
    }
}
