//! What the simulated database holds, and the verbs of [`store::Store`] as plain functions on it: each is one
//! transaction, because nothing else runs while it does. Kept as simple as can be, so that it is plainly right; the
//! store's own behaviour suite is run against it.

mod audits;
mod claims;
mod errands;
mod journal;
mod keys;
mod news;
mod outgoing;
mod pins;
mod reads;
mod schedules;
mod shared;
mod states;
mod switches;

use std::collections::{BTreeMap, BTreeSet};

use domain::decide::Cancel;
use domain::definition::Provider;
use domain::execution::{Origin, Totals};
use domain::step::{Answer, Question};
use domain::{
    AgentName, ConversationId, Epoch, Event, EventId, Execution, ExecutionId, Message, Outcome,
    ScheduleName, Seq, Status, Step, Time, Worker, WorkerId,
};
use serde_json::Value;
use store::{
    AgentState, Certainty, ConfigRecord, DeadLetter, Error, OutboxClaim, OutboxEntry, Page, Result,
    ScheduleRecord, SharedWrite, Submission, Submitted, UsageRow, WhenBusy,
};

use super::plant::Plant;
use super::watchman::Seen;

/// How deep JSON may be nested: what is deeper could not be read again by the real stores.
const MAX_DEPTH: usize = 100;

/// An execution and what belongs to it.
pub(crate) struct Row {
    pub(crate) execution: Execution,
    pub(crate) status: Status,
    pub(crate) reason: Option<String>,
    pub(crate) worker: Option<WorkerId>,
    pub(crate) heartbeat_at: Option<Time>,
    pub(crate) epoch: Epoch,
    pub(crate) due_at: Option<Time>,
    pub(crate) started_at: Option<Time>,
    pub(crate) finished_at: Option<Time>,
    pub(crate) totals: Totals,
    pub(crate) steps: Vec<Step>,
    /// How many steps there should be.
    pub(crate) count: u32,
    pub(crate) outcome: Option<Outcome>,
    pub(crate) cancel: Option<Cancel>,
    pub(crate) crashes: u32,
    pub(crate) wakes: u64,
    wakes_claimed: u64,
    inputs: BTreeMap<Seq, Input>,
    model: Option<(Provider, String)>,
    /// Its place among all that were accepted, and so in its conversation.
    place: u64,
    /// Whether an earlier one of its conversation is not over.
    pub(crate) waits_turn: bool,
    /// Made unreadable by a test.
    damage: Damage,
}

#[derive(Default)]
struct Damage {
    task: bool,
    steps: BTreeSet<Seq>,
}

/// A question, and what became of it.
struct Input {
    question: Question,
    until: Time,
    answer: Option<(Answer, String)>,
    is_consumed: bool,
}

/// Everything.
#[derive(Default)]
pub(crate) struct Tables {
    pub(crate) rows: BTreeMap<ExecutionId, Row>,
    keys: BTreeMap<String, (String, ExecutionId, Time)>,
    pub(crate) outbox: BTreeMap<i64, Event>,
    /// Until when a relay has an event to itself.
    outbox_claims: BTreeMap<i64, Time>,
    last_event: i64,
    pub(crate) letters: BTreeMap<String, DeadLetter>,
    configs: Vec<(ConfigRecord, bool)>,
    conversations: BTreeMap<(AgentName, ConversationId), Vec<Message>>,
    states: BTreeMap<(AgentName, Option<ConversationId>), AgentState>,
    /// The unfinished executions of each conversation, in order: the first has the turn.
    lines: BTreeMap<(AgentName, ConversationId), Vec<ExecutionId>>,
    places: u64,
    facts: BTreeMap<(AgentName, String), (Time, Value)>,
    fact_writes: BTreeSet<(AgentName, String)>,
    usage: BTreeMap<(String, AgentName, &'static str, String), UsageRow>,
    /// What teams share, in the order in which it was written.
    shared: Vec<SharedWrite>,
    workers: BTreeMap<WorkerId, Worker>,
    api_keys: Vec<domain::ApiKey>,
    switches: BTreeMap<AgentName, domain::fleet::Switch>,
    errands: BTreeMap<String, errands::Kept>,
    pins: BTreeMap<pins::Key, domain::pin::Pin>,
    audit_rows: Vec<store::AuditRow>,
    audit_chains: Vec<store::AuditChain>,
    deliveries: BTreeMap<domain::DeliveryId, outgoing::Out>,
    alerts: store::AlertRecord,
    schedules: BTreeMap<ScheduleName, ScheduleRecord>,
    runs: BTreeMap<(ScheduleName, Time), schedules::Run>,
    /// The agent that was served last.
    served: String,
    is_closed: bool,
    /// What the transaction has to tell of; taken by whoever performed it.
    pub(crate) told: Told,
    /// What the transaction did, for those who watch; taken like `told`.
    pub(crate) seen: Vec<Seen>,
    /// What is wrong with it on purpose.
    pub(crate) plant: Plant,
    /// Executions whose hint has come to a worker; of use to one of the plants only.
    pub(crate) hinted: BTreeSet<ExecutionId>,
}

/// What a commit made: events to go out, work that is due.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Told {
    pub(crate) events: bool,
    pub(crate) work: bool,
}

