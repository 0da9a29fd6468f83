//! What comes to an execution from outside: a wish that it end, a person's answer, the end of a child.

use std::collections::HashMap;

use domain::decide::Cancel;
use domain::execution::Totals;
use domain::{ExecutionId, Money, Status, Time, Tokens, Usage};
use tokio_postgres::Row;
use uuid::Uuid;

use super::Postgres;
use super::connection::Conn;
use super::fault::Outcome;
use super::finish::UnownedEnding;
use super::journal;
use super::sql::{counted, encode, get, key, parse, small, smalled, text};
use crate::news::{RawInput, Request, Settled, ended, settle, told_to_family};
use crate::{CancelAnswer, InputAnswer, NewInput, Result, Waiting};

/// What has come, as rows tell it.
#[derive(Debug, Default)]
pub(super) struct RawWaiting {
    id: Uuid,
    wakes: u64,
    cancel: Option<Cancel>,
    inputs: Vec<RawInput>,
    children: Vec<(Uuid, Option<String>, Totals)>,
}

impl RawWaiting {
    /// What the execution's row tells; [`load`] knows the rest.
    pub(super) fn new(wakes: u64, by: Option<String>, reason: Option<String>) -> Self {
        let reason = reason.unwrap_or_default();
        Self {
            wakes,
            cancel: by.map(|by| Cancel { by, reason }),
            ..Self::default()
        }
    }

    /// Adds answers and ended children.
    pub(super) fn add(&mut self, more: Self) {
        self.id = more.id;
        self.inputs.extend(more.inputs);
        self.children.extend(more.children);
    }

    /// What it means.
    pub(super) fn read(self) -> Result<Waiting> {
        let id = ExecutionId::from_uuid(self.id);
        let inputs = self.inputs.into_iter().map(|input| input.read(id));
        let children = self.children.into_iter().map(|(child, outcome, totals)| {
            ended(ExecutionId::from_uuid(child), outcome.as_deref(), totals)
        });
        Ok(Waiting {
            wakes: self.wakes,
            cancel: self.cancel,
            inputs: inputs.collect::<Result<_>>()?,
            children: children.collect::<Result<_>>()?,
        })
    }
}

/// The answers and ended children of executions. Read after the count of wake-ups, so that whatever woke is seen.
pub(super) async fn load(conn: &mut Conn, ids: &[Uuid]) -> Outcome<HashMap<Uuid, RawWaiting>> {
    let mut all: HashMap<Uuid, RawWaiting> = HashMap::new();
    let mut of = |id: Uuid, change: &mut dyn FnMut(&mut RawWaiting)| {
        let waiting = all.entry(id).or_default();
        waiting.id = id;
        change(waiting);
    };
    let inputs = conn
        .all(
            "SELECT execution_id, request, answer, coalesce(answered_by, '') FROM inputs
             WHERE execution_id = ANY ($1) AND answer IS NOT NULL AND NOT consumed ORDER BY execution_id, request",
            &[&ids],
        )
        .await?;
    for row in &inputs {
        let mut input = Some(RawInput {
            request: smalled(get(row, 1)?),
            answer: get(row, 2)?,
            by: get(row, 3)?,
        });
        of(get(row, 0)?, &mut |waiting| {
            waiting.inputs.extend(input.take())
        });
    }
    let children = conn
        .all(
            "WITH RECURSIVE family (parent, child, id, ended) AS (
                 SELECT parent_id, id, id, finished_at FROM executions
                 WHERE parent_id = ANY ($1) AND finished_at IS NOT NULL
                 UNION ALL
                 SELECT f.parent, f.child, e.id, f.ended FROM family f JOIN executions e ON e.parent_id = f.id
             ), consumed AS (
                 SELECT f.parent, f.child, f.ended, sum(e.input_tokens)::bigint AS input, sum(e.output_tokens)::bigint AS output,
                     sum(e.cached_tokens)::bigint AS cached, sum(e.cost_nanos)::bigint AS cost,
                     sum(e.model_calls)::bigint AS models, sum(e.tool_calls)::bigint AS tools
                 FROM family f JOIN executions e ON e.id = f.id GROUP BY f.parent, f.child, f.ended
             )
             SELECT c.parent, c.child, r.outcome, c.input, c.output, c.cached, c.cost, c.models, c.tools
             FROM consumed c LEFT JOIN execution_results r ON r.execution_id = c.child
             ORDER BY c.ended, c.child",
            &[&ids],
        )
        .await?;
    for row in &children {
        let mut child = Some((get(row, 1)?, get(row, 2)?, consumed(row)?));
        of(get(row, 0)?, &mut |waiting| {
            waiting.children.extend(child.take())
        });
    }
    Ok(all)
}

