//! The journal and its neighbours behind one trait.
//!
//! A method of [`Store`] is a verb of the step protocol and one whole transaction. Whatever answers `Ok` is durable.
//! A write by an execution's owner carries its lease epoch and changes nothing when the epoch is not the current
//! one: that is what keeps a paused and resumed worker from writing.
//!
//! # How work becomes due
//! Every unfinished execution has a `due_at`: the moment from which it may be claimed. Accepted: now. Leased: the
//! lease's end. Parked: its time-out, or the time of a retry. A wake-up (an answer, a child's end, a cancellation)
//! sets it to now. So one column is queue, lease, timer and crash recovery at once, and one index finds all work.
//!
//! # Conversations
//! Executions of one (agent, conversation) are performed in the order in which they were accepted, one at a time. One of
//! them has the turn; the others are not due before their deadline. The end of the one that has it, however it comes,
//! gives it to the next in the same transaction. Only the one that has the turn changes what the conversation holds, so
//! that what it reads there is the same each time it reads.
//!
//! What time it is, the caller says. Callers of one store must mean the same: processes on one server take the server's
//! ([`postgres::Postgres::clock`]), processes on one file the host's.

mod audits;
pub mod cache;
mod codec;
mod consumption;
pub mod copying;
pub mod counters;
mod errands;
mod error;
pub mod intercept;
mod keys;
mod lists;
mod news;
mod outgoing;
mod pins;
pub mod postgres;
pub mod preflight;
pub mod redis;
mod request;
mod schedules;
pub mod sqlite;
mod stats;
mod switches;

use std::sync::Arc;

use async_trait::async_trait;
use domain::{
    AgentName, ConfigVersion, ConversationId, Event, ExecutionId, Message, Restored, ScheduleName,
    Seq, Step, Time, Worker, WorkerId,
};
use serde_json::Value;
use tokio::sync::Notify;

pub use audits::{AuditChain, AuditFilter, AuditRow, Audits};
pub use errands::{Errand, ErrandChange, ErrandClaim, ErrandNext, Errands, NewErrand};
pub use error::{Certainty, Class, Error};
pub use keys::{KeyFilter, Keys};
pub use lists::{
    AgentStats, COUNTED_AT_MOST, DeadLetter, ExecutionFilter, ExecutionRow, InboxFilter,
    OpenRequest, Page, Total, UsageFilter, UsageRow,
};
pub use outgoing::{
    AlertRecord, ClaimedDelivery, DeliveryClaim, DeliveryFilter, DeliveryKind, Outgoing, Settled,
    Settlement, Vitals,
};
pub use pins::{Pins, ToolApproval};
pub use request::{
    AgentState, Append, Appended, CancelAnswer, Change, Claim, Claimed, Cleaned, Cleanup,
    ConfigRecord, ConfigSummary, Digest, EndedChild, IdempotencyKey, InputAnswer, NewInput,
    OutboxClaim, OutboxEntry, PendingInput, Renewal, SharedAnswer, SharedValue, SharedWrite,
    Signal, StateChange, StateChanged, Submission, Submitted, Then, Waiting, WhenBusy,
};
pub use schedules::{
    DueSchedule, DueSchedules, Fate, Fired, Firing, ManagedBy, NewRun, OpenRun, RunKind, RunState,
    ScheduleFilter, ScheduleRecord, ScheduleRow, ScheduleRun,
};
pub use switches::Switches;

/// What a store answers.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The journal and its neighbours; what is kept of keys is at [`Keys`], of the audit log at [`Audits`], what people said
/// of agents at [`Switches`], of errands at [`Errands`], of what is sent out at [`Outgoing`], of what tools were approved as
/// at [`Pins`].
#[async_trait]
pub trait Store: Keys + Audits + Switches + Errands + Outgoing + Pins {
    /// Accepts an execution: row, outgoing events, deduplication, its place in its conversation and the steps that it
    /// shares with its origin in one transaction. The shared ones are copied, as no lease's
    /// ([`domain::Epoch::NONE`]) and as nobody's consumption.
    /// May be repeated: the same id, idempotency key or (agent, event id) is accepted once.
    async fn submit(&self, submission: Submission) -> Result<Submitted>;

