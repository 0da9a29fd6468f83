//! The store in PostgreSQL 15 or later: for any number of processes on any number of machines.
//!
//! What an execution's owner asks for all the time - accepting, leasing, appending - is gathered ([`gather`]): one
//! statement and one commit serve many executions, each fenced by its epoch inside that statement. Everything else
//! takes a session from a pool ([`pool`]) and is one transaction too; claims and the relay, which ask hundreds of times
//! a second, have a pool to themselves, in which statements are planned once.
//!
//! Sessions that are lost are opened anew with the next request; a request that was on its way says whether it may have
//! happened ([`crate::Certainty`]). [`Store::due_signal`] and [`Store::outbox_signal`] tell of the own process's commits
//! only: what other processes do is found by the bus's hints and by polling. Of work that another process made due, [`listen`] tells within milliseconds, when it is asked to.
//!
//! # Time
//! Leases are compared with a time that the caller hands in. [`Postgres::clock`] goes as the server's does, whatever the
//! host's says.
//!
//! # Locks
//! Every transaction locks in this order, so that few are ever in each other's way: rows of executions by id, then
//! their parents, then their children; callers' keys; new rows; conversations by name, and those who wait in them
//! ([`turns`]); counters, which are spread over slots. Where two cross
//! all the same, the server gives one up and it is performed again.

mod append;
mod asleep;
mod audits;
mod claims;
mod cleanup;
mod clock;
mod configs;
mod connection;
mod copying;
mod dead_letters;
mod errands;
mod fault;
mod fill;
mod finish;
mod firing;
mod gather;
mod inbox;
mod journal;
mod keys;
mod listen;
mod loading;
mod memory;
mod outbox;
mod outgoing;
mod partitions;
mod pins;
mod pool;
mod read;
mod recovery;
mod schedules;
mod schema;
mod settings;
mod shared;
mod sql;
mod states;
mod submit;
mod switches;
mod turns;
mod usage;
mod wake;
mod wire;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::{
    AgentName, ConfigVersion, ConversationId, Event, ExecutionId, Message, Restored, ScheduleName,
    Seq, Step, Time, Worker, WorkerId,
};
use serde_json::Value;
use tokio::sync::Notify;

use self::claims::Hints;
use self::connection::{Conn, Role};
use self::gather::Gatherer;
use self::journal::Appends;
use self::pool::Pool;
use self::settings::Server;
use self::sql::Packing;
use self::submit::Submits;
use crate::{
    AgentState, AgentStats, Append, Appended, CancelAnswer, Claim, Claimed, Cleaned, Cleanup,
    ConfigRecord, ConfigSummary, DeadLetter, DueSchedules, ExecutionFilter, ExecutionRow, Fired,
    Firing, InboxFilter, InputAnswer, NewInput, OpenRequest, OutboxClaim, OutboxEntry, Page,
    Renewal, Result, ScheduleFilter, ScheduleRecord, ScheduleRow, ScheduleRun, SharedAnswer,
    SharedValue, SharedWrite, Signal, StateChange, StateChanged, Store, Submission, Submitted,
    Total, UsageFilter, UsageRow, Waiting,
};

pub use asleep::{Asleep, fill_asleep};
pub use clock::ServerClock;
pub use copying::dump;
pub use fill::fill;
pub use loading::{load, target};
pub use schema::{MigrationStatus, Schema};
pub use settings::Settings;

/// How often it is looked whether the next months have their tables.
const MONTHS_PERIOD: Duration = Duration::from_secs(6 * 60 * 60);

/// How many sessions claims and the relay have for themselves: an engine makes one claim after the other, and one relay
/// carries one batch after the other.
const OFTEN: usize = 4;

/// Who is told after a commit.
#[derive(Debug, Clone, Default)]
struct Signals {
    /// That events wait to be sent out.
    outbox: Arc<Notify>,
    /// That something became due.
    due: Arc<Notify>,
    /// The same, for other processes.
    elsewhere: Arc<Notify>,
}

impl Signals {
    /// Something became due.
    fn work(&self) {
        self.due.notify_one();
        self.elsewhere.notify_one();
    }
}

/// The store on a server. Cheap to clone; all clones are the same store.
#[derive(Debug, Clone)]
pub struct Postgres {
    pool: Pool,
    often: Pool,
    submits: Gatherer<Submits>,
    appends: Vec<Gatherer<Appends>>,
    hints: Gatherer<Hints>,
    signals: Signals,
    turn: claims::Turn,
    clock: ServerClock,
    chores: Arc<[Chore]>,
    packing: Packing,
}