fn consumed(row: &Row) -> Outcome<Totals> {
    let small = |n: i64| u32::try_from(n).unwrap_or(u32::MAX);
    Ok(Totals {
        usage: Usage {
            input_tokens: Tokens(counted(get(row, 3)?)),
            output_tokens: Tokens(counted(get(row, 4)?)),
            cached_tokens: Tokens(counted(get(row, 5)?)),
        },
        cost_usd: Money::from_nanos(counted(get(row, 6)?)),
        model_calls: small(get(row, 7)?),
        tool_calls: small(get(row, 8)?),
    })
}

/// Wakes an execution: at once if it is parked, or its owner at the next renewal. Tells whether it became due.
async fn wake(conn: &mut Conn, id: Uuid, now: Time) -> Outcome<bool> {
    let woken = conn
        .first(
            "UPDATE executions SET wakes = wakes + 1,
                 due_at = CASE WHEN worker IS NULL THEN least(due_at, $2) ELSE due_at END
             WHERE id = $1 AND finished_at IS NULL
             RETURNING worker IS NULL",
            &[&id, &now],
        )
        .await?;
    woken.map_or(Ok(false), |row| get(&row, 0))
}

/// Locks an execution's row; answers its state.
async fn lock(conn: &mut Conn, id: Uuid) -> Outcome<Option<Status>> {
    let row = conn
        .first(
            "SELECT status FROM executions WHERE id = $1 FOR UPDATE",
            &[&id],
        )
        .await?;
    let word: Option<String> = row.map(|row| get(&row, 0)).transpose()?;
    Ok(word.map(|word| parse("a status", &word)).transpose()?)
}

impl Postgres {
    pub(super) async fn news_of(&self, id: ExecutionId) -> Result<Waiting> {
        let key = key(id);
        let mut conn = self.pool.get().await?;
        let row = conn
            .first(
                "SELECT wakes, cancel_by, cancel_reason FROM executions WHERE id = $1",
                &[&key],
            )
            .await?;
        let Some(row) = row else {
            return Ok(Waiting::default());
        };
        let mut waiting = raw(&row)?;
        if let Some(more) = load(&mut conn, &[key]).await?.remove(&key) {
            waiting.add(more);
        }
        waiting.read()
    }

    pub(super) async fn ask_to_end(
        &self,
        id: ExecutionId,
        by: &str,
        reason: &str,
        now: Time,
    ) -> Result<CancelAnswer> {
        let wish = Cancel {
            by: text(by).into_owned(),
            reason: text(reason).into_owned(),
        };
        let at_once = UnownedEnding::new(
            domain::Outcome::Cancelled {
                by: wish.by.clone(),
                reason: wish.reason.clone(),
            },
            self.packing,
        )?;
        let mut conn = self.pool.get().await?;
        conn.begin();
        let (answer, has_work) = cancel(&mut conn, key(id), &wish, &at_once, now).await?;
        conn.commit().await?;
        if has_work {
            self.signals.work();
        }
        Ok(answer)
    }

    pub(super) async fn answer(&self, input: NewInput) -> Result<InputAnswer> {
        let answer = encode("the answer", &input.answer)?;
        let mut conn = self.pool.get().await?;
        conn.begin();
        let (answer, has_work) = deliver(&mut conn, &input, &answer).await?;
        conn.commit().await?;
        if has_work {
            self.signals.work();
        }
        Ok(answer)
    }
}

fn raw(row: &Row) -> Outcome<RawWaiting> {
    Ok(RawWaiting::new(
        journal::wakes(row, 0)?,
        get(row, 1)?,
        get(row, 2)?,
    ))
}