    /// Takes leases on due executions: high priority first, then in turn between agents, then the longest due.
    /// Each one taken gets the next epoch. An execution whose earlier lease ran out counts one more crash. One that
    /// can't be read is ended as failed ([`domain::FailureCode::Corrupt`]) and holds up no other.
    async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>>;

    /// Extends leases and tells what the owner should know; leases without news are not in the answer. That a lease
    /// was woken since it was claimed is told each time: the count of wake-ups says whether it is news.
    async fn renew(&self, renewal: Renewal) -> Result<Vec<Signal>>;

    /// Which leases of a worker were woken since they were claimed, as [`Store::renew`] tells it, without renewing them:
    /// cheap enough to be asked all the time, so that a cancellation in one process is soon heard in another. A store
    /// that is one process's own may leave it to the renewal, since that process hears of its own commits at once.
    async fn woken(&self, worker: &WorkerId) -> Result<Vec<Signal>>;

    /// Who holds leases.
    async fn lease_holders(&self) -> Result<Vec<WorkerId>>;

    /// Makes everything that a worker holds due at once, as if its leases had run out; answers how much that was. For
    /// a worker that is known to be gone.
    async fn end_leases(&self, worker: &WorkerId, now: Time) -> Result<u64>;

    /// Commits steps of an execution and what follows from them, fenced by the epoch: all or nothing. A lease that was
    /// given up or taken over is lost, even when nobody else has claimed yet. May be repeated when the answer was
    /// lost: steps that the journal has under the same lease are applied. Steps that do not follow the journal are an
    /// error and change nothing.
    async fn append(&self, append: Append) -> Result<Appended>;

    /// What has come for a leased execution since it was claimed: answers, ended children, a cancellation.
    async fn waiting(&self, id: ExecutionId) -> Result<Waiting>;

    /// Asks for the end of an execution and of all that work for it, and wakes them; one that nobody has begun ends at
    /// once. The first to ask is the one whose word is kept.
    async fn cancel(
        &self,
        id: ExecutionId,
        by: &str,
        reason: &str,
        now: Time,
    ) -> Result<CancelAnswer>;

    /// Gives a person's answer to an open request, once, and wakes the execution. A request is open until its `until`
    /// has come, an answer is in the journal, or the execution is over.
    async fn deliver_input(&self, input: NewInput) -> Result<InputAnswer>;

    /// The questions that wait for a person, by execution and step, and how many there are in all.
    async fn inbox(&self, filter: InboxFilter) -> Result<(Vec<OpenRequest>, u64)>;

    /// Takes events to be sent out; one whose id is still waiting to go out is taken once.
    async fn publish(&self, events: &[Event]) -> Result<()>;

    /// The oldest undelivered events, at most `limit`, whoever has claimed them. For looking at.
    async fn outbox(&self, limit: usize) -> Result<Vec<OutboxEntry>>;

    /// Takes the oldest undelivered events that no other relay has. Until the claim runs out nobody else gets them;
    /// after it, anybody does: a relay that died only delays them. Not durable, and two relays may still get the same
    /// when their clocks disagree or one is slow, so consumers deduplicate. An event that can't be read is passed over.
    async fn claim_outbox(&self, claim: OutboxClaim) -> Result<Vec<OutboxEntry>>;

    /// Gives back claimed events that could not be delivered: anybody may take them at once.
    async fn release_outbox(&self, ids: &[i64]) -> Result<()>;

    /// Forgets delivered events.
    async fn outbox_done(&self, ids: &[i64]) -> Result<()>;

    /// Is notified after each commit of this process that added events to go out, so that a relay need not poll for
    /// them. For one listener: a notification that comes while nobody listens is kept, and several become one.
    fn outbox_signal(&self) -> Option<Arc<Notify>> {
        None
    }

