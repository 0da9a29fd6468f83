//! What is kept under the name of a conversation, or of an agent.

use domain::{AgentName, ConversationId, ExecutionId, Time};
use serde_json::Value;
use uuid::Uuid;

use super::Postgres;
use super::connection::Conn;
use super::fault::Outcome;
use super::sql::{counted, decode, get, limit};
use crate::{AgentState, Change, Result, StateChange, StateChanged};

impl Postgres {
    pub(super) async fn kept(
        &self,
        agent: &AgentName,
        conversation: Option<&ConversationId>,
        messages: usize,
    ) -> Result<Option<AgentState>> {
        let name = agent.as_str();
        let key = conversation.map_or("", |id| id.as_str());
        let mut conn = self.pool.get().await?;
        // One statement, so one moment: the messages of this version.
        let row = conn
            .first(
                "SELECT c.state_data, c.metadata, c.version, c.created_at, c.updated_at,
                     (SELECT e.id FROM executions e WHERE e.id = c.turn AND e.finished_at IS NULL),
                     ARRAY (
                         SELECT m.message FROM (
                             SELECT seq, message FROM messages
                             WHERE agent_name = $1 AND conversation_id = $2 ORDER BY seq DESC LIMIT $3
                         ) AS m ORDER BY m.seq
                     )
                 FROM conversations c WHERE c.agent_name = $1 AND c.conversation_id = $2",
                &[&name, &key, &limit(messages)],
            )
            .await?;
        let Some(row) = row else { return Ok(None) };
        let what = || format!("the state of agent {agent}");
        let json = |column: usize| -> Result<Value> {
            let text: Option<String> = get(&row, column)?;
            text.map_or(Ok(Value::Null), |text| decode(what, &text))
        };
        let said: Vec<String> = get(&row, 6)?;
        let turn: Option<Uuid> = get(&row, 5)?;
        Ok(Some(AgentState {
            state_data: json(0)?,
            metadata: json(1)?,
            messages: said
                .iter()
                .map(|text| decode(what, text))
                .collect::<Result<_>>()?,
            version: counted(get(&row, 2)?),
            created_at: get(&row, 3)?,
            updated_at: get(&row, 4)?,
            turn: turn.map(ExecutionId::from_uuid),
        }))
    }

    pub(super) async fn change(&self, given: StateChange) -> Result<StateChanged> {
        let packing = self.packing;
        let json = |value: Option<Value>| {
            value
                .map(|value| packing.encode("the state", &value))
                .transpose()
        };
        let is_about_messages = given.change.is_about_messages();
        let is_removal = matches!(given.change, Change::Remove);
        let mut put = Put {
            agent: given.agent.as_str(),
            key: given.conversation.as_ref().map_or("", |id| id.as_str()),
            now: given.now,
            ..Put::default()
        };
        let messages = match given.change {
            Change::Write {
                state_data,
                metadata,
                messages,
            } => {
                put.state_data = json(state_data)?;
                put.metadata = json(metadata)?;
                put.is_replacement = messages.is_some();
                messages.unwrap_or_default()
            }
            Change::Append { messages, keep } => {
                put.keep = keep;
                messages
            }
            Change::Remove => Vec::new(),
        };
        let messages = messages
            .iter()
            .map(|message| packing.encode("the message", message));
        put.messages = messages.collect::<Result<_>>()?;
        let mut conn = self.pool.get().await?;
        conn.begin();
        // It is there from now on, so that it can be locked.
        let row = conn
            .first(
                "INSERT INTO conversations AS c (agent_name, conversation_id, created_at, updated_at, messages)
                 VALUES ($1, $2, $3, $3, 0)
                 ON CONFLICT (agent_name, conversation_id) DO UPDATE SET updated_at = c.updated_at
                 RETURNING version, turn",
                &[&put.agent, &put.key, &put.now],
            )
            .await?;
        let (version, turn): (i64, Option<Uuid>) = match &row {
            Some(row) => (get(row, 0)?, get(row, 1)?),
            None => (0, None),
        };
        let version = counted(version);
        let answer = if given.expected.is_some_and(|expected| expected != version) {
            StateChanged::Conflict { version }
        } else if let Some(turn) = turn
            && is_about_messages
            && is_unfinished(&mut conn, turn).await?
        {
            StateChanged::Busy(ExecutionId::from_uuid(turn))
        } else if is_removal {
            put.remove(&mut conn).await?;
            StateChanged::Done { version: 0 }
        } else {
            put.write(&mut conn).await?;
            StateChanged::Done {
                version: version + 1,
            }
        };
        if matches!(answer, StateChanged::Done { .. }) {
            conn.commit().await?;
        } else {
            conn.roll_back().await?;
        }
        Ok(answer)
    }
}

async fn is_unfinished(conn: &mut Conn, id: Uuid) -> Outcome<bool> {
    conn.run(
        "SELECT 1 FROM executions WHERE id = $1 AND finished_at IS NULL",
        &[&id],
    )
    .await
}

/// What is written.
#[derive(Default)]
struct Put<'a> {
    agent: &'a str,
    key: &'a str,
    now: Time,
    is_replacement: bool,
    state_data: Option<String>,
    metadata: Option<String>,
    messages: Vec<String>,
    keep: Option<u32>,
}

impl Put<'_> {
    async fn remove_messages(&self, conn: &mut Conn, up_to: i64) -> Outcome<()> {
        conn.run(
            "DELETE FROM messages WHERE agent_name = $1 AND conversation_id = $2 AND seq <= $3",
            &[&self.agent, &self.key, &up_to],
        )
        .await?;
        Ok(())
    }

    async fn remove(&self, conn: &mut Conn) -> Outcome<()> {
        self.remove_messages(conn, i64::MAX).await?;
        conn.run(
            "DELETE FROM conversations WHERE agent_name = $1 AND conversation_id = $2",
            &[&self.agent, &self.key],
        )
        .await?;
        Ok(())
    }

    async fn write(&self, conn: &mut Conn) -> Outcome<()> {
        if self.is_replacement {
            self.remove_messages(conn, i64::MAX).await?;
        }
        let added = limit(self.messages.len());
        let row = conn
            .first(
                "WITH talk AS (
                     UPDATE conversations SET updated_at = $3, messages = messages + $4, version = version + 1,
                         state_data = coalesce($5, state_data), metadata = coalesce($6, metadata)
                     WHERE agent_name = $1 AND conversation_id = $2
                     RETURNING messages
                 ), said AS (
                     INSERT INTO messages (agent_name, conversation_id, seq, execution_id, created_at, message)
                     SELECT $1, $2, talk.messages - $4 + m.n, $8, $3, m.message
                     FROM talk, unnest($7::text[]) WITH ORDINALITY AS m (message, n)
                 )
                 SELECT messages FROM talk",
                &[
                    &self.agent,
                    &self.key,
                    &self.now,
                    &added,
                    &self.state_data,
                    &self.metadata,
                    &self.messages,
                    &Uuid::nil(),
                ],
            )
            .await?;
        let last: i64 = row.map_or(Ok(added), |row| get(&row, 0))?;
        if let Some(keep) = self.keep {
            self.remove_messages(conn, last - i64::from(keep)).await?;
        }
        Ok(())
    }
}
