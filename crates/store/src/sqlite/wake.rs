//! What comes to an execution from outside: a wish that it end, a person's answer, the end of a child.

use domain::decide::Cancel;
use domain::execution::Totals;
use domain::{ExecutionId, Money, Status, Time, Tokens, Usage};
use rusqlite::{Connection, params};

use super::Sqlite;
use super::fault::Outcome;
use super::finish::UnownedEnding;
use super::sql::{Sql, counted, encode, id as execution_id, key, micros, parse};
use super::writer::Tx;
use crate::news::{RawInput, Request, Settled, ended, settle, told_to_family};
use crate::{CancelAnswer, InputAnswer, NewInput, Result, Waiting};

/// What has come, as rows tell it.
#[derive(Debug, Default)]
pub(super) struct RawWaiting {
    wakes: u64,
    cancel: Option<Cancel>,
    inputs: Vec<RawInput>,
    children: Vec<([u8; 16], Option<String>, Totals)>,
}

impl RawWaiting {
    /// What the execution's row tells; [`load`] adds the rest.
    pub(super) fn new(wakes: i64, by: Option<String>, reason: Option<String>) -> Self {
        let reason = reason.unwrap_or_default();
        Self {
            wakes: counted(wakes),
            cancel: by.map(|by| Cancel { by, reason }),
            ..Self::default()
        }
    }

    /// What it means.
    pub(super) fn read(self, id: ExecutionId) -> Result<Waiting> {
        let inputs = self.inputs.into_iter().map(|input| input.read(id));
        let children = self
            .children
            .into_iter()
            .map(|(child, outcome, totals)| ended(execution_id(child), outcome.as_deref(), totals));
        Ok(Waiting {
            wakes: self.wakes,
            cancel: self.cancel,
            inputs: inputs.collect::<Result<_>>()?,
            children: children.collect::<Result<_>>()?,
        })
    }
}

/// Wakes an execution: at once if it is parked, or its owner at the next renewal.
pub(super) fn wake(tx: &mut Tx<'_>, execution: [u8; 16], now: i64) -> Outcome<()> {
    let is_parked = tx.conn.first(
        "UPDATE executions SET wakes = wakes + 1, due_at = iif(worker IS NULL, min(due_at, ?2), due_at)
         WHERE id = ?1 AND finished_at IS NULL
         RETURNING worker IS NULL",
        params![execution, now],
        |row| row.get::<_, bool>(0),
    )?;
    tx.has_work |= is_parked.unwrap_or(false);
    Ok(())
}

/// Asks for the end of all that an ended execution had started: nobody waits for it any more.
pub(super) fn end_children(tx: &mut Tx<'_>, parent: [u8; 16], why: &str, now: i64) -> Outcome<()> {
    let children: Vec<[u8; 16]> = tx.conn.all(
        "SELECT id FROM executions WHERE parent_id = ?1 AND finished_at IS NULL",
        params![parent],
        |row| row.get(0),
    )?;
    let wish = Cancel {
        by: "its parent".to_owned(),
        reason: why.to_owned(),
    };
    for child in children {
        if note_wish(tx, child, &wish)? {
            wake(tx, child, now)?;
        }
    }
    Ok(())
}

/// Adds the answers and ended children to what is known to have come.
pub(super) fn load(
    conn: &Connection,
    execution: [u8; 16],
    waiting: &mut RawWaiting,
) -> Outcome<()> {
    waiting.inputs = conn.all(
        "SELECT request, answer, coalesce(answered_by, '') FROM inputs
         WHERE execution_id = ?1 AND answer IS NOT NULL AND consumed = 0 ORDER BY request",
        params![execution],
        raw_input,
    )?;
    // CROSS JOIN: what the family is goes first. Left to itself SQLite may look through all executions for a family of none.
    waiting.children = conn.all(
        "WITH RECURSIVE family (child, id, ended) AS (
             SELECT id, id, finished_at FROM executions WHERE parent_id = ?1 AND finished_at IS NOT NULL
             UNION ALL
             SELECT family.child, e.id, family.ended FROM family CROSS JOIN executions e ON e.parent_id = family.id
         )
         SELECT family.child, outcome, sum(input_tokens), sum(output_tokens), sum(cached_tokens), sum(cost_nanos),
             sum(model_calls), sum(tool_calls)
         FROM family CROSS JOIN executions e ON e.id = family.id
             LEFT JOIN execution_results ON execution_id = family.child
         GROUP BY family.child ORDER BY family.ended, family.child",
        params![execution],
        |row| {
            let small = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
            let totals = Totals {
                usage: Usage {
                    input_tokens: Tokens(counted(row.get(2)?)),
                    output_tokens: Tokens(counted(row.get(3)?)),
                    cached_tokens: Tokens(counted(row.get(4)?)),
                },
                cost_usd: Money::from_nanos(counted(row.get(5)?)),
                model_calls: small(row.get(6)?),
                tool_calls: small(row.get(7)?),
            };
            Ok((row.get(0)?, row.get(1)?, totals))
        },
    )?;
    Ok(())
}

fn raw_input(row: &rusqlite::Row<'_>) -> rusqlite::Result<RawInput> {
    Ok(RawInput {
        request: row.get(0)?,
        answer: row.get(1)?,
        by: row.get(2)?,
    })
}

