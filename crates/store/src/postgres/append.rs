//! The columns of the statement that commits appends.

use domain::Time;
use tokio_postgres::Row;
use uuid::Uuid;

use super::connection::Conn;
use super::fault::Outcome;
use super::journal::{Next, Prepared};
use super::sql::{count, small};

const APPEND: &str = include_str!("sql/append.sql");

/// One array per column, in the order of the statement.
#[derive(Default)]
pub(super) struct Columns<'a> {
    id: Vec<Uuid>,
    epoch: Vec<i32>,
    before: Vec<Option<i32>>,
    n: Vec<i32>,
    now: Vec<Time>,
    totals: [Vec<i64>; 4],
    model_calls: Vec<i32>,
    tool_calls: Vec<i32>,
    provider: Vec<Option<&'a str>>,
    model: Vec<Option<&'a str>>,
    next: Vec<&'static str>,
    status: Vec<Option<&'a str>>,
    reason: Vec<Option<&'a str>>,
    until: Vec<Option<Time>>,
    wakes_seen: Vec<Option<i64>>,
    outcome: Vec<Option<&'a str>>,
    steps: Steps<'a>,
    usage: Usage<'a>,
    events: Events<'a>,
}

#[derive(Default)]
struct Steps<'a> {
    id: Vec<Uuid>,
    seq: Vec<i32>,
    at: Vec<Time>,
    epoch: Vec<i32>,
    kind: Vec<&'a str>,
    body: Vec<&'a str>,
}

#[derive(Default)]
struct Usage<'a> {
    id: Vec<Uuid>,
    provider: Vec<Option<&'a str>>,
    model: Vec<Option<&'a str>>,
    day: Vec<&'a str>,
    numbers: [Vec<i64>; 6],
}

#[derive(Default)]
struct Events<'a> {
    id: Vec<Uuid>,
    event_id: Vec<&'a str>,
    event: Vec<&'a str>,
}

impl<'a> Columns<'a> {
    /// The columns of a batch, sorted by execution.
    pub(super) fn new(batch: &[&'a Prepared]) -> Self {
        let mut sorted = batch.to_vec();
        sorted.sort_by_key(|prepared| prepared.id);
        let mut columns = Self::default();
        for prepared in sorted {
            columns.add(prepared);
            columns.steps.add(prepared);
            columns.usage.add(prepared);
            columns.events.add(prepared);
        }
        columns
    }

    fn add(&mut self, prepared: &'a Prepared) {
        let totals = &prepared.totals;
        let before = prepared.steps.first().map(|step| small(step.seq) - 1);
        let numbers = [
            totals.usage.input_tokens.0,
            totals.usage.output_tokens.0,
            totals.usage.cached_tokens.0,
            totals.cost_usd.nanos(),
        ];
        for (column, number) in self.totals.iter_mut().zip(numbers) {
            column.push(count(number));
        }
        let last = prepared.consumption.iter().rev();
        let model = last.filter_map(|c| c.model.as_ref()).next();
        self.id.push(prepared.id);
        self.epoch.push(small(prepared.epoch));
        self.before.push(before);
        self.n.push(prepared.steps.len() as i32);
        self.now.push(prepared.now);
        self.model_calls.push(small(totals.model_calls));
        self.tool_calls.push(small(totals.tool_calls));
        self.provider
            .push(model.map(|(provider, _)| provider.as_str()));
        self.model.push(model.map(|(_, model)| model.as_str()));
        self.add_next(&prepared.then);
    }

    fn add_next(&mut self, then: &'a Next) {
        let mut row = |next, status, reason, until, wakes_seen, outcome| {
            self.next.push(next);
            self.status.push(status);
            self.reason.push(reason);
            self.until.push(until);
            self.wakes_seen.push(wakes_seen);
            self.outcome.push(outcome);
        };
        match then {
            Next::Continue => row("continue", None, None, None, None, None),
            Next::HandBack => row("hand_back", None, None, None, None, None),
            Next::Park {
                status,
                reason,
                until,
                wakes_seen,
            } => row(
                "park",
                Some(*status),
                Some(reason.as_str()),
                Some(*until),
                Some(*wakes_seen),
                None,
            ),
            Next::Finish(ending) => row(
                "finish",
                Some(ending.status.as_str()),
                Some(ending.reason.as_str()),
                None,
                None,
                Some(ending.outcome.as_str()),
            ),
        }
    }

    /// Runs the statement. Told that it is all, it passes over ends that concern others.
    pub(super) async fn write(&self, conn: &mut Conn, is_all: bool) -> Outcome<Vec<Row>> {
        let [input, output, cached, cost] = &self.totals;
        let (s, u, e) = (&self.steps, &self.usage, &self.events);
        let [calls, tools, u_input, u_output, u_cached, u_cost] = &u.numbers;
        conn.all(
            APPEND,
            &[
                &self.id,
                &self.epoch,
                &self.before,
                &self.n,
                &self.now,
                input,
                output,
                cached,
                cost,
                &self.model_calls,
                &self.tool_calls,
                &self.provider,
                &self.model,
                &self.next,
                &self.status,
                &self.reason,
                &self.until,
                &self.wakes_seen,
                &self.outcome,
                &s.id,
                &s.seq,
                &s.at,
                &s.epoch,
                &s.kind,
                &s.body,
                &u.id,
                &u.provider,
                &u.model,
                &u.day,
                calls,
                tools,
                u_input,
                u_output,
                u_cached,
                u_cost,
                &e.id,
                &e.event_id,
                &e.event,
                &is_all,
            ],
        )
        .await
    }
}

impl<'a> Steps<'a> {
    fn add(&mut self, prepared: &'a Prepared) {
        for step in &prepared.steps {
            self.id.push(prepared.id);
            self.seq.push(small(step.seq));
            self.at.push(step.at);
            self.epoch.push(small(step.epoch));
            self.kind.push(&step.kind);
            self.body.push(&step.body);
        }
    }
}

impl<'a> Usage<'a> {
    fn add(&mut self, prepared: &'a Prepared) {
        for entry in &prepared.consumption {
            let model = entry.model.as_ref();
            let numbers = [
                u64::from(entry.model_calls),
                u64::from(entry.tool_calls),
                entry.usage.input_tokens.0,
                entry.usage.output_tokens.0,
                entry.usage.cached_tokens.0,
                entry.cost.nanos(),
            ];
            for (column, number) in self.numbers.iter_mut().zip(numbers) {
                column.push(count(number));
            }
            self.id.push(prepared.id);
            self.provider
                .push(model.map(|(provider, _)| provider.as_str()));
            self.model.push(model.map(|(_, model)| model.as_str()));
            self.day.push(&entry.day);
        }
    }
}

impl<'a> Events<'a> {
    fn add(&mut self, prepared: &'a Prepared) {
        for outgoing in &prepared.events {
            self.id.push(prepared.id);
            self.event_id.push(&outgoing.event_id);
            self.event.push(&outgoing.event);
        }
    }
}
