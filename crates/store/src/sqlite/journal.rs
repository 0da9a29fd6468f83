//! The journal: appending steps with all that follows from them, and reading them.

use domain::execution::Totals;
use domain::{Epoch, ExecutionId, Seq, Status, Step, StepBody};
use rusqlite::{Connection, params};

use super::Sqlite;
use super::fault::{Outcome, internal};
use super::outbox::{self, Outgoing};
use super::sql::{Packing, Sql, count, decode, encode, key, limit, micros, micros_up, time};
use super::submit;
use super::writer::Tx;
use crate::codec::Ending;
use crate::consumption::{Consumption, consumption};
use crate::{Append, Appended, Result, Then};

/// A step as its row tells it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RawStep {
    seq: u32,
    at: i64,
    epoch: u32,
    kind: String,
    body: String,
}

/// An append as it will be written: all JSON is made on the caller's thread, the writing thread only binds it.
struct Prepared {
    execution: [u8; 16],
    epoch: u32,
    now: i64,
    totals: Totals,
    steps: Vec<RawStep>,
    asked: Vec<Asked>,
    answered: Vec<Seq>,
    consumption: Vec<Consumption>,
    events: Vec<Outgoing>,
    children: Vec<submit::Prepared>,
    then: Next,
}

struct Asked {
    request: u32,
    question: String,
    until: i64,
}

enum Next {
    Continue,
    Park {
        status: Status,
        reason: String,
        until: i64,
        wakes_seen: i64,
    },
    HandBack,
    Finish(Ending),
}

impl Sqlite {
    pub(super) async fn commit(&self, append: Append) -> Result<Appended> {
        let prepared = Prepared::new(append, self.packing)?;
        self.writer.write(move |tx| prepared.write(tx)).await
    }

    pub(super) async fn journal(
        &self,
        id: ExecutionId,
        after: Option<Seq>,
        most: usize,
    ) -> Result<Vec<Step>> {
        let after = after.map_or(0, Seq::get);
        let steps = self
            .readers
            .read(move |conn| select(conn, key(id), after, limit(most)))
            .await?;
        steps.into_iter().map(|step| step.read(id)).collect()
    }
}

/// The steps of an execution after `after`, oldest first.
pub(super) fn select(
    conn: &Connection,
    execution: [u8; 16],
    after: u32,
    limit: i64,
) -> Outcome<Vec<RawStep>> {
    conn.all(
        "SELECT seq, at, epoch, kind, body FROM steps WHERE execution_id = ?1 AND seq > ?2 ORDER BY seq LIMIT ?3",
        params![execution, after, limit],
        |row| {
            Ok(RawStep {
                seq: row.get(0)?,
                at: row.get(1)?,
                epoch: row.get(2)?,
                kind: row.get(3)?,
                body: row.get(4)?,
            })
        },
    )
}

impl RawStep {
    fn new(step: &Step, packing: Packing) -> Result<Self> {
        Ok(Self {
            seq: step.seq.get(),
            at: micros(step.at),
            epoch: step.epoch.get(),
            kind: step.body.kind().to_owned(),
            body: packing.encode("the step", &step.body)?,
        })
    }

    /// The step.
    pub(super) fn read(self, id: ExecutionId) -> Result<Step> {
        Ok(Step {
            seq: Seq::new(self.seq),
            at: time(self.at)?,
            epoch: Epoch::new(self.epoch),
            body: decode(
                || format!("step {} of execution {id}", self.seq),
                &self.body,
            )?,
        })
    }
}

impl Prepared {
    fn new(append: Append, packing: Packing) -> Result<Self> {
        check(&append)?;
        let (mut asked, mut answered) = (Vec::new(), Vec::new());
        for step in &append.steps {
            match &step.body {
                StepBody::InputRequested(request) => asked.push(Asked {
                    request: step.seq.get(),
                    question: encode("the question", &request.question)?,
                    until: micros_up(request.until),
                }),
                StepBody::InputReceived(input) => answered.push(input.request),
                _ => {}
            }
        }
        let children = append
            .children
            .into_iter()
            .map(|child| submit::Prepared::new(child, packing));
        Ok(Self {
            execution: key(append.id),
            epoch: append.epoch.get(),
            now: micros(append.now),
            totals: append.totals,
            consumption: consumption(&append.steps, append.now),
            steps: append
                .steps
                .iter()
                .map(|step| RawStep::new(step, packing))
                .collect::<Result<_>>()?,
            asked,
            answered,
            events: outbox::prepare(append.events)?,
            children: children.collect::<Result<_>>()?,
            then: Next::new(append.then, packing)?,
        })
    }

    fn write(&self, tx: &mut Tx<'_>) -> Outcome<Appended> {
        if !self.fence(tx)? {
            return self.refused(tx);
        }
        for step in &self.steps {
            tx.conn.run(
                "INSERT INTO steps (execution_id, seq, at, epoch, kind, body) VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
                params![self.execution, step.seq, step.at, step.epoch, step.kind, step.body],
            )?;
        }
        for consumption in &self.consumption {
            consumption.add(tx, self.execution)?;
        }
        self.write_inputs(tx)?;
        for child in &self.children {
            child.insert(tx)?;
        }
        outbox::insert(tx, &self.events)?;
        self.then.write(tx, self.execution, self.now)?;
        Ok(Appended::Applied)
    }