    /// Is notified after each commit of this process that made an execution due at once. For one listener, as
    /// [`Store::outbox_signal`]; leases that run out and timers that come up are found by polling only.
    fn due_signal(&self) -> Option<Arc<Notify>> {
        None
    }

    /// Keeps an event that could not be delivered or processed.
    async fn add_dead_letter(&self, letter: DeadLetter) -> Result<()>;

    /// Events that could not be delivered, newest first.
    async fn dead_letters(&self, page: Page) -> Result<Vec<DeadLetter>>;

    /// Forgets one; tells whether it was there.
    async fn remove_dead_letter(&self, id: &str) -> Result<bool>;

    /// One execution.
    async fn execution(&self, id: ExecutionId) -> Result<Option<ExecutionRow>>;

    /// Executions, newest first, and how many there are in all. Those that can't be read are counted and left out.
    /// The total is exact and cheap when only agent and states are asked for; else it looks at every match, and stops
    /// at [`COUNTED_AT_MOST`].
    async fn executions(
        &self,
        filter: ExecutionFilter,
        page: Page,
    ) -> Result<(Vec<ExecutionRow>, Total)>;

    /// The steps of an execution after `after`, oldest first, at most `limit`.
    async fn steps(&self, id: ExecutionId, after: Option<Seq>, limit: usize) -> Result<Vec<Step>>;

    /// Counts of an agent's executions; of all agents when `None`.
    async fn agent_stats(&self, agent: Option<&AgentName>) -> Result<Vec<AgentStats>>;

    /// Keeps a version of a definition; the same version again changes nothing but which one is current.
    async fn put_config(&self, record: ConfigRecord) -> Result<()>;

    /// A version of a definition.
    async fn config(
        &self,
        agent: &AgentName,
        version: &ConfigVersion,
    ) -> Result<Option<ConfigRecord>>;

    /// The versions of an agent, newest first.
    async fn config_versions(&self, agent: &AgentName) -> Result<Vec<ConfigSummary>>;

    /// The unfinished executions of the same conversation that were accepted before this one, the first last.
    async fn ahead(&self, id: ExecutionId) -> Result<Vec<ExecutionId>>;

    /// The last messages of a conversation, oldest first, at most `limit`. To whoever has the turn in it, they are the
    /// same each time.
    async fn conversation(
        &self,
        agent: &AgentName,
        conversation: &ConversationId,
        limit: usize,
    ) -> Result<Vec<Message>>;

    /// The same at an execution's first claim. Its turn has just come, with a change of the conversation, so nobody can have
    /// a copy: none is looked for, and none is made.
    async fn history(
        &self,
        agent: &AgentName,
        conversation: &ConversationId,
        limit: usize,
    ) -> Result<Vec<Message>> {
        self.conversation(agent, conversation, limit).await
    }

    /// A word for what a conversation is now: another one after each commit that changes it, and never one that was
    /// used before. `None` when nothing was said, or when this store can't tell. Cheap.
    async fn conversation_version(
        &self,
        _agent: &AgentName,
        _conversation: &ConversationId,
    ) -> Result<Option<String>> {
        Ok(None)
    }

    /// A word that no other store has, nor one that was at the same place before; `None` when it can't be told.
    async fn identity(&self) -> Result<Option<String>> {
        Ok(None)
    }

    /// The latest restore of a backup into this database; `None` when there was none.
    async fn restored(&self) -> Result<Option<Restored>> {
        Ok(None)
    }

    /// What is kept under the name of a conversation, or of an agent, with at most `messages` of its messages.
    async fn agent_state(
        &self,
        agent: &AgentName,
        conversation: Option<&ConversationId>,
        messages: usize,
    ) -> Result<Option<AgentState>>;

    /// Changes it, if it is as expected, and its messages only if no execution has the turn.
    async fn change_state(&self, change: StateChange) -> Result<StateChanged>;

    /// Keeps a fact of an agent under a key; the same `idempotency_key` changes nothing more.
    async fn remember(
        &self,
        agent: &AgentName,
        key: &str,
        value: &Value,
        idempotency_key: &str,
        now: Time,
    ) -> Result<()>;