async fn cancel(
    conn: &mut Conn,
    id: Uuid,
    wish: &Cancel,
    at_once: &UnownedEnding,
    now: Time,
) -> Outcome<(CancelAnswer, bool)> {
    // Children before their parent, as a child does that ends and wakes it; and again those that were started meanwhile.
    let mut is_due = cancel_family(conn, id, wish, now).await?;
    let status = match lock(conn, id).await? {
        None => return Ok((CancelAnswer::NotFound, false)),
        Some(over) if over.is_terminal() => return Ok((CancelAnswer::AlreadyOver(over), false)),
        Some(status) => status,
    };
    // The first wish counts; repeating it wakes nobody again.
    let is_first = conn
        .run(
            "UPDATE executions SET cancel_by = $2, cancel_reason = $3 WHERE id = $1 AND cancel_by IS NULL RETURNING id",
            &[&id, &wish.by, &wish.reason],
        )
        .await?;
    is_due |= match status {
        // Whoever claims it makes it running: nobody has begun it.
        Status::Queued => at_once.write(conn, id, status.as_str(), now).await?,
        _ if is_first => wake(conn, id, now).await?,
        _ => false,
    };
    is_due |= cancel_family(conn, id, wish, now).await?;
    Ok((CancelAnswer::Accepted, is_due))
}

/// Asks for the end of all that work for an execution, so that none of them begins anything should its own end be late.
async fn cancel_family(conn: &mut Conn, id: Uuid, wish: &Cancel, now: Time) -> Outcome<bool> {
    let rows = conn
        .all(
            "WITH RECURSIVE family AS (
                 SELECT id FROM executions WHERE parent_id = $1
                 UNION ALL
                 SELECT e.id FROM family f JOIN executions e ON e.parent_id = f.id
             )
             SELECT id FROM executions
             WHERE id IN (SELECT id FROM family) AND finished_at IS NULL AND cancel_by IS NULL ORDER BY id FOR UPDATE",
            &[&id],
        )
        .await?;
    let ids = rows.iter().map(|row| get(row, 0));
    let ids: Vec<Uuid> = ids.collect::<Outcome<_>>()?;
    if ids.is_empty() {
        return Ok(false);
    }
    let woken = conn
        .all(
            "UPDATE executions SET cancel_by = 'its parent', cancel_reason = $2, wakes = wakes + 1,
                 due_at = CASE WHEN worker IS NULL THEN least(due_at, $3) ELSE due_at END
             WHERE id = ANY ($1) AND finished_at IS NULL
             RETURNING worker IS NULL",
            &[&ids, &told_to_family(wish), &now],
        )
        .await?;
    let mut is_due = false;
    for row in &woken {
        is_due |= get::<bool>(row, 0)?;
    }
    Ok(is_due)
}

async fn deliver(conn: &mut Conn, input: &NewInput, answer: &str) -> Outcome<(InputAnswer, bool)> {
    let id = key(input.id);
    let Some(status) = lock(conn, id).await? else {
        return Ok((InputAnswer::NotFound, false));
    };
    let request = match settle(input, status, requests(conn, id).await?)? {
        Settled::Answered(answer) => return Ok((answer, false)),
        Settled::Takes(request) => request,
    };
    conn.run(
        "UPDATE inputs SET answer = $3, answered_by = $4, answered_at = $5 WHERE execution_id = $1 AND request = $2",
        &[
            &id,
            &small(request.get()),
            &answer,
            &text(&input.by).as_ref(),
            &input.now,
        ],
    )
    .await?;
    let has_work = wake(conn, id, input.now).await?;
    Ok((InputAnswer::Accepted { request }, has_work))
}

async fn requests(conn: &mut Conn, id: Uuid) -> Outcome<Vec<Request>> {
    let rows = conn
        .all(
            "SELECT request, answer, coalesce(answered_by, ''), question, until, consumed FROM inputs
             WHERE execution_id = $1 ORDER BY request",
            &[&id],
        )
        .await?;
    let request = |row: &Row| {
        let seq = smalled(get(row, 0)?);
        let (answer, by): (Option<String>, String) = (get(row, 1)?, get(row, 2)?);
        Ok(Request {
            seq,
            question: get(row, 3)?,
            until: get::<Time>(row, 4)?.timestamp_micros(),
            is_consumed: get(row, 5)?,
            answer: answer.map(|answer| RawInput {
                request: seq,
                answer,
                by,
            }),
        })
    };
    rows.iter().map(request).collect()
}
