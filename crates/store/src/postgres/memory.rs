//! What agents remember: conversations and facts.

use domain::{AgentName, ConversationId, Message, Time};
use serde_json::Value;
use uuid::Uuid;

use super::Postgres;
use super::sql::{decode, get, limit, text};
use crate::Result;

impl Postgres {
    pub(super) async fn last_messages(
        &self,
        agent: &AgentName,
        conversation: &ConversationId,
        most: usize,
    ) -> Result<Vec<Message>> {
        let mut conn = self.pool.get().await?;
        let rows = conn
            .all(
                "SELECT message FROM messages WHERE agent_name = $1 AND conversation_id = $2
                 ORDER BY seq DESC LIMIT $3",
                &[&agent.as_str(), &conversation.as_str(), &limit(most)],
            )
            .await?;
        let what = || format!("a message of conversation {conversation}");
        let message = |row| decode(what, &get::<String>(row, 0)?);
        rows.iter().rev().map(message).collect()
    }

    /// The last message's position and origin, and how often what it belongs to was changed since it was made. Whoever
    /// changes a conversation holds its row, so no earlier message can appear after this one.
    pub(super) async fn talk_version(
        &self,
        agent: &AgentName,
        conversation: &ConversationId,
    ) -> Result<Option<String>> {
        let mut conn = self.pool.get().await?;
        let last = conn
            .first(
                "SELECT m.seq, m.execution_id, c.created_at, c.version
                 FROM messages m JOIN conversations c USING (agent_name, conversation_id)
                 WHERE m.agent_name = $1 AND m.conversation_id = $2 ORDER BY m.seq DESC LIMIT 1",
                &[&agent.as_str(), &conversation.as_str()],
            )
            .await?;
        last.map(|row| {
            let (seq, execution) = (get::<i64>(&row, 0)?, get::<Uuid>(&row, 1)?);
            let (made, version) = (get::<Time>(&row, 2)?, get::<i64>(&row, 3)?);
            let made = made.timestamp_micros();
            Ok(format!("{seq}-{execution}-{made}-{version}"))
        })
        .transpose()
    }

    /// The server's own number, that of the database, and that of its latest restore: a copy of it elsewhere, one made
    /// anew, or one that went back to a backup has another.
    pub(super) async fn own_name(&self) -> Result<Option<String>> {
        let mut conn = self.pool.get().await?;
        let sql = "SELECT system_identifier::text || '-' || (SELECT oid FROM pg_database
                       WHERE datname = current_database())::text
                       || coalesce((SELECT '-' || id::text FROM restores ORDER BY at DESC LIMIT 1), '')
                   FROM pg_control_system()";
        match conn.first(sql, &[]).await {
            Ok(row) => Ok(row.map(|row| get(&row, 0)).transpose()?),
            Err(error) => {
                // Some providers do not let their users ask. Then nobody shares copies with us.
                tracing::debug!(?error, "the database does not say who it is");
                Ok(None)
            }
        }
    }

    /// Writes a fact unless this write was made before. Which writes were made is remembered for 30 days: a write is
    /// repeated when an execution is recovered.
    pub(super) async fn keep_fact(
        &self,
        agent: &AgentName,
        key: &str,
        value: &Value,
        write: &str,
        now: Time,
    ) -> Result<()> {
        let value = self.packing.encode("the fact", value)?;
        let mut conn = self.pool.get().await?;
        conn.run(
            "WITH is_new AS (
                 INSERT INTO agent_state_writes (agent_name, idempotency_key, at) VALUES ($1, $4, $5)
                 ON CONFLICT (agent_name, idempotency_key) DO NOTHING
                 RETURNING 1
             ), forgotten AS (
                 DELETE FROM agent_state_writes w USING (
                     SELECT agent_name, idempotency_key FROM agent_state_writes
                     WHERE at <= $5::timestamptz - interval '30 days' ORDER BY at LIMIT 4 FOR UPDATE SKIP LOCKED
                 ) AS old
                 WHERE w.agent_name = old.agent_name AND w.idempotency_key = old.idempotency_key
             )
             INSERT INTO agent_states (agent_name, key, value, updated_at)
             SELECT $1, $2, $3, $5 FROM is_new
             ON CONFLICT (agent_name, key) DO UPDATE SET value = excluded.value, updated_at = excluded.updated_at",
            &[
                &agent.as_str(),
                &text(key).as_ref(),
                &value,
                &text(write).as_ref(),
                &now,
            ],
        )
        .await?;
        Ok(())
    }

    pub(super) async fn facts(
        &self,
        agent: &AgentName,
        like: &str,
        most: usize,
    ) -> Result<Vec<(String, Value)>> {
        let mut conn = self.pool.get().await?;
        let rows = conn
            .all(
                "SELECT key, value FROM agent_states WHERE agent_name = $1 AND position($2::text in key) > 0
                 ORDER BY updated_at DESC, key LIMIT $3",
                &[&agent.as_str(), &text(like).as_ref(), &limit(most)],
            )
            .await?;
        let facts = rows.iter().map(|row| {
            let (key, json): (String, String) = (get(row, 0)?, get(row, 1)?);
            let value = decode(|| format!("fact {key:?} of agent {agent}"), &json)?;
            Ok((key, value))
        });
        facts.collect()
    }
}
