//! The store in one file of SQLite: for one machine, with nothing installed.
//!
//! One thread writes and commits in groups (`sqlite/writer.rs`); a few connections read (`sqlite/readers.rs`). A commit is on disk
//! when it is acknowledged: write-ahead log, `synchronous = FULL`.
//!
//! Several processes may use the same file at once, say a server and a command that reads: SQLite lets one of them
//! write at a time, the epochs keep their workers apart. What one process is not told is that another has made
//! something due: [`Store::due_signal`] and [`Store::outbox_signal`] tell of the own process's commits only, so
//! polling goes on beside them. The file must be on a local disk.

mod audits;
mod claims;
mod cleanup;
mod configs;
mod connection;
mod copying;
mod dead_letters;
mod errands;
mod fault;
mod finish;
mod firing;
mod inbox;
mod journal;
mod keys;
mod memory;
mod outbox;
mod outgoing;
mod pins;
mod read;
mod readers;
mod recovery;
mod schedules;
mod schema;
mod shared;
mod sql;
mod states;
mod submit;
mod switches;
mod turns;
mod usage;
mod wake;
mod workers;
mod writer;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::{
    AgentName, ConfigVersion, ConversationId, Event, ExecutionId, Message, Restored, ScheduleName,
    Seq, Step, Time, Worker, WorkerId,
};
use serde_json::Value;
use tokio::sync::Notify;

use self::readers::Readers;
use self::sql::Packing;
use self::writer::{Signals, Writer};
use crate::{
    AgentState, AgentStats, Append, Appended, CancelAnswer, Claim, Claimed, Cleaned, Cleanup,
    ConfigRecord, ConfigSummary, DeadLetter, DueSchedules, ExecutionFilter, ExecutionRow, Fired,
    Firing, InboxFilter, InputAnswer, NewInput, OpenRequest, OutboxClaim, OutboxEntry, Page,
    Renewal, Result, ScheduleFilter, ScheduleRecord, ScheduleRow, ScheduleRun, SharedAnswer,
    SharedValue, SharedWrite, Signal, StateChange, StateChanged, Store, Submission, Submitted,
    Total, UsageFilter, UsageRow, Waiting,
};

pub use copying::{dump, load, target};
pub(crate) use schema::NEWEST;
pub use schema::{MigrationStatus, Schema};

/// How the file is used.
#[derive(Debug, Clone)]
pub struct Options {
    /// How many reads go on at once.
    pub readers: usize,
    /// Whether an acknowledged write survives the loss of power. Without it, it survives the loss of the process:
    /// for tests only.
    pub is_durable: bool,
    /// How long another process's write is waited for.
    pub busy_timeout: Duration,
    /// Tasks, steps, results, messages and facts longer than this are kept compressed, in bytes.
    pub compress_above: usize,
    /// The most pages of 4 KiB that the file may have; a full one is what a full disk is. For tests.
    pub max_pages: Option<u32>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            readers: 4,
            is_durable: true,
            busy_timeout: Duration::from_secs(5),
            compress_above: 1 << 20,
            max_pages: None,
        }
    }
}

/// The store in a file. Cheap to clone; all clones are the same store.
#[derive(Debug, Clone)]
pub struct Sqlite {
    writer: Writer,
    readers: Readers,
    signals: Signals,
    turn: claims::Turn,
    packing: Packing,
}

impl Sqlite {
    /// Opens the database at `path`, made if it is missing and brought to the current schema if it is older. Folder
    /// and file are made for this user alone. Blocks while it reads and, at times, migrates.
    ///
    /// # Errors
    /// It can't be opened or written, is not ours, is damaged, or was made by a newer program; the message says what
    /// to do, and the file is as it was.
    pub fn open(path: &Path, options: Options) -> Result<Self> {
        let path = connection::prepare(path)?;
        let mut conn = connection::open(&path, &options)?;
        schema::check(&conn, &path)?;
        connection::check_writable(&conn, &path)?;
        connection::set_log(&conn, &path)?;
        connection::set_writer(&conn, &options)?;
        schema::up(&mut conn)?;
        let signals = Signals::default();
        Ok(Self {
            writer: Writer::start(conn, signals.clone())?,
            packing: Packing::above(options.compress_above),
            readers: Readers::new(path, options),
            signals,
            turn: claims::Turn::default(),
        })
    }
}