    /// Updates the row if the lease is the current one and the steps follow the journal: the first statement, so that
    /// a refused append has changed nothing.
    fn fence(&self, tx: &Tx<'_>) -> Outcome<bool> {
        let (usage, totals) = (&self.totals.usage, &self.totals);
        let model = self.consumption.iter().rev().find_map(|c| c.model.as_ref());
        let before = self.steps.first().map(|step| step.seq - 1);
        let changed = tx.conn.run(
            "UPDATE executions
             SET steps = steps + ?3, crashes = iif(?3 > 0, 0, crashes), heartbeat_at = ?4,
                 input_tokens = ?5, output_tokens = ?6, cached_tokens = ?7, cost_nanos = ?8, model_calls = ?9,
                 tool_calls = ?10, provider = coalesce(?11, provider), model = coalesce(?12, model)
             WHERE id = ?1 AND epoch = ?2 AND worker IS NOT NULL AND steps = coalesce(?13, steps)",
            params![
                self.execution,
                self.epoch,
                limit(self.steps.len()),
                self.now,
                count(usage.input_tokens.0),
                count(usage.output_tokens.0),
                count(usage.cached_tokens.0),
                count(totals.cost_usd.nanos()),
                totals.model_calls,
                totals.tool_calls,
                model.map(|(provider, _)| provider.as_str()),
                model.map(|(_, model)| model),
                before,
            ],
        )?;
        Ok(changed == 1)
    }

    /// Why the fence was shut: another's lease, an append that was made before, or steps that do not follow.
    fn refused(&self, tx: &Tx<'_>) -> Outcome<Appended> {
        let steps: Option<u32> = tx.conn.first(
            "SELECT steps FROM executions WHERE id = ?1 AND epoch = ?2 AND worker IS NOT NULL",
            params![self.execution, self.epoch],
            |row| row.get(0),
        )?;
        let (Some(steps), Some(first)) = (steps, self.steps.first()) else {
            return Ok(Appended::LostLease);
        };
        if first.seq <= steps
            && select(tx.conn, self.execution, first.seq - 1, i64::MAX)? == self.steps
        {
            return Ok(Appended::Applied);
        }
        let message = format!(
            "step {} can't be appended to a journal of {steps}",
            first.seq
        );
        Err(internal(message).into())
    }

    fn write_inputs(&self, tx: &Tx<'_>) -> Outcome<()> {
        for asked in &self.asked {
            tx.conn.run(
                "INSERT INTO inputs (execution_id, request, question, until) VALUES (?1, ?2, ?3, ?4)",
                params![self.execution, asked.request, asked.question, asked.until],
            )?;
        }
        for request in &self.answered {
            tx.conn.run(
                "UPDATE inputs SET consumed = 1 WHERE execution_id = ?1 AND request = ?2",
                params![self.execution, request.get()],
            )?;
        }
        Ok(())
    }
}

impl Next {
    fn new(then: Then, packing: Packing) -> Result<Self> {
        Ok(match then {
            Then::Continue => Self::Continue,
            Then::HandBack => Self::HandBack,
            Then::Park {
                status,
                reason,
                until,
                wakes_seen,
            } => Self::Park {
                status,
                reason,
                until: micros_up(until),
                wakes_seen: count(wakes_seen),
            },
            Then::Finish {
                outcome,
                messages,
                digest,
            } => Self::Finish(Ending::new(
                &outcome,
                &messages,
                digest.as_deref(),
                packing,
            )?),
        })
    }

    fn write(&self, tx: &mut Tx<'_>, execution: [u8; 16], now: i64) -> Outcome<()> {
        match self {
            Self::Continue => {}
            Self::Park {
                status,
                reason,
                until,
                wakes_seen,
            } => {
                let due: Option<i64> = tx.conn.first(
                    "UPDATE executions
                     SET status = ?2, status_reason = ?3, worker = NULL, due_at = iif(wakes > ?4, ?5, ?6)
                     WHERE id = ?1 AND finished_at IS NULL
                     RETURNING due_at",
                    params![execution, status.as_str(), reason, wakes_seen, now, until],
                    |row| row.get(0),
                )?;
                tx.has_work |= due.is_some_and(|due| due <= now);
            }
            Self::HandBack => {
                tx.conn.run(
                    "UPDATE executions SET worker = NULL, due_at = ?2 WHERE id = ?1 AND finished_at IS NULL",
                    params![execution, now],
                )?;
                tx.has_work = true;
            }
            Self::Finish(ending) => {
                ending.write(tx, execution, now)?;
            }
        }
        Ok(())
    }
}

/// Refuses what no journal can take, before anything is written.
fn check(append: &Append) -> Result<()> {
    let follows = append
        .steps
        .windows(2)
        .all(|pair| matches!(pair, [a, b] if b.seq == a.seq.plus(1)));
    if !follows || append.steps.first().is_some_and(|step| step.seq.get() == 0) {
        return Err(internal("the steps of an append are not in order"));
    }
    match append.then {
        Then::Park { status, .. }
            if !matches!(status, Status::Running | Status::WaitingForInput) =>
        {
            Err(internal(format!(
                "an execution can't be parked as {status}"
            )))
        }
        _ => Ok(()),
    }
}