    /// Facts of an agent whose key contains `like`, newest first, at most `limit`.
    async fn recall(
        &self,
        agent: &AgentName,
        like: &str,
        limit: usize,
    ) -> Result<Vec<(String, Value)>>;

    /// Writes a value of a team's shared state as a new version, as long as its coordinator is not over. Writes to one
    /// team happen one after the other. May be repeated: the same idempotency key writes once and is answered the same.
    async fn share(&self, write: SharedWrite) -> Result<SharedAnswer>;

    /// The latest versions of a team's shared state, by key: of these keys, or of all when none is named.
    async fn shared(&self, team: ExecutionId, keys: &[String]) -> Result<Vec<SharedValue>>;

    /// Tokens and cost by agent, model and UTC day, oldest day first. Kept by [`Store::append`] from the steps; tool
    /// calls, delegations among them, count with the model that wanted them.
    async fn usage(&self, filter: UsageFilter) -> Result<Vec<UsageRow>>;

    /// Notes what a worker says of itself, in the place of what it said before; and forgets those that were heard of
    /// last before `forget_before`. Nothing is decided by it: leases say who may write.
    async fn heartbeat(&self, worker: Worker, forget_before: Time) -> Result<()>;

    /// The workers that are known, alive or not, by id. Those that can't be read are left out.
    async fn workers(&self) -> Result<Vec<Worker>>;

    /// Forgets a worker that ends in order. May be repeated.
    async fn leave(&self, worker: &WorkerId) -> Result<()>;

    /// Forgets executions that were over before a time, with their journals, tasks, questions and results, but not the
    /// children of one that goes on; and conversations and dead letters of which nothing was heard since. What they consumed
    /// stays counted. A call is many small transactions and deletes
    /// so much only, then says that there is more; where months can be dropped whole, an execution is kept until its
    /// month is over. May be repeated.
    async fn cleanup(&self, cleanup: Cleanup) -> Result<Cleaned>;

    /// Keeps a schedule as it is given, if it is as the caller has seen it: with the version `seen`, or not there at all.
    /// Its version becomes the next one. Answers whether it was kept; otherwise nothing was changed.
    async fn save_schedule(&self, record: ScheduleRecord, seen: Option<u64>) -> Result<bool>;

    /// Forgets a schedule and its runs, if it has this version; executions stay. Answers whether it is forgotten.
    async fn remove_schedule(&self, name: &ScheduleName, seen: u64) -> Result<bool>;

    /// One schedule, with its latest run.
    async fn schedule(&self, name: &ScheduleName) -> Result<Option<ScheduleRow>>;

    /// Schedules by name, and how many match in all. Those that can't be read are counted and left out.
    async fn schedules(&self, filter: ScheduleFilter) -> Result<(Vec<ScheduleRow>, u64)>;

    /// What is to be looked at now, the longest due first, at most about `limit`; also what is done with beyond
    /// `ahead`, which is what a clock that has gone back leaves behind. Several schedulers may be given the same.
    async fn due_schedules(&self, now: Time, ahead: Time, limit: usize) -> Result<DueSchedules>;

    /// Does what looks at schedules have come to: for each, all or nothing, rows and executions together. A schedule
    /// that has changed since it was seen is left alone, so that however many schedulers look, one acts. May be
    /// repeated. The answers are in the order of the firings.
    async fn fire(&self, firings: Vec<Firing>) -> Result<Vec<Fired>>;

    /// The runs of a schedule, the latest fire time first; after the fire time `before`, at most `limit`; and how many
    /// there are.
    async fn schedule_runs(
        &self,
        name: &ScheduleName,
        before: Option<Time>,
        limit: usize,
    ) -> Result<(Vec<ScheduleRun>, u64)>;

    /// Reads and writes something trivial: fails when the store cannot take work.
    async fn check(&self) -> Result<()>;

    /// Waits until everything that was accepted is on disk, and closes. Later calls fail.
    async fn close(&self) -> Result<()>;
}
