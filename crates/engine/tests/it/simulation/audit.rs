//! The end: whether everything that was promised came true, told from the tables and from what the world noticed.

use std::collections::{BTreeMap, BTreeSet};

use domain::state::Turn;
use domain::{AgentName, EventId, FailureCode, Outcome, State};

use super::cast::{HELPER, LISTENER};
use super::people::Promises;
use super::tables::{Row, Tables};
use super::world::World;

/// A broken rule.
type Finding = (&'static str, String);

/// Whether nothing more can come.
pub(crate) fn is_quiet(world: &World, promises: &Promises) -> bool {
    let tables = world.tables();
    let events = promises.events.lock().unwrap();
    tables.outbox.is_empty()
        && tables.rows.values().all(Row::is_over)
        && events.iter().all(|event| is_settled(&tables, event))
}

/// Whether an event has started everybody whom it concerns, or rests where a person finds it.
fn is_settled(tables: &Tables, event: &EventId) -> bool {
    tables.is_dead(event)
        || [HELPER, LISTENER]
            .iter()
            .all(|agent| starts(tables, agent, event) > 0)
}

fn starts(tables: &Tables, agent: &str, event: &EventId) -> usize {
    let is_start = |row: &&Row| {
        row.execution.agent.as_str() == agent && row.execution.event_id.as_ref() == Some(event)
    };
    tables.rows.values().filter(is_start).count()
}

/// Compares the end with the promises.
pub(crate) fn audit(world: &World, promises: &Promises) {
    let mut findings = Vec::new();
    {
        let tables = world.tables();
        lost(&tables, promises, &mut findings);
        for row in tables.rows.values() {
            replayed(row, &mut findings);
            world.count(how_it_ended(row));
        }
        started_once(&tables, promises, &mut findings);
        told(world, &tables, &mut findings);
        if !tables.outbox.is_empty() {
            let text = format!("{} events wait for ever", tables.outbox.len());
            findings.push(("R2", text));
        }
    }
    for (rule, text) in findings {
        world.violated(rule, text);
    }
}

fn how_it_ended(row: &Row) -> &'static str {
    match &row.outcome {
        None => "unended",
        Some(Outcome::Failed(failure)) if failure.code == FailureCode::Poison => "poison",
        Some(outcome) => outcome.status().as_str(),
    }
}

fn lost(tables: &Tables, promises: &Promises, findings: &mut Vec<Finding>) {
    for id in promises.tasks.lock().unwrap().iter() {
        if !tables.rows.contains_key(id) {
            findings.push(("I3", format!("{id} was accepted and is not there")));
        }
    }
    for row in tables.rows.values().filter(|row| !row.is_over()) {
        let text = format!(
            "{} never ends: {} after {} steps, due {:?}, held by {:?}",
            row.execution.id, row.status, row.count, row.due_at, row.worker
        );
        findings.push(("I3", text));
    }
}

/// The journal is whole, in the order of its owners, and amounts to what the row says.
fn replayed(row: &Row, findings: &mut Vec<Finding>) {
    let id = row.execution.id;
    if !row.steps.iter().map(|step| step.epoch).is_sorted() {
        findings.push(("I2", format!("an overtaken owner wrote to {id}")));
    }
    let state = match State::replay(&row.execution, &row.steps) {
        Ok(state) => state,
        Err(illegal) => return findings.push(("I8", format!("{id}: {illegal}"))),
    };
    let outcome = match &state.turn {
        Turn::Done(outcome) => Some(outcome),
        Turn::Model(_) | Turn::Tools(_) | Turn::Answered { .. } => None,
    };
    if outcome != row.outcome.as_ref() || state.totals != row.totals {
        let text = format!(
            "{id} replays to {outcome:?} with {:?}, its row says {:?} with {:?}",
            state.totals, row.outcome, row.totals
        );
        findings.push(("I8", text));
    }
}

fn started_once(tables: &Tables, promises: &Promises, findings: &mut Vec<Finding>) {
    let mut counts: BTreeMap<(&AgentName, &EventId), u32> = BTreeMap::new();
    for row in tables.rows.values() {
        if let Some(event) = &row.execution.event_id {
            *counts.entry((&row.execution.agent, event)).or_default() += 1;
        }
    }
    for ((agent, event), count) in counts.into_iter().filter(|(_, count)| *count > 1) {
        findings.push(("I4", format!("{event} started {agent} {count} times")));
    }
    for event in promises.events.lock().unwrap().iter() {
        if !is_settled(tables, event) {
            findings.push((
                "I4",
                format!("{event} did not start everybody, and rests nowhere"),
            ));
        }
    }
}

/// Every end was told to whoever subscribes.
fn told(world: &World, tables: &Tables, findings: &mut Vec<Finding>) {
    let never_begun = world.watchman().never_begun.clone();
    let heard: BTreeSet<String> = world
        .heard()
        .iter()
        .map(|id| id.as_str().to_owned())
        .collect();
    for row in tables.rows.values().filter(|row| row.is_over()) {
        let id = row.execution.id;
        if !heard.contains(&format!("ended-{id}")) && !never_begun.contains(&id) {
            let text = format!("nobody heard that {id} ended: {:?}", row.outcome);
            findings.push(("R2", text));
        }
    }
}
