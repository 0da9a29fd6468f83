//! The journal: appending steps with all that follows from them, and reading them.

use std::collections::HashMap;
use std::sync::Arc;

use domain::{Epoch, ExecutionId, Seq, Step, StepBody, Time};
use tokio_postgres::Row;
use uuid::Uuid;

use super::Postgres;
use super::append::Columns;
use super::connection::Conn;
use super::fault::{Outcome, internal};
use super::finish;
use super::gather::{Done, Kind};
use super::outbox::{self, Outgoing};
use super::sql::{
    Packing, count, counted, decode, encode, get, key, limit, small, smalled, text, touch, up,
};
use super::submit;
use crate::codec::Ending;
use crate::consumption::{Consumption, consumption};
use crate::{Append, Appended, Result, Then};

/// A step as its row tells it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct RawStep {
    pub(super) seq: u32,
    pub(super) at: Time,
    pub(super) epoch: u32,
    pub(super) kind: String,
    pub(super) body: String,
}

/// An append as it will be written: all JSON is made on the caller's task.
pub(super) struct Prepared {
    pub(super) id: Uuid,
    pub(super) epoch: u32,
    pub(super) now: Time,
    pub(super) totals: domain::execution::Totals,
    pub(super) steps: Vec<RawStep>,
    asked: Vec<Asked>,
    answered: Vec<i32>,
    pub(super) consumption: Vec<Consumption>,
    pub(super) events: Vec<Outgoing>,
    children: Vec<submit::Prepared>,
    pub(super) then: Next,
}

struct Asked {
    request: i32,
    question: String,
    until: Time,
}

/// What becomes of the lease, as it will be written.
pub(super) enum Next {
    Continue,
    Park {
        status: &'static str,
        reason: String,
        until: Time,
        wakes_seen: i64,
    },
    HandBack,
    Finish(Ending),
}

/// Appends, gathered.
pub(super) struct Appends;

/// An append on its way. An end that seems to concern nobody else - no parent, no children, no conversation - needs the
/// one statement only, and the statement looks whether it does.
pub(super) struct Request {
    append: Arc<Prepared>,
    seems_alone: bool,
}

/// What came of it.
pub(super) enum Answer {
    Appended(Appended),
    /// Nothing was written: the end concerns others, or was refused.
    IsNotAlone,
}

/// What the row of an append that went through tells.
struct Through {
    agent: String,
    conversation: Option<String>,
    parent: Option<Uuid>,
    is_due: bool,
    has_children: bool,
    wakes: u64,
    is_woken: bool,
    waits_turn: bool,
}

impl Postgres {
    pub(super) async fn commit(&self, append: Append) -> Result<Appended> {
        let prepared = Prepared::new(append, self.packing)?;
        // Always the same lane for an execution, so that its appends stay in order.
        let lane = usize::try_from(touch(prepared.id) % self.appends.len().max(1) as u64);
        let lane = self.appends.get(lane.unwrap_or(0));
        let lane = lane.ok_or_else(|| internal("there is no lane for appends"))?;
        let append = Arc::new(prepared);
        for seems_alone in [append.seems_alone(), false] {
            let append = append.clone();
            let request = Request {
                append,
                seems_alone,
            };
            if let Answer::Appended(appended) = lane.perform(request).await? {
                return Ok(appended);
            }
        }
        Err(internal("an end was passed over with all that follows it"))
    }

    pub(super) async fn journal(
        &self,
        id: ExecutionId,
        after: Option<Seq>,
        most: usize,
    ) -> Result<Vec<Step>> {
        let mut conn = self.pool.get().await?;
        let steps = select(&mut conn, key(id), after.map_or(0, Seq::get), limit(most)).await?;
        steps.into_iter().map(|step| step.read(id)).collect()
    }
}

/// The steps of an execution after `after`, oldest first.
async fn select(conn: &mut Conn, id: Uuid, after: u32, limit: i64) -> Outcome<Vec<RawStep>> {
    let rows = conn
        .all(
            "SELECT seq, at, epoch, kind, body FROM steps WHERE execution_id = $1 AND seq > $2 ORDER BY seq LIMIT $3",
            &[&id, &small(after), &limit],
        )
        .await?;
    rows.iter().map(|row| RawStep::from_row(row, 0)).collect()
}

