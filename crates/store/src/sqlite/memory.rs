//! What agents remember: conversations and facts.

use domain::{AgentName, ConversationId, Message, Time};
use rusqlite::params;
use serde_json::Value;

use super::Sqlite;
use super::fault::Outcome;
use super::sql::{Sql, decode, id, limit, micros};
use super::writer::Tx;
use crate::Result;

/// How long it is remembered which writes were made. A write is repeated when an execution is recovered.
const WRITE_LIFE_MICROS: i64 = 30 * 24 * 60 * 60 * 1_000_000;

impl Sqlite {
    pub(super) async fn last_messages(
        &self,
        agent: &AgentName,
        conversation: &ConversationId,
        most: usize,
    ) -> Result<Vec<Message>> {
        let (agent, id) = (agent.as_str().to_owned(), conversation.as_str().to_owned());
        let read = move |conn: &rusqlite::Connection| {
            conn.all(
                "SELECT message FROM messages WHERE agent_name = ?1 AND conversation_id = ?2
                 ORDER BY seq DESC LIMIT ?3",
                params![agent, id, limit(most)],
                |row| row.get::<_, String>(0),
            )
        };
        let rows = self.readers.read(read).await?;
        let what = || format!("a message of conversation {conversation}");
        rows.iter().rev().map(|json| decode(what, json)).collect()
    }

    /// The last message's position and origin, and how often what it belongs to was changed since it was made.
    pub(super) async fn talk_version(
        &self,
        agent: &AgentName,
        conversation: &ConversationId,
    ) -> Result<Option<String>> {
        let (agent, conversation) = (agent.as_str().to_owned(), conversation.as_str().to_owned());
        let read = move |conn: &rusqlite::Connection| {
            conn.first(
                "SELECT m.seq, m.execution_id, c.created_at, c.version
                 FROM messages m JOIN conversations c USING (agent_name, conversation_id)
                 WHERE m.agent_name = ?1 AND m.conversation_id = ?2 ORDER BY m.seq DESC LIMIT 1",
                params![agent, conversation],
                |row| {
                    let (seq, execution): (i64, [u8; 16]) = (row.get(0)?, row.get(1)?);
                    let (made, version): (i64, i64) = (row.get(2)?, row.get(3)?);
                    Ok((seq, execution, made, version))
                },
            )
        };
        let last = self.readers.read(read).await?;
        let word =
            |(seq, execution, made, version)| format!("{seq}-{}-{made}-{version}", id(execution));
        Ok(last.map(word))
    }

    pub(super) async fn keep_fact(
        &self,
        agent: &AgentName,
        key: &str,
        value: &Value,
        idempotency_key: &str,
        now: Time,
    ) -> Result<()> {
        let fact = Fact {
            agent: agent.as_str().to_owned(),
            key: key.to_owned(),
            value: self.packing.encode("the fact", value)?,
            write: idempotency_key.to_owned(),
            now: micros(now),
        };
        self.writer.write(move |tx| fact.keep(tx)).await
    }

    pub(super) async fn facts(
        &self,
        agent: &AgentName,
        like: &str,
        most: usize,
    ) -> Result<Vec<(String, Value)>> {
        let (name, like) = (agent.as_str().to_owned(), like.to_owned());
        let read = move |conn: &rusqlite::Connection| {
            conn.all(
                "SELECT key, value FROM agent_states WHERE agent_name = ?1 AND instr(key, ?2) > 0
                 ORDER BY updated_at DESC, key LIMIT ?3",
                params![name, like, limit(most)],
                |row| Ok::<(String, String), _>((row.get(0)?, row.get(1)?)),
            )
        };
        let rows = self.readers.read(read).await?;
        let facts = rows.into_iter().map(|(key, json)| {
            let value = decode(|| format!("fact {key:?} of agent {agent}"), &json)?;
            Ok((key, value))
        });
        facts.collect()
    }
}

struct Fact {
    agent: String,
    key: String,
    value: String,
    write: String,
    now: i64,
}

impl Fact {
    fn keep(&self, tx: &mut Tx<'_>) -> Outcome<()> {
        let is_new = tx.conn.run(
            "INSERT INTO agent_state_writes (agent_name, idempotency_key, at) VALUES (?1, ?2, ?3)
             ON CONFLICT DO NOTHING",
            params![self.agent, self.write, self.now],
        )?;
        if is_new == 0 {
            return Ok(());
        }
        tx.conn.run(
            "INSERT INTO agent_states (agent_name, key, value, updated_at) VALUES (?1, ?2, ?3, ?4)
             ON CONFLICT DO UPDATE SET value = ?3, updated_at = ?4",
            params![self.agent, self.key, self.value, self.now],
        )?;
        tx.conn.run(
            "DELETE FROM agent_state_writes WHERE (agent_name, idempotency_key) IN
                 (SELECT agent_name, idempotency_key FROM agent_state_writes WHERE at <= ?1 ORDER BY at LIMIT 4)",
            params![self.now - WRITE_LIFE_MICROS],
        )?;
        Ok(())
    }
}
