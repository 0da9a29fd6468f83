//! Retention: months in which everything is over go whole; what is left over in others goes a few at a time.

use chrono::NaiveDate;
use domain::Time;
use uuid::Uuid;

use super::Postgres;
use super::connection::Conn;
use super::fault::Outcome;
use super::outgoing;
use super::partitions::{self, Dropped};
use super::sql::{counted, get};
use crate::{Cleaned, Cleanup, Result};

/// How many rows of executions, or of events that started some, go in one transaction.
const CHUNK: usize = 500;
/// How many go in one call.
const MOST: u64 = 10_000;

/// What is over, and whose parent does not go on. The creation is named for its index.
const OLD: &str = "e.created_at < $1 AND e.finished_at < $1 AND NOT EXISTS (
    SELECT 1 FROM executions p WHERE p.id = e.parent_id AND p.finished_at IS NULL)";

/// What has been silent since: nobody has the turn in it, so nobody waits for it.
const SILENT: &str = "updated_at < $1 AND turn IS NULL";

impl Postgres {
    pub(super) async fn forget(&self, cleanup: Cleanup) -> Result<Cleaned> {
        let mut conn = self.pool.get().await?;
        let mut cleaned = Cleaned::default();
        let mut leftovers = vec!["executions_other".to_owned()];
        for month in partitions::before(&mut conn, cleanup.before).await? {
            match partitions::drop_one(&mut conn, month, cleanup.dry_run).await? {
                Dropped::Whole(executions) => {
                    cleaned.executions += executions;
                    cleaned.months.push(named(month));
                }
                // Something in it goes on; the rest of it need not wait for that.
                Dropped::IsOpen => leftovers.push(partitions::name("executions", month)),
            }
        }
        for table in &leftovers {
            if cleanup.dry_run {
                cleaned.executions += count_old(&mut conn, table, cleanup.before).await?;
            } else {
                forget_old(&mut conn, table, cleanup.before, &mut cleaned).await?;
            }
        }
        if !cleaned.months.is_empty() && !cleanup.dry_run {
            cleaned.has_more |= forget_starters(&mut conn, cleanup.before).await?;
            cleaned.has_more |= forget_shared(&mut conn, cleanup.before).await?;
        }
        if cleanup.dry_run {
            cleaned.conversations =
                count(&mut conn, "conversations", SILENT, cleanup.before).await?;
            cleaned.dead_letters =
                count(&mut conn, "dead_letters", "at < $1", cleanup.before).await?;
        } else {
            outgoing::forget(&mut conn, cleanup.before).await?;
            forget_silent(&mut conn, cleanup.before, &mut cleaned).await?;
        }
        Ok(cleaned)
    }
}

pub(super) fn named(month: NaiveDate) -> String {
    month.format("%Y-%m").to_string()
}

async fn count_old(conn: &mut Conn, table: &str, before: Time) -> Outcome<u64> {
    let sql = format!("SELECT count(*) FROM {table} e WHERE {OLD}");
    let rows = conn.query(&sql, &[&before]).await?;
    Ok(counted(rows.first().map_or(Ok(0), |row| get(row, 0))?))
}

async fn forget_old(
    conn: &mut Conn,
    table: &str,
    before: Time,
    cleaned: &mut Cleaned,
) -> Outcome<()> {
    let sql = format!("SELECT e.id FROM {table} e WHERE {OLD} ORDER BY e.created_at LIMIT {CHUNK}");
    loop {
        if cleaned.executions >= MOST {
            cleaned.has_more = true;
            return Ok(());
        }
        let rows = conn.query(&sql, &[&before]).await?;
        let ids: Vec<Uuid> = rows.iter().map(|row| get(row, 0)).collect::<Outcome<_>>()?;
        if !ids.is_empty() {
            cleaned.executions += forget_these(conn, &ids).await?;
        }
        if ids.len() < CHUNK {
            return Ok(());
        }
    }
}