/// What is done from time to time; it ends with the last clone of the store.
#[derive(Debug)]
struct Chore(tokio::task::AbortHandle);

impl Chore {
    fn start(task: impl Future<Output = ()> + Send + 'static) -> Self {
        Self(tokio::spawn(task).abort_handle())
    }

    fn end(&self) {
        self.0.abort();
    }
}

impl Drop for Chore {
    fn drop(&mut self) {
        self.end();
    }
}

impl Postgres {
    /// Connects to a server, and brings the schema up to date or says that it is not.
    ///
    /// # Errors
    /// The server can't be reached, refuses, does not answer, is too old, read-only or out of connections; or the
    /// schema is newer than this program, or older and may not be changed. The message says which and what to do.
    pub async fn connect(settings: Settings) -> Result<Self> {
        let server = Arc::new(Server::new(&settings)?);
        let mut conn = Conn::open(&server, Role::General).await?;
        schema::settle(&mut conn, settings.auto_migrate).await?;
        partitions::prepare(&mut conn).await?;
        let clock = ServerClock::by(&mut conn).await?;
        drop(conn);
        let lanes = settings.append_lanes.max(1);
        let keep = settings.pool_size.saturating_sub(lanes + 2 + OFTEN);
        let keep = keep.max(1);
        let often = Pool::new(
            server.clone(),
            Role::Batches,
            OFTEN,
            OFTEN,
            settings.pool_timeout,
        );
        let pool = Pool::new(
            server.clone(),
            Role::General,
            keep,
            keep + settings.max_overflow,
            settings.pool_timeout,
        );
        let signals = Signals::default();
        let appends = (0..lanes)
            .map(|_| Gatherer::start(Appends, server.clone(), signals.clone()))
            .collect();
        let mut chores = vec![
            Chore::start(prepare_months(pool.clone())),
            Chore::start(clock.clone().follow(pool.clone())),
        ];
        if settings.tells_others {
            let listening = listen::listen(server.clone(), signals.clone());
            chores.push(Chore::start(listening));
        }
        Ok(Self {
            submits: Gatherer::start(Submits, server.clone(), signals.clone()),
            hints: Gatherer::start(Hints, server, signals.clone()),
            appends,
            pool,
            often,
            signals,
            turn: claims::Turn::default(),
            clock,
            chores: chores.into(),
            packing: Packing::above(settings.compress_above),
        })
    }

    /// The server's clock: whoever hands a time to the store takes it from here, so that all processes mean the same.
    pub fn clock(&self) -> ServerClock {
        self.clock.clone()
    }

    /// What the server says that it is.
    ///
    /// # Errors
    /// It can't be asked.
    pub async fn server_version(&self) -> Result<String> {
        let asked = async {
            let mut conn = self.pool.get().await?;
            let row = conn
                .first("SELECT current_setting('server_version')", &[])
                .await?;
            let row = row.ok_or_else(|| fault::internal("the server does not tell its version"))?;
            sql::get::<String>(&row, 0)
        };
        Ok(asked.await?)
    }
}

async fn prepare_months(pool: Pool) {
    loop {
        tokio::time::sleep(MONTHS_PERIOD).await;
        let prepared = async { partitions::prepare(&mut *pool.get().await?).await };
        if let Err(fault) = prepared.await {
            let error = crate::Error::from(fault);
            tracing::warn!(%error, "the next months' tables can't be made; it is tried again");
        }
    }
}

#[async_trait]
impl Store for Postgres {
    async fn submit(&self, submission: Submission) -> Result<Submitted> {
        self.accept(submission).await
    }

    async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>> {
        self.take(claim).await
    }

    async fn renew(&self, renewal: Renewal) -> Result<Vec<Signal>> {
        self.extend(renewal).await
    }

    async fn woken(&self, worker: &WorkerId) -> Result<Vec<Signal>> {
        self.news_for(worker).await
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

    async fn identity(&self) -> Result<Option<String>> {
        self.own_name().await
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
        self.chores.iter().for_each(Chore::end);
        self.submits.close().await;
        self.hints.close().await;
        for lane in &self.appends {
            lane.close().await;
        }
        self.often.close();
        self.pool.close();
        Ok(())
    }
}
