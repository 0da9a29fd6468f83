//! Whose turn it is in a conversation: its executions are performed in order, one at a time.

use domain::ExecutionId;
use rusqlite::params;

use super::Sqlite;
use super::fault::Outcome;
use super::sql::{Sql, id as execution_id, key};
use super::writer::Tx;
use crate::{Result, Submitted, WhenBusy};

/// What the row of an execution says that waits for its turn.
pub(super) const WAITS: &str = "waits for its turn in its conversation";

/// A conversation's name: its agent, and its own.
type Name<'a> = (&'a str, &'a str);

/// A place in the order of a conversation.
#[derive(Debug, Clone, Copy)]
pub(super) struct Seat {
    pub(super) place: i64,
    pub(super) waits: bool,
}

/// How far a conversation is.
struct Progress {
    turn: Option<[u8; 16]>,
    turn_place: i64,
    places: i64,
    /// Whether the one whose turn it is said to be is there and not over.
    is_busy: bool,
}

/// The next place in a conversation, or why there is none.
pub(super) fn seat(
    tx: &mut Tx<'_>,
    name: Name<'_>,
    when_busy: WhenBusy,
    now: i64,
) -> Outcome<Result<Seat, Submitted>> {
    let mut progress = progress(tx, name)?;
    if let Some((Some(over), false)) = progress.as_ref().map(|p| (p.turn, p.is_busy)) {
        // Ended by a program of before, or by hand: the next one was not told.
        release(tx, name, over, now)?;
        progress = self::progress(tx, name)?;
    }
    let Some(progress) = progress else {
        return Ok(Ok(Seat {
            place: 1,
            waits: false,
        }));
    };
    let seat = Seat {
        place: progress.places + 1,
        waits: progress.turn.is_some(),
    };
    match (progress.turn, when_busy) {
        (None, _) => {}
        (Some(turn), WhenBusy::Refuse) => {
            return Ok(Err(Submitted::Busy(execution_id(turn))));
        }
        (Some(_), WhenBusy::Queue { most }) => {
            // Places are given up in the middle as well, so this is only how many wait at most.
            if progress.places - progress.turn_place >= i64::from(most) {
                let waiting = waiting(tx, name)?;
                if waiting >= most {
                    return Ok(Err(Submitted::Full { waiting }));
                }
            }
        }
    }
    Ok(Ok(seat))
}

/// Gives an accepted execution its seat.
pub(super) fn sit_down(
    tx: &Tx<'_>,
    (agent, conversation): Name<'_>,
    execution: [u8; 16],
    seat: Seat,
    now: i64,
) -> Outcome<()> {
    let turn = (!seat.waits).then_some(execution);
    let turn_place = turn.map(|_| seat.place);
    tx.conn.run(
        "INSERT INTO conversations (agent_name, conversation_id, created_at, updated_at, messages, places, turn,
             turn_place)
         VALUES (?1, ?2, ?3, ?3, 0, ?4, ?5, ?6)
         ON CONFLICT DO UPDATE SET updated_at = max(updated_at, ?3), places = ?4, turn = coalesce(?5, turn),
             turn_place = coalesce(?6, turn_place)",
        params![agent, conversation, now, seat.place, turn, turn_place],
    )?;
    Ok(())
}

/// Gives the turn to the next one, if it was that of an execution that is over.
pub(super) fn release(
    tx: &mut Tx<'_>,
    (agent, conversation): Name<'_>,
    over: [u8; 16],
    now: i64,
) -> Outcome<()> {
    let had_turn = tx.conn.run(
        "UPDATE conversations SET turn = NULL, turn_place = NULL
         WHERE agent_name = ?1 AND conversation_id = ?2 AND turn = ?3",
        params![agent, conversation, over],
    )?;
    if had_turn == 0 {
        return Ok(());
    }
    let next = tx.conn.first(
        "SELECT id, place FROM executions
         WHERE agent_name = ?1 AND conversation_id = ?2 AND waits_turn = 1 AND finished_at IS NULL
         ORDER BY place LIMIT 1",
        params![agent, conversation],
        |row| Ok((row.get::<_, [u8; 16]>(0)?, row.get::<_, i64>(1)?)),
    )?;
    let Some((next, place)) = next else {
        return Ok(());
    };
    tx.conn.run(
        "UPDATE executions SET waits_turn = 0, status_reason = NULL, due_at = iif(worker IS NULL, min(due_at, ?2), due_at)
         WHERE id = ?1",
        params![next, now],
    )?;
    tx.conn.run(
        "UPDATE conversations SET turn = ?3, turn_place = ?4 WHERE agent_name = ?1 AND conversation_id = ?2",
        params![agent, conversation, next, place],
    )?;
    tx.has_work = true;
    Ok(())
}

fn progress(tx: &Tx<'_>, (agent, conversation): Name<'_>) -> Outcome<Option<Progress>> {
    tx.conn.first(
        "SELECT turn, coalesce(turn_place, 0), places,
             EXISTS (SELECT 1 FROM executions WHERE id = turn AND finished_at IS NULL)
         FROM conversations WHERE agent_name = ?1 AND conversation_id = ?2",
        params![agent, conversation],
        |row| {
            Ok(Progress {
                turn: row.get(0)?,
                turn_place: row.get(1)?,
                places: row.get(2)?,
                is_busy: row.get(3)?,
            })
        },
    )
}

fn waiting(tx: &Tx<'_>, (agent, conversation): Name<'_>) -> Outcome<u32> {
    let waiting = tx.conn.first(
        "SELECT count(*) FROM executions
         WHERE agent_name = ?1 AND conversation_id = ?2 AND waits_turn = 1 AND finished_at IS NULL",
        params![agent, conversation],
        |row| row.get(0),
    )?;
    Ok(waiting.unwrap_or_default())
}

impl Sqlite {
    pub(super) async fn before(&self, id: ExecutionId) -> Result<Vec<ExecutionId>> {
        let read = move |conn: &rusqlite::Connection| {
            conn.all(
                "WITH this AS (SELECT agent_name, conversation_id, place FROM executions WHERE id = ?1)
                 SELECT e.id FROM this JOIN executions e
                     ON e.agent_name = this.agent_name AND e.conversation_id = this.conversation_id
                         AND e.place < this.place AND e.waits_turn = 1 AND e.finished_at IS NULL
                 UNION ALL
                 SELECT e.id FROM this JOIN conversations c
                     ON c.agent_name = this.agent_name AND c.conversation_id = this.conversation_id
                 JOIN executions e ON e.id = c.turn AND e.finished_at IS NULL AND e.place < this.place",
                params![key(id)],
                |row| row.get(0),
            )
        };
        let ids: Vec<[u8; 16]> = self.readers.read(read).await?;
        Ok(ids.into_iter().map(execution_id).collect())
    }
}