#[async_trait]
impl Store for Sqlite {
    async fn submit(&self, submission: Submission) -> Result<Submitted> {
        self.accept(submission).await
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>> {
        self.take(claim).await
    }

    async fn renew(&self, renewal: Renewal) -> Result<Vec<Signal>> {
        self.extend(renewal).await
    }

    async fn woken(&self, _worker: &WorkerId) -> Result<Vec<Signal>> {
        // Left to the renewal: there is no index by worker, and mostly one process.
        Ok(Vec::new())
    }

    async fn lease_holders(&self) -> Result<Vec<WorkerId>> {
        self.holders().await
    }

    async fn end_leases(&self, worker: &WorkerId, now: Time) -> Result<u64> {
        self.give_up_leases(worker, now).await
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        self.commit(append).await
    }

    async fn waiting(&self, id: ExecutionId) -> Result<Waiting> {
        self.news_of(id).await
    }

    async fn cancel(
        &self,
        id: ExecutionId,
        by: &str,
        reason: &str,
        now: Time,
    ) -> Result<CancelAnswer> {
        self.ask_to_end(id, by, reason, now).await
    }

    async fn deliver_input(&self, input: NewInput) -> Result<InputAnswer> {
        self.answer(input).await
    }

    async fn inbox(&self, filter: InboxFilter) -> Result<(Vec<OpenRequest>, u64)> {
        self.open_requests(filter).await
    }

    async fn publish(&self, events: &[Event]) -> Result<()> {
        self.send_out(events).await
    }

    async fn outbox(&self, limit: usize) -> Result<Vec<OutboxEntry>> {
        self.waiting_events(limit).await
    }

    async fn claim_outbox(&self, claim: OutboxClaim) -> Result<Vec<OutboxEntry>> {
        self.claim_events(claim).await
    }

    async fn release_outbox(&self, ids: &[i64]) -> Result<()> {
        self.release_events(ids).await
    }

    async fn outbox_done(&self, ids: &[i64]) -> Result<()> {
        self.forget_events(ids).await
    }

    fn outbox_signal(&self) -> Option<Arc<Notify>> {
        Some(self.signals.outbox.clone())
    }

    fn due_signal(&self) -> Option<Arc<Notify>> {
        Some(self.signals.due.clone())
    }

    async fn add_dead_letter(&self, letter: DeadLetter) -> Result<()> {
        self.bury(letter).await
    }

    async fn dead_letters(&self, page: Page) -> Result<Vec<DeadLetter>> {
        self.list_dead_letters(page).await
    }

    async fn remove_dead_letter(&self, id: &str) -> Result<bool> {
        self.forget_dead_letter(id).await
    }

    async fn execution(&self, id: ExecutionId) -> Result<Option<ExecutionRow>> {
        self.one_execution(id).await
    }

    async fn executions(
        &self,
        filter: ExecutionFilter,
        page: Page,
    ) -> Result<(Vec<ExecutionRow>, Total)> {
        self.list_executions(filter, page).await
    }

    async fn steps(&self, id: ExecutionId, after: Option<Seq>, limit: usize) -> Result<Vec<Step>> {
        self.journal(id, after, limit).await
    }

    async fn agent_stats(&self, agent: Option<&AgentName>) -> Result<Vec<AgentStats>> {
        self.count_executions(agent).await
    }

    async fn put_config(&self, record: ConfigRecord) -> Result<()> {
        self.keep_config(record).await
    }

    async fn config(
        &self,
        agent: &AgentName,
        version: &ConfigVersion,
    ) -> Result<Option<ConfigRecord>> {
        self.one_config(agent, version).await
    }

    async fn config_versions(&self, agent: &AgentName) -> Result<Vec<ConfigSummary>> {
        self.list_configs(agent).await
    }

    async fn ahead(&self, id: ExecutionId) -> Result<Vec<ExecutionId>> {
        self.before(id).await
    }

    async fn conversation(
        &self,
        agent: &AgentName,
        conversation: &ConversationId,
        limit: usize,
    ) -> Result<Vec<Message>> {
        self.last_messages(agent, conversation, limit).await
    }

    async fn conversation_version(
        &self,
        agent: &AgentName,
        conversation: &ConversationId,
    ) -> Result<Option<String>> {
        self.talk_version(agent, conversation).await
    }

    async fn restored(&self) -> Result<Option<Restored>> {
        self.latest_restore().await
    }

    async fn agent_state(
        &self,
        agent: &AgentName,
        conversation: Option<&ConversationId>,
        messages: usize,
    ) -> Result<Option<AgentState>> {
        self.kept(agent, conversation, messages).await
    }

    async fn change_state(&self, change: StateChange) -> Result<StateChanged> {
        self.change(change).await
    }

    async fn remember(
        &self,
        agent: &AgentName,
        key: &str,
        value: &Value,
        idempotency_key: &str,
        now: Time,
    ) -> Result<()> {
        self.keep_fact(agent, key, value, idempotency_key, now)
            .await
    }

    async fn recall(
        &self,
        agent: &AgentName,
        like: &str,
        limit: usize,
    ) -> Result<Vec<(String, Value)>> {
        self.facts(agent, like, limit).await
    }

    async fn share(&self, write: SharedWrite) -> Result<SharedAnswer> {
        self.write_shared(write).await
    }

    async fn shared(&self, team: ExecutionId, keys: &[String]) -> Result<Vec<SharedValue>> {
        self.read_shared(team, keys).await
    }

    async fn usage(&self, filter: UsageFilter) -> Result<Vec<UsageRow>> {
        self.list_usage(filter).await
    }

    async fn heartbeat(&self, worker: Worker, forget_before: Time) -> Result<()> {
        self.note_worker(worker, forget_before).await
    }

    async fn workers(&self) -> Result<Vec<Worker>> {
        self.list_workers().await
    }

    async fn leave(&self, worker: &WorkerId) -> Result<()> {
        self.forget_worker(worker).await
    }

    async fn cleanup(&self, cleanup: Cleanup) -> Result<Cleaned> {
        self.forget(cleanup).await
    }

    async fn save_schedule(&self, record: ScheduleRecord, seen: Option<u64>) -> Result<bool> {
        self.keep_schedule(record, seen).await
    }

    async fn remove_schedule(&self, name: &ScheduleName, seen: u64) -> Result<bool> {
        self.forget_schedule(name, seen).await
    }

    async fn schedule(&self, name: &ScheduleName) -> Result<Option<ScheduleRow>> {
        self.one_schedule(name).await
    }

    async fn schedules(&self, filter: ScheduleFilter) -> Result<(Vec<ScheduleRow>, u64)> {
        self.list_schedules(filter).await
    }

    async fn due_schedules(&self, now: Time, ahead: Time, limit: usize) -> Result<DueSchedules> {
        self.schedules_to_look_at(now, ahead, limit).await
    }

    async fn fire(&self, firings: Vec<Firing>) -> Result<Vec<Fired>> {
        self.act(firings).await
    }

    async fn schedule_runs(
        &self,
        name: &ScheduleName,
        before: Option<Time>,
        limit: usize,
    ) -> Result<(Vec<ScheduleRun>, u64)> {
        self.list_runs(name, before, limit).await
    }

    async fn check(&self) -> Result<()> {
        self.read_and_write().await
    }

    async fn close(&self) -> Result<()> {
        self.readers.close();
        self.writer.close().await
    }
}