pub(crate) fn unavailable(message: &str, certainty: Certainty) -> Error {
    Error::Unavailable {
        message: message.to_owned(),
        certainty,
        source: None,
    }
}

fn internal(message: impl Into<String>) -> Error {
    Error::Internal {
        message: message.into(),
        source: None,
    }
}

fn corrupt(what: impl Into<String>, message: impl Into<String>) -> Error {
    Error::Corrupt {
        what: what.into(),
        message: message.into(),
    }
}

impl Row {
    fn new(execution: Execution) -> Self {
        Self {
            status: Status::Queued,
            reason: None,
            worker: None,
            heartbeat_at: None,
            epoch: Epoch::new(0),
            due_at: Some(execution.created_at),
            started_at: None,
            finished_at: None,
            totals: Totals::default(),
            steps: Vec::new(),
            count: 0,
            outcome: None,
            cancel: None,
            crashes: 0,
            wakes: 0,
            wakes_claimed: 0,
            inputs: BTreeMap::new(),
            model: None,
            place: 0,
            waits_turn: false,
            damage: Damage::default(),
            execution,
        }
    }

    pub(crate) const fn is_over(&self) -> bool {
        self.finished_at.is_some()
    }
}

impl Tables {
    /// Refuses everything once it is closed.
    pub(crate) fn open(&self) -> Result<()> {
        if self.is_closed {
            return Err(unavailable("the store is closed", Certainty::NotApplied));
        }
        Ok(())
    }

    pub(crate) const fn close(&mut self) {
        self.is_closed = true;
    }

    pub(crate) fn submit(&mut self, submission: Submission) -> Result<Submitted> {
        if depth(&submission.execution.input) > MAX_DEPTH {
            return Err(internal("the task is nested too deep to be read again"));
        }
        Ok(self.insert(submission))
    }

    /// Accepts an execution unless it is there: by key, by id, by agent and event.
    fn insert(&mut self, submission: Submission) -> Submitted {
        let execution = submission.execution;
        let now = execution.created_at;
        let day = chrono::TimeDelta::days(1);
        if let Some(key) = &submission.idempotency
            && let Some((body, id, at)) = self.keys.get(&key.key)
            && now - *at < day
        {
            return if *body == key.body_hash {
                Submitted::Existing(*id)
            } else {
                Submitted::KeyMismatch
            };
        }
        let same = |row: &&Row| {
            row.execution.id == execution.id
                || (self.plant != Plant::TwicePerEvent
                    && execution.event_id.is_some()
                    && row.execution.event_id == execution.event_id
                    && row.execution.agent == execution.agent)
        };
        if let Some(known) = self.rows.values().find(same) {
            return Submitted::Existing(known.execution.id);
        }
        let origin = execution.origin.clone().filter(|origin| origin.steps > 0);
        let shared = match &origin {
            None => Vec::new(),
            Some(origin) => match self.shared_steps(origin) {
                Some(steps) => steps,
                None => return Submitted::NoOrigin,
            },
        };
        if let Some(refused) = self.refuses(&execution, submission.when_busy) {
            return refused;
        }
        if let Some(key) = submission.idempotency {
            self.keys
                .insert(key.key, (key.body_hash, execution.id, now));
        }
        let mut row = Row::new(execution);
        row.count = shared.len() as u32;
        row.steps = shared;
        self.places += 1;
        row.place = self.places;
        if let Some(line) = self.line(&row.execution) {
            line.push(row.execution.id);
            row.waits_turn = line.len() > 1;
        }
        if row.waits_turn {
            row.due_at = Some(row.execution.deadline);
        }
        if row.execution.conversation.is_some() {
            let name = (
                row.execution.agent.clone(),
                row.execution.conversation.clone(),
            );
            self.touch(name, now);
        }
        self.rows.insert(row.execution.id, row);
        self.send(submission.events);
        self.told.work = true;
        Submitted::New
    }

    /// The steps that another execution is to share, if they are there.
    fn shared_steps(&self, origin: &Origin) -> Option<Vec<Step>> {
        let row = self.rows.get(&origin.id)?;
        let shared = row.steps.iter().take(origin.steps as usize).cloned();
        let shared: Vec<Step> = shared
            .map(|step| Step {
                epoch: Epoch::NONE,
                ..step
            })
            .collect();
        (shared.len() == origin.steps as usize).then_some(shared)
    }

    fn line(&mut self, execution: &Execution) -> Option<&mut Vec<ExecutionId>> {
        let conversation = execution.conversation.clone()?;
        let name = (execution.agent.clone(), conversation);
        Some(self.lines.entry(name).or_default())
    }

    /// Why the conversation takes no more.
    fn refuses(&mut self, execution: &Execution, when_busy: WhenBusy) -> Option<Submitted> {
        let line = self.line(execution)?;
        let waiting = u32::try_from(line.len()).unwrap().saturating_sub(1);
        match (line.first(), when_busy) {
            (Some(first), WhenBusy::Refuse) => Some(Submitted::Busy(*first)),
            (Some(_), WhenBusy::Queue { most }) if waiting >= most => {
                Some(Submitted::Full { waiting })
            }
            _ => None,
        }
    }

