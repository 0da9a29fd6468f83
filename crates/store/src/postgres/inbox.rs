//! What waits for a person.

use domain::{ExecutionId, Seq};
use tokio_postgres::Row;
use uuid::Uuid;

use super::Postgres;
use super::sql::{counted, get, key, limit, parse, small, smalled};
use crate::{InboxFilter, OpenRequest, Result};

/// Unanswered questions of executions that go on.
macro_rules! open {
    ($what:literal, $rest:literal) => {
        concat!(
            "SELECT ",
            $what,
            " FROM inputs i JOIN executions e ON e.id = i.execution_id
              WHERE i.answer IS NULL AND NOT i.consumed AND e.finished_at IS NULL AND i.until > $1
                  AND ($2::text[] IS NULL OR e.agent_name = ANY ($2))
                  AND ($3::uuid IS NULL OR i.execution_id = $3)
                  AND ($4::text IS NULL OR i.question LIKE $4)",
            $rest
        )
    };
}

impl Postgres {
    pub(super) async fn open_requests(
        &self,
        filter: InboxFilter,
    ) -> Result<(Vec<OpenRequest>, u64)> {
        let agents: Vec<&str> = filter.agents.iter().map(|agent| agent.as_str()).collect();
        let agents = (!agents.is_empty()).then_some(agents);
        // The kind is the first field of the question's JSON.
        let kind = filter
            .kind
            .map(|kind| format!("{{\"question\":\"{kind}\"%"));
        let execution = filter.execution.map(key);
        // Ids are never nil, so everything is after that.
        let (after, seq) = filter
            .after
            .map_or((Uuid::nil(), 0), |(id, seq)| (key(id), small(seq.get())));
        let mut conn = self.pool.get().await?;
        let rows = conn
            .all(
                open!(
                    "i.execution_id, e.agent_name, i.request",
                    " AND (i.execution_id, i.request) > ($5, $6)
                      ORDER BY i.execution_id, i.request LIMIT $7"
                ),
                &[
                    &filter.now,
                    &agents,
                    &execution,
                    &kind,
                    &after,
                    &seq,
                    &limit(filter.limit),
                ],
            )
            .await?;
        let total = conn
            .first(
                open!("count(*)", ""),
                &[&filter.now, &agents, &execution, &kind],
            )
            .await?;
        let total: i64 = total.map_or(Ok(0), |row| get(&row, 0))?;
        let open = |row: &Row| -> Result<OpenRequest> {
            let agent: String = get(row, 1)?;
            Ok(OpenRequest {
                id: ExecutionId::from_uuid(get(row, 0)?),
                agent: parse("an agent", &agent)?,
                request: Seq::new(smalled(get(row, 2)?)),
            })
        };
        let rows = rows.iter().map(open).collect::<Result<_>>()?;
        Ok((rows, counted(total)))
    }
}