impl Sqlite {
    pub(super) async fn news_of(&self, id: ExecutionId) -> Result<Waiting> {
        let read = move |conn: &Connection| {
            // One look at one moment: the count of wake-ups must not be newer than what woke.
            let tx = conn.unchecked_transaction()?;
            let found = tx.first(
                "SELECT wakes, cancel_by, cancel_reason FROM executions WHERE id = ?1",
                params![key(id)],
                |row| Ok(RawWaiting::new(row.get(0)?, row.get(1)?, row.get(2)?)),
            )?;
            let mut waiting = found.unwrap_or_default();
            load(&tx, key(id), &mut waiting)?;
            Ok(waiting)
        };
        self.readers.read(read).await?.read(id)
    }

    pub(super) async fn ask_to_end(
        &self,
        id: ExecutionId,
        by: &str,
        reason: &str,
        now: Time,
    ) -> Result<CancelAnswer> {
        let wish = Cancel {
            by: by.to_owned(),
            reason: reason.to_owned(),
        };
        let at_once = UnownedEnding::new(
            domain::Outcome::Cancelled {
                by: wish.by.clone(),
                reason: wish.reason.clone(),
            },
            self.packing,
        )?;
        let cancel = move |tx: &mut Tx<'_>| cancel(tx, key(id), &wish, &at_once, micros(now));
        self.writer.write(cancel).await
    }

    pub(super) async fn answer(&self, input: NewInput) -> Result<InputAnswer> {
        let answer = encode("the answer", &input.answer)?;
        self.writer
            .write(move |tx| deliver(tx, &input, &answer))
            .await
    }
}

fn status(tx: &Tx<'_>, execution: [u8; 16]) -> Outcome<Option<Status>> {
    let word: Option<String> = tx.conn.first(
        "SELECT status FROM executions WHERE id = ?1",
        params![execution],
        |row| row.get(0),
    )?;
    Ok(word.map(|word| parse("a status", &word)).transpose()?)
}

fn cancel(
    tx: &mut Tx<'_>,
    execution: [u8; 16],
    wish: &Cancel,
    at_once: &UnownedEnding,
    now: i64,
) -> Outcome<CancelAnswer> {
    match status(tx, execution)? {
        None => Ok(CancelAnswer::NotFound),
        Some(over) if over.is_terminal() => Ok(CancelAnswer::AlreadyOver(over)),
        // Whoever claims it makes it running: nobody has begun it.
        Some(Status::Queued) => {
            note_wish(tx, execution, wish)?;
            at_once.write(tx, execution, now)?;
            Ok(CancelAnswer::Accepted)
        }
        Some(_) => {
            // The first wish counts; repeating it wakes nobody again.
            if note_wish(tx, execution, wish)? {
                wake(tx, execution, now)?;
            }
            cancel_family(tx, execution, wish, now)?;
            Ok(CancelAnswer::Accepted)
        }
    }
}

/// Asks for the end of all that work for an execution, so that none of them begins anything should its own end be late.
fn cancel_family(tx: &mut Tx<'_>, execution: [u8; 16], wish: &Cancel, now: i64) -> Outcome<()> {
    let family: Vec<[u8; 16]> = tx.conn.all(
        "WITH RECURSIVE family (id) AS (
             SELECT id FROM executions WHERE parent_id = ?1
             UNION ALL
             SELECT e.id FROM family CROSS JOIN executions e ON e.parent_id = family.id
         )
         SELECT e.id FROM family CROSS JOIN executions e ON e.id = family.id WHERE e.finished_at IS NULL",
        params![execution],
        |row| row.get(0),
    )?;
    let wish = Cancel {
        by: "its parent".to_owned(),
        reason: told_to_family(wish),
    };
    for member in family {
        if note_wish(tx, member, &wish)? {
            wake(tx, member, now)?;
        }
    }
    Ok(())
}

fn note_wish(tx: &Tx<'_>, execution: [u8; 16], wish: &Cancel) -> Outcome<bool> {
    let noted = tx.conn.run(
        "UPDATE executions SET cancel_by = ?2, cancel_reason = ?3 WHERE id = ?1 AND cancel_by IS NULL",
        params![execution, wish.by, wish.reason],
    )?;
    Ok(noted == 1)
}

fn deliver(tx: &mut Tx<'_>, input: &NewInput, answer: &str) -> Outcome<InputAnswer> {
    let (execution, now) = (key(input.id), micros(input.now));
    let Some(status) = status(tx, execution)? else {
        return Ok(InputAnswer::NotFound);
    };
    let request = match settle(input, status, requests(tx, execution)?)? {
        Settled::Answered(answer) => return Ok(answer),
        Settled::Takes(request) => request,
    };
    tx.conn.run(
        "UPDATE inputs SET answer = ?3, answered_by = ?4, answered_at = ?5 WHERE execution_id = ?1 AND request = ?2",
        params![execution, request.get(), answer, input.by, now],
    )?;
    wake(tx, execution, now)?;
    Ok(InputAnswer::Accepted { request })
}

fn requests(tx: &Tx<'_>, execution: [u8; 16]) -> Outcome<Vec<Request>> {
    tx.conn.all(
        "SELECT request, answer, coalesce(answered_by, ''), question, until, consumed FROM inputs
         WHERE execution_id = ?1 ORDER BY request",
        params![execution],
        |row| {
            let answer: Option<String> = row.get(1)?;
            let (seq, by) = (row.get(0)?, row.get(2)?);
            Ok(Request {
                seq,
                question: row.get(3)?,
                until: row.get(4)?,
                is_consumed: row.get(5)?,
                answer: answer.map(|answer| RawInput {
                    request: seq,
                    answer,
                    by,
                }),
            })
        },
    )
}
