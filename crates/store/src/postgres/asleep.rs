//! Many conversations that wait for their next message, as valid rows: for measuring what they cost.

use std::time::Duration;

use domain::{AgentName, Message};

use super::connection::{Conn, Role};
use super::settings::{Server, Settings};
use super::sql::{count, encode, small};
use crate::Result;

/// How many conversations are made in one transaction.
const CHUNK: u64 = 10_000;
/// How long that may take.
const PATIENCE: Duration = Duration::from_secs(600);

/// Conversations to be made.
#[derive(Debug, Clone, Copy)]
pub struct Asleep<'a> {
    /// With whom.
    pub agent: &'a AgentName,
    /// How their names begin; the rest is a number from 0.
    pub prefix: &'a str,
    /// How many.
    pub conversations: u64,
    /// Every so many-th, from the first on, is a long one.
    pub long_one_in: u64,
    /// How many messages a long one has, and any other.
    pub messages: (u32, u32),
    /// What was said, in turn.
    pub said: &'a [Message; 2],
}

/// Makes them.
///
/// # Errors
/// The database can't be written; what was made before stays.
pub async fn fill_asleep(settings: &Settings, asleep: Asleep<'_>) -> Result<()> {
    let settings = Settings {
        statement_timeout: PATIENCE,
        ..settings.clone()
    };
    let server = Server::new(&settings)?;
    let mut conn = Conn::open(&server, Role::General).await?;
    conn.script("SET synchronous_commit = off").await?;
    let [first, second] = asleep.said;
    let (first, second) = (
        encode("the message", first)?,
        encode("the message", second)?,
    );
    let (long, short) = asleep.messages;
    let mut from = 0;
    while from < asleep.conversations {
        let to = (from + CHUNK).min(asleep.conversations);
        conn.run(
            "WITH made AS (
                 INSERT INTO conversations (agent_name, conversation_id, created_at, updated_at, messages, places, version)
                 SELECT $1::text, $2::text || n, now(), now(), m, m / 2, m / 2
                 FROM generate_series($3::bigint, $4::bigint - 1) AS n,
                     LATERAL (SELECT CASE WHEN n % $5::bigint = 0 THEN $6::int ELSE $7::int END) AS r (m)
                 RETURNING conversation_id, messages
             )
             INSERT INTO messages (agent_name, conversation_id, seq, execution_id, created_at, message)
             SELECT $1, conversation_id, seq, gen_random_uuid(), now(), CASE WHEN seq % 2 = 1 THEN $8::text ELSE $9::text END
             FROM made, generate_series(1, messages) AS seq",
            &[
                &asleep.agent.as_str(),
                &asleep.prefix,
                &count(from),
                &count(to),
                &count(asleep.long_one_in.max(1)),
                &small(long),
                &small(short),
                &first,
                &second,
            ],
        )
        .await?;
        from = to;
    }
    // What follows is to be measured, not the writing of these rows.
    for table in ["conversations", "messages"] {
        conn.script(&format!("VACUUM (ANALYZE) {table}")).await?;
    }
    conn.script("CHECKPOINT").await?;
    Ok(())
}
