//! What is kept under the name of a conversation, or of an agent.

use domain::{AgentName, ConversationId, Time};
use rusqlite::params;
use serde_json::Value;

use super::Sqlite;
use super::fault::Outcome;
use super::sql::{Packing, Sql, counted, decode, id, limit, micros, time};
use super::writer::Tx;
use crate::{AgentState, Change, Result, StateChange, StateChanged};

/// The execution of a message that no execution said.
const NOBODY: [u8; 16] = [0; 16];

impl Sqlite {
    pub(super) async fn kept(
        &self,
        agent: &AgentName,
        conversation: Option<&ConversationId>,
        messages: usize,
    ) -> Result<Option<AgentState>> {
        let name = agent.as_str().to_owned();
        let key = conversation.map_or("", |id| id.as_str()).to_owned();
        let read = move |conn: &rusqlite::Connection| {
            // One look at one moment: the messages of this version.
            let tx = conn.unchecked_transaction()?;
            let row = tx.first(
                "SELECT state_data, metadata, version, created_at, updated_at,
                     (SELECT id FROM executions WHERE id = turn AND finished_at IS NULL)
                 FROM conversations WHERE agent_name = ?1 AND conversation_id = ?2",
                params![name, key],
                |row| {
                    Ok((
                        (
                            row.get::<_, Option<String>>(0)?,
                            row.get::<_, Option<String>>(1)?,
                        ),
                        (
                            row.get::<_, i64>(2)?,
                            row.get::<_, i64>(3)?,
                            row.get::<_, i64>(4)?,
                        ),
                        row.get::<_, Option<[u8; 16]>>(5)?,
                    ))
                },
            )?;
            let said: Vec<String> = tx.all(
                "SELECT message FROM messages WHERE agent_name = ?1 AND conversation_id = ?2
                 ORDER BY seq DESC LIMIT ?3",
                params![name, key, limit(messages)],
                |row| row.get(0),
            )?;
            Ok(row.map(|row| (row, said)))
        };
        let Some((row, said)) = self.readers.read(read).await? else {
            return Ok(None);
        };
        let ((state_data, metadata), (version, created_at, updated_at), turn) = row;
        let what = || format!("the state of agent {agent}");
        let json = |text: Option<String>| text.map_or(Ok(Value::Null), |text| decode(what, &text));
        Ok(Some(AgentState {
            state_data: json(state_data)?,
            metadata: json(metadata)?,
            messages: said
                .iter()
                .rev()
                .map(|text| decode(what, text))
                .collect::<Result<_>>()?,
            version: counted(version),
            created_at: time(created_at)?,
            updated_at: time(updated_at)?,
            turn: turn.map(id),
        }))
    }

    pub(super) async fn change(&self, change: StateChange) -> Result<StateChanged> {
        let prepared = Prepared::new(change, self.packing)?;
        self.writer.write(move |tx| prepared.write(tx)).await
    }
}

/// A change as it will be written.
struct Prepared {
    agent: String,
    key: String,
    expected: Option<u64>,
    now: Time,
    is_about_messages: bool,
    is_removal: bool,
    is_replacement: bool,
    state_data: Option<String>,
    metadata: Option<String>,
    messages: Vec<String>,
    keep: Option<u32>,
}

impl Prepared {
    fn new(given: StateChange, packing: Packing) -> Result<Self> {
        let is_about_messages = given.change.is_about_messages();
        let is_removal = matches!(given.change, Change::Remove);
        let (state_data, metadata, messages, keep, is_replacement) = match given.change {
            Change::Write {
                state_data,
                metadata,
                messages,
            } => {
                let is_replacement = messages.is_some();
                (
                    state_data,
                    metadata,
                    messages.unwrap_or_default(),
                    None,
                    is_replacement,
                )
            }
            Change::Append { messages, keep } => (None, None, messages, keep, false),
            Change::Remove => (None, None, Vec::new(), None, false),
        };
        let json = |value: Option<Value>| {
            value
                .map(|value| packing.encode("the state", &value))
                .transpose()
        };
        let messages = messages
            .iter()
            .map(|message| packing.encode("the message", message));
        Ok(Self {
            agent: given.agent.into(),
            key: given.conversation.map(String::from).unwrap_or_default(),
            expected: given.expected,
            now: given.now,
            is_about_messages,
            is_removal,
            is_replacement,
            state_data: json(state_data)?,
            metadata: json(metadata)?,
            messages: messages.collect::<Result<_>>()?,
            keep,
        })
    }

    fn write(&self, tx: &mut Tx<'_>) -> Outcome<StateChanged> {
        let row = tx.conn.first(
            "SELECT version, (SELECT id FROM executions WHERE id = turn AND finished_at IS NULL)
             FROM conversations WHERE agent_name = ?1 AND conversation_id = ?2",
            params![self.agent, self.key],
            |row| Ok((row.get::<_, i64>(0)?, row.get::<_, Option<[u8; 16]>>(1)?)),
        )?;
        let (version, turn) = row.unwrap_or_default();
        let version = counted(version);
        if self.expected.is_some_and(|expected| expected != version) {
            return Ok(StateChanged::Conflict { version });
        }
        if let Some(turn) = turn.filter(|_| self.is_about_messages) {
            return Ok(StateChanged::Busy(id(turn)));
        }
        if self.is_removal || self.is_replacement {
            tx.conn.run(
                "DELETE FROM messages WHERE agent_name = ?1 AND conversation_id = ?2",
                params![self.agent, self.key],
            )?;
        }
        if self.is_removal {
            tx.conn.run(
                "DELETE FROM conversations WHERE agent_name = ?1 AND conversation_id = ?2",
                params![self.agent, self.key],
            )?;
            return Ok(StateChanged::Done { version: 0 });
        }
        self.put(tx)?;
        Ok(StateChanged::Done {
            version: version + 1,
        })
    }

    fn put(&self, tx: &Tx<'_>) -> Outcome<()> {
        let (now, added) = (micros(self.now), limit(self.messages.len()));
        let last: Option<i64> = tx.conn.first(
            "INSERT INTO conversations (agent_name, conversation_id, created_at, updated_at, messages, version,
                 state_data, metadata)
             VALUES (?1, ?2, ?3, ?3, ?4, 1, ?5, ?6)
             ON CONFLICT DO UPDATE SET updated_at = ?3, messages = messages + ?4, version = version + 1,
                 state_data = coalesce(?5, state_data), metadata = coalesce(?6, metadata)
             RETURNING messages",
            params![self.agent, self.key, now, added, self.state_data, self.metadata],
            |row| row.get(0),
        )?;
        let last = last.unwrap_or(added);
        for (seq, message) in (last - added + 1..).zip(&self.messages) {
            tx.conn.run(
                "INSERT INTO messages (agent_name, conversation_id, seq, execution_id, created_at, message)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![self.agent, self.key, seq, NOBODY, now, message],
            )?;
        }
        if let Some(keep) = self.keep {
            tx.conn.run(
                "DELETE FROM messages WHERE agent_name = ?1 AND conversation_id = ?2 AND seq <= ?3",
                params![self.agent, self.key, last - i64::from(keep)],
            )?;
        }
        Ok(())
    }
}