    /// Takes an execution that is over out of its conversation's line; the next one there has the turn.
    fn leave_line(&mut self, id: ExecutionId, now: Time) {
        let execution = self.row(id).execution.clone();
        let Some(line) = self.line(&execution) else {
            return;
        };
        line.retain(|other| *other != id);
        let Some(next) = line.first().copied() else {
            return;
        };
        let next = self.row(next);
        if next.waits_turn {
            next.waits_turn = false;
            if next.worker.is_none() {
                next.due_at = next.due_at.min(Some(now));
                self.told.work = true;
            }
        }
    }

    pub(crate) fn ahead(&self, id: ExecutionId) -> Vec<ExecutionId> {
        let line = self.lines.values().find(|line| line.contains(&id));
        let before = line.into_iter().flatten().take_while(|other| **other != id);
        before
            .copied()
            .collect::<Vec<_>>()
            .into_iter()
            .rev()
            .collect()
    }

    /// Adds events to go out; one whose id still waits is there already.
    fn send(&mut self, events: Vec<Event>) {
        for event in events {
            let waits: Option<&Event> = self.outbox.values().find(|e| e.id == event.id);
            if waits.is_none() {
                self.last_event += 1;
                self.outbox.insert(self.last_event, event);
            }
            self.told.events = true;
        }
    }

    pub(crate) fn publish(&mut self, events: Vec<Event>) {
        self.send(events);
    }

    pub(crate) fn first_events(&self, limit: usize) -> Vec<OutboxEntry> {
        let entry = |(id, event): (&i64, &Event)| OutboxEntry {
            id: *id,
            event: event.clone(),
        };
        self.outbox.iter().take(limit).map(entry).collect()
    }

    pub(crate) fn claim_outbox(&mut self, claim: OutboxClaim) -> Vec<OutboxEntry> {
        self.outbox_claims.retain(|_, until| *until > claim.now);
        let claims = &mut self.outbox_claims;
        let free = self
            .outbox
            .iter()
            .filter(|(id, _)| !claims.contains_key(id));
        let taken: Vec<_> = free
            .take(claim.limit)
            .map(|(id, event)| OutboxEntry {
                id: *id,
                event: event.clone(),
            })
            .collect();
        let until = claim.now + claim.lease;
        claims.extend(taken.iter().map(|entry| (entry.id, until)));
        taken
    }

    pub(crate) fn release_outbox(&mut self, ids: &[i64]) {
        for id in ids {
            self.outbox_claims.remove(id);
        }
    }

    pub(crate) fn outbox_done(&mut self, ids: &[i64]) {
        self.release_outbox(ids);
        for id in ids {
            self.outbox.remove(id);
        }
    }

    pub(crate) fn heartbeat(&mut self, worker: Worker, forget_before: Time) {
        self.workers
            .retain(|_, known| known.last_heartbeat >= forget_before);
        self.workers.insert(worker.id.clone(), worker);
    }

    pub(crate) fn workers(&self) -> Vec<Worker> {
        self.workers.values().cloned().collect()
    }

    pub(crate) fn leave(&mut self, worker: &WorkerId) {
        self.workers.remove(worker);
    }

    pub(crate) fn add_dead_letter(&mut self, letter: DeadLetter) {
        self.letters.insert(letter.id.clone(), letter);
    }

    pub(crate) fn dead_letters(&self, page: &Page) -> Vec<DeadLetter> {
        let mut all: Vec<&DeadLetter> = self.letters.values().collect();
        all.sort_by(|a, b| (b.at, &b.id).cmp(&(a.at, &a.id)));
        let is_after = |letter: &&&DeadLetter| match &page.after {
            Some((at, id)) => (letter.at, &letter.id) < (*at, id),
            None => true,
        };
        all.iter()
            .filter(is_after)
            .take(page.limit)
            .map(|letter| (*letter).clone())
            .collect()
    }

    pub(crate) fn remove_dead_letter(&mut self, id: &str) -> bool {
        self.letters.remove(id).is_some()
    }

    /// Whether an event rests as a dead letter.
    pub(crate) fn is_dead(&self, event: &EventId) -> bool {
        self.letters
            .values()
            .any(|letter| letter.event.id == *event)
    }

    /// Makes a step unreadable.
    pub(crate) fn damage_step(&mut self, id: ExecutionId, seq: Seq) {
        self.row(id).damage.steps.insert(seq);
    }

    /// Takes a step away.
    pub(crate) fn remove_step(&mut self, id: ExecutionId, seq: Seq) {
        self.row(id).steps.retain(|step| step.seq != seq);
    }

    /// Makes what was asked unreadable.
    pub(crate) fn damage_task(&mut self, id: ExecutionId) {
        self.row(id).damage.task = true;
    }

    fn row(&mut self, id: ExecutionId) -> &mut Row {
        self.rows.get_mut(&id).expect("a test names what is there")
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or(0),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}