/// Deletes executions that are over. A state that is over never changes, so nothing can have come between; another
/// process may have deleted them first.
async fn forget_these(conn: &mut Conn, ids: &[Uuid]) -> Outcome<u64> {
    conn.begin();
    conn.run(
        "DELETE FROM execution_events v USING executions e
         WHERE e.id = ANY ($1) AND v.agent_name = e.agent_name AND v.event_id = e.event_id",
        &[&ids],
    )
    .await?;
    for sql in [
        "DELETE FROM execution_specs WHERE execution_id = ANY ($1)",
        "DELETE FROM steps WHERE execution_id = ANY ($1)",
        "DELETE FROM execution_results WHERE execution_id = ANY ($1)",
        "DELETE FROM inputs WHERE execution_id = ANY ($1)",
        "DELETE FROM shared_state WHERE team = ANY ($1)",
        // That of an end has its execution's id.
        "DELETE FROM deliveries WHERE id = ANY ($1)",
    ] {
        conn.run(sql, &[&ids]).await?;
    }
    let gone = conn
        .all(
            "DELETE FROM executions WHERE id = ANY ($1) RETURNING id",
            &[&ids],
        )
        .await?;
    conn.commit().await?;
    Ok(gone.len() as u64)
}

/// Forgets which events started executions that went with their months; tells whether there are more.
async fn forget_starters(conn: &mut Conn, before: Time) -> Outcome<bool> {
    let end = partitions::least_id(before);
    let mut gone = 0;
    while gone < MOST {
        let rows = conn
            .all(
                "DELETE FROM execution_events WHERE ctid = ANY (ARRAY(
                     SELECT v.ctid FROM execution_events v
                     WHERE v.execution_id < $1
                         AND NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = v.execution_id)
                     LIMIT $2))
                 RETURNING 1",
                &[&end, &(CHUNK as i64)],
            )
            .await?;
        gone += rows.len() as u64;
        if rows.len() < CHUNK {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Forgets what teams shared whose executions went with their months; tells whether there is more.
async fn forget_shared(conn: &mut Conn, before: Time) -> Outcome<bool> {
    let end = partitions::least_id(before);
    let mut gone = 0;
    while gone < MOST {
        let rows = conn
            .all(
                "DELETE FROM shared_state WHERE ctid = ANY (ARRAY(
                     SELECT s.ctid FROM shared_state s
                     WHERE s.team < $1 AND NOT EXISTS (SELECT 1 FROM executions e WHERE e.id = s.team)
                     LIMIT $2))
                 RETURNING 1",
                &[&end, &(CHUNK as i64)],
            )
            .await?;
        gone += rows.len() as u64;
        if rows.len() < CHUNK {
            return Ok(false);
        }
    }
    Ok(true)
}

async fn count(conn: &mut Conn, table: &str, old: &str, before: Time) -> Outcome<u64> {
    let sql = format!("SELECT count(*) FROM {table} WHERE {old}");
    let rows = conn.query(&sql, &[&before]).await?;
    Ok(counted(rows.first().map_or(Ok(0), |row| get(row, 0))?))
}

/// Forgets dead letters, and conversations with their messages. A conversation is locked first, as by whoever speaks in it:
/// one in which somebody has just begun to speak stays.
async fn forget_silent(conn: &mut Conn, before: Time, cleaned: &mut Cleaned) -> Outcome<()> {
    let letters = conn
        .all(
            "DELETE FROM dead_letters WHERE id = ANY (ARRAY(
                 SELECT id FROM dead_letters WHERE at < $1 ORDER BY at LIMIT $2)) RETURNING 1",
            &[&before, &(MOST as i64)],
        )
        .await?;
    cleaned.dead_letters = letters.len() as u64;
    loop {
        let row = conn
            .first(
                "WITH silent AS MATERIALIZED (
                     SELECT agent_name, conversation_id FROM conversations
                     WHERE updated_at < $1 AND turn IS NULL
                     ORDER BY agent_name, conversation_id LIMIT $2 FOR UPDATE SKIP LOCKED
                 ), words AS (
                     DELETE FROM messages m USING silent s
                     WHERE m.agent_name = s.agent_name AND m.conversation_id = s.conversation_id
                 ), gone AS (
                     DELETE FROM conversations c USING silent s
                     WHERE c.agent_name = s.agent_name AND c.conversation_id = s.conversation_id RETURNING 1
                 )
                 SELECT count(*) FROM gone",
                &[&before, &(CHUNK as i64)],
            )
            .await?;
        let gone = counted(row.map_or(Ok(0), |row| get(&row, 0))?);
        cleaned.conversations += gone;
        if gone < CHUNK as u64 {
            break;
        }
        if cleaned.conversations >= MOST {
            cleaned.has_more = true;
            break;
        }
    }
    cleaned.has_more |= cleaned.dead_letters >= MOST;
    Ok(())
}