impl RawStep {
    fn new(step: &Step, packing: Packing) -> Result<Self> {
        Ok(Self {
            seq: step.seq.get(),
            // As it will be read again.
            at: Time::from_timestamp_micros(step.at.timestamp_micros()).unwrap_or(step.at),
            epoch: step.epoch.get(),
            kind: step.body.kind().to_owned(),
            body: packing.encode("the step", &step.body)?,
        })
    }

    /// Reads it from the columns that begin at `first`.
    pub(super) fn from_row(row: &Row, first: usize) -> Outcome<Self> {
        Ok(Self {
            seq: smalled(get(row, first)?),
            at: get(row, first + 1)?,
            epoch: smalled(get(row, first + 2)?),
            kind: get(row, first + 3)?,
            body: get(row, first + 4)?,
        })
    }

    /// The step.
    pub(super) fn read(self, id: ExecutionId) -> Result<Step> {
        Ok(Step {
            seq: Seq::new(self.seq),
            at: self.at,
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
                    request: small(step.seq.get()),
                    question: encode("the question", &request.question)?,
                    until: up(request.until),
                }),
                StepBody::InputReceived(input) => answered.push(small(input.request.get())),
                _ => {}
            }
        }
        let children = append
            .children
            .into_iter()
            .map(|child| submit::Prepared::new(child, packing));
        Ok(Self {
            id: key(append.id),
            epoch: append.epoch.get(),
            now: append.now,
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

    /// Whether nothing follows from the steps.
    fn is_plain(&self) -> bool {
        self.asked.is_empty() && self.answered.is_empty() && self.children.is_empty()
    }

    fn seems_alone(&self) -> bool {
        matches!(&self.then, Next::Finish(ending) if !ending.changes_conversation())
            && self.is_plain()
    }

    /// Why the fence was shut: another's lease, an append that was made before, or steps that do not follow.
    async fn refused(&self, conn: &mut Conn) -> Outcome<Appended> {
        let row = conn
            .first(
                "SELECT steps FROM executions WHERE id = $1 AND epoch = $2 AND worker IS NOT NULL",
                &[&self.id, &small(self.epoch)],
            )
            .await?;
        let (Some(row), Some(first)) = (row, self.steps.first()) else {
            return Ok(Appended::LostLease);
        };
        let steps = smalled(get(&row, 0)?);
        if first.seq <= steps {
            let found = select(conn, self.id, first.seq - 1, i64::MAX).await?;
            if found == self.steps {
                return Ok(Appended::Applied);
            }
        }
        let message = format!(
            "step {} can't be appended to a journal of {steps}",
            first.seq
        );
        Err(internal(message).into())
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
                status: status.as_str(),
                reason: text(&reason).into_owned(),
                until: up(until),
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
}

impl Request {
    /// Whether the one statement says it all.
    fn is_plain(&self) -> bool {
        self.seems_alone || self.append.is_plain() && !matches!(self.append.then, Next::Finish(_))
    }
}

impl Kind for Appends {
    type Request = Request;
    type Answer = Answer;

    fn touches(request: &Request) -> Vec<u64> {
        vec![touch(request.append.id)]
    }

    async fn perform(&self, conn: &mut Conn, batch: &[Request]) -> Outcome<Done<Answer>> {
        let is_plain = batch.iter().all(Request::is_plain);
        let appends: Vec<&Prepared> = batch.iter().map(|request| &*request.append).collect();
        if !is_plain {
            conn.begin();
        }
        let mut through = write(conn, &appends, is_plain).await?;
        let mut has_work = through.values().any(|row| row.is_due);
        if !is_plain {
            has_work |= follow_up(conn, &appends, &mut through).await?;
            conn.commit().await?;
        }
        let mut has_events = false;
        let mut answers = Vec::with_capacity(batch.len());
        for request in batch {
            let prepared = &request.append;
            let Some(row) = through.get(&prepared.id) else {
                answers.push(if is_plain && request.seems_alone {
                    Ok(Answer::IsNotAlone)
                } else {
                    let refused = prepared.refused(conn).await;
                    refused.map(Answer::Appended).map_err(Into::into)
                });
                continue;
            };
            has_events |= !prepared.events.is_empty() || !prepared.children.is_empty();
            // Whoever goes on is told; whoever parks, ends or hands back has had it looked at in the statement.
            let goes_on = matches!(prepared.then, Next::Continue);
            answers.push(Ok(Answer::Appended(if goes_on && row.is_woken {
                Appended::Woken { wakes: row.wakes }
            } else {
                Appended::Applied
            })));
        }
        Ok(Done {
            answers,
            has_events,
            has_work,
        })
    }
}

/// The one statement: rows, steps, results, counts, usage and events of all that pass the fence.
/// Told that it is all, it passes over ends that concern others.
async fn write(
    conn: &mut Conn,
    batch: &[&Prepared],
    is_all: bool,
) -> Outcome<HashMap<Uuid, Through>> {
    let rows = Columns::new(batch).write(conn, is_all).await?;
    let mut through = HashMap::with_capacity(rows.len());
    for row in &rows {
        let one = Through {
            agent: get(row, 1)?,
            conversation: get(row, 2)?,
            parent: get(row, 3)?,
            is_due: get(row, 4)?,
            has_children: get(row, 5)?,
            wakes: wakes(row, 6)?,
            is_woken: get(row, 7)?,
            waits_turn: get(row, 8)?,
        };
        through.insert(get(row, 0)?, one);
    }
    Ok(through)
}

/// What few appends bring with them. Tells whether something became due.
async fn follow_up(
    conn: &mut Conn,
    batch: &[&Prepared],
    through: &mut HashMap<Uuid, Through>,
) -> Outcome<bool> {
    let passed: Vec<&Prepared> = batch
        .iter()
        .copied()
        .filter(|prepared| through.contains_key(&prepared.id))
        .collect();
    write_inputs(conn, &passed).await?;
    let children: Vec<&submit::Prepared> = passed.iter().flat_map(|p| &p.children).collect();
    let new = submit::insert(conn, &children).await?;
    let mut has_work = !new.is_empty();
    let mut family = finish::Family::default();
    let mut talk = finish::Talk::default();
    for prepared in &passed {
        let (Next::Finish(ending), Some(row)) = (&prepared.then, through.get(&prepared.id)) else {
            continue;
        };
        if let Some(parent) = row.parent {
            family.wake(parent, prepared.now);
        }
        if row.has_children || !prepared.children.is_empty() {
            family.end_children(prepared.id, &ending.reason, prepared.now);
        }
        // One that waited for its turn said nothing and has no turn to give: no need to lock the conversation, which
        // whoever has the turn may hold while it wants to lock this row.
        if let Some(conversation) = &row.conversation
            && !row.waits_turn
        {
            let name = (row.agent.as_str(), conversation.as_str());
            talk.add(name, prepared.id, prepared.now, ending);
        }
    }
    has_work |= talk.write(conn).await?;
    has_work |= family.write(conn).await?;
    Ok(has_work)
}

async fn write_inputs(conn: &mut Conn, passed: &[&Prepared]) -> Outcome<()> {
    let asked = || {
        passed
            .iter()
            .flat_map(|p| p.asked.iter().map(|asked| (p.id, asked)))
    };
    let ids: Vec<Uuid> = asked().map(|(id, _)| id).collect();
    if !ids.is_empty() {
        let requests: Vec<i32> = asked().map(|(_, asked)| asked.request).collect();
        let questions: Vec<&str> = asked().map(|(_, asked)| asked.question.as_str()).collect();
        let until: Vec<Time> = asked().map(|(_, asked)| asked.until).collect();
        conn.run(
            "INSERT INTO inputs (execution_id, request, question, until)
             SELECT * FROM unnest($1::uuid[], $2::int[], $3::text[], $4::timestamptz[])",
            &[&ids, &requests, &questions, &until],
        )
        .await?;
    }
    let answered = || {
        passed
            .iter()
            .flat_map(|p| p.answered.iter().map(|request| (p.id, *request)))
    };
    let ids: Vec<Uuid> = answered().map(|(id, _)| id).collect();
    if !ids.is_empty() {
        let requests: Vec<i32> = answered().map(|(_, request)| request).collect();
        conn.run(
            "UPDATE inputs i SET consumed = true FROM unnest($1::uuid[], $2::int[]) AS r (id, request)
             WHERE i.execution_id = ANY ($1) AND i.execution_id = r.id AND i.request = r.request",
            &[&ids, &requests],
        )
        .await?;
    }
    Ok(())
}

/// Refuses what no journal can take, before anything is written.
fn check(append: &Append) -> Result<()> {
    use domain::Status;
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

/// Whether a journal has all the steps that the execution's row counts.
pub(super) fn is_whole(steps: &[Step], counted: u32) -> bool {
    steps.len() == counted as usize && (1..).zip(steps).all(|(n, step)| step.seq == Seq::new(n))
}

/// A count of wake-ups as it was stored.
pub(super) fn wakes(row: &Row, column: usize) -> Outcome<u64> {
    Ok(counted(get(row, column)?))
}
