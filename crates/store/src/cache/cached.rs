//! A store with a cache in front of some of its reads.
//!
//! Claims, leases, appends and everything else that makes work go on pass by the cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use domain::fleet::{Switch, SwitchedOff};
use domain::pin::{Pin, Seen, Sight};
use domain::{
    AgentName, ApiKey, ConfigVersion, ConversationId, Delivery, DeliveryId, Event, ExecutionId,
    KeyId, Message, Restored, ScheduleName, Seq, Step, Time, Worker, WorkerId,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Notify;
use uuid::Uuid;

use super::versioned::{self, Versioned};
use super::{Cache, entry};
use crate::{
    AgentState, AgentStats, AlertRecord, Append, Appended, AuditChain, AuditFilter, AuditRow,
    Audits, CancelAnswer, Claim, Claimed, ClaimedDelivery, Cleaned, Cleanup, ConfigRecord,
    ConfigSummary, DeadLetter, DeliveryClaim, DeliveryFilter, DueSchedules, Errand, ErrandChange,
    ErrandClaim, Errands, ExecutionFilter, ExecutionRow, Fired, Firing, InboxFilter, InputAnswer,
    KeyFilter, Keys, NewErrand, NewInput, OpenRequest, OutboxClaim, OutboxEntry, Outgoing, Page,
    Pins, Renewal, Result, ScheduleFilter, ScheduleRecord, ScheduleRow, ScheduleRun, Settlement,
    SharedAnswer, SharedValue, SharedWrite, Signal, StateChange, StateChanged, Store, Submission,
    Submitted, Switches, ToolApproval, Total, UsageFilter, UsageRow, Vitals, Waiting,
};

/// How long copies are kept. No copy is ever wrong; what is deleted from the store may be seen for as long as this.
#[derive(Debug, Clone, Copy)]
pub struct Lifetimes {
    /// Of what agents remember: conversations.
    pub state: Duration,
    /// Of definitions and of executions that are over.
    pub other: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            state: Duration::from_secs(3600),
            other: Duration::from_secs(300),
        }
    }
}

/// A store with a cache in front of it.
pub struct Cached {
    inner: Arc<dyn Store>,
    copies: Copies,
    lifetimes: Lifetimes,
}

impl Cached {
    /// Puts `cache` before `inner`.
    pub fn new(inner: Arc<dyn Store>, cache: Arc<dyn Cache>, lifetimes: Lifetimes) -> Self {
        Self {
            inner,
            copies: Copies::new(cache),
            lifetimes,
        }
    }
}

/// A cache as a place for values instead of bytes.
pub(super) struct Copies {
    cache: Arc<dyn Cache>,
    /// How many copies could not be used.
    refused: AtomicU64,
}

impl Copies {
    pub(super) fn new(cache: Arc<dyn Cache>) -> Self {
        Self {
            cache,
            refused: AtomicU64::new(0),
        }
    }

    /// The copy under a key, if there is one and it is what was asked for. One that is not is removed.
    pub(super) async fn find<T: DeserializeOwned>(
        &self,
        key: &str,
        fits: impl FnOnce(&T) -> bool,
    ) -> Option<T> {
        let found = self.cache.get(key).await;
        let outcome = if found.is_some() { "hit" } else { "miss" };
        metrics::counter!("agentrunner_cache_reads_total", "outcome" => outcome).increment(1);
        let opened = entry::open(key, &found?).and_then(|copy| {
            if fits(&copy) {
                Ok(copy)
            } else {
                Err("it is not what was asked for".to_owned())
            }
        });
        match opened {
            Ok(copy) => Some(copy),
            Err(why) => {
                self.refuse(key, &why).await;
                None
            }
        }
    }

    /// Keeps a copy, unless it is too large.
    pub(super) async fn keep<T: Serialize>(&self, key: &str, value: &T, lifetime: Duration) {
        if let Some(entry) = entry::seal(key, value) {
            self.cache.put(key, entry, lifetime).await;
        }
    }

    async fn refuse(&self, key: &str, why: &str) {
        self.cache.remove(key).await;
        let count = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        // The first, the second, the fourth: whoever damages many must not fill the log.
        if count.is_power_of_two() {
            tracing::warn!(
                key,
                count,
                "a copy in the cache can't be used and was removed: {why}"
            );
        }
    }
}

/// The end of a conversation.
struct Talk<'a> {
    inner: &'a dyn Store,
    agent: &'a AgentName,
    conversation: &'a ConversationId,
    limit: usize,
}

impl Versioned for Talk<'_> {
    type Content = Vec<Message>;

    async fn version(&self) -> Result<Option<String>> {
        let (agent, conversation) = (self.agent, self.conversation);
        self.inner.conversation_version(agent, conversation).await
    }

    async fn content(&self) -> Result<Vec<Message>> {
        let (agent, conversation) = (self.agent, self.conversation);
        self.inner
            .conversation(agent, conversation, self.limit)
            .await
    }

    fn key(&self, version: &str) -> String {
        let (agent, limit, conversation) = (self.agent, self.limit, self.conversation);
        // The conversation's name last: it is the only part that may have a colon.
        format!("conversation:{agent}:{version}:{limit}:{conversation}")
    }

    fn fits(&self, copy: &Vec<Message>) -> bool {
        copy.len() <= self.limit
    }
}

#[async_trait]
impl Store for Cached {
    async fn execution(&self, id: ExecutionId) -> Result<Option<ExecutionRow>> {
        let key = format!("execution:{id}");
        let fits = |row: &ExecutionRow| row.execution.id == id && row.status.is_terminal();
        if let Some(row) = self.copies.find(&key, fits).await {
            return Ok(Some(row));
        }
        let row = self.inner.execution(id).await?;
        if let Some(row) = row.as_ref().filter(|row| row.status.is_terminal()) {
            self.copies.keep(&key, row, self.lifetimes.other).await;
        }
        Ok(row)
    }

    async fn config(
        &self,
        agent: &AgentName,
        version: &ConfigVersion,
    ) -> Result<Option<ConfigRecord>> {
        let key = format!("config:{agent}:{version}");
        let fits = |record: &ConfigRecord| {
            record.definition.name == *agent
                && record.version == *version
                && record.definition.content_hash() == *version
        };
        if let Some(record) = self.copies.find(&key, fits).await {
            return Ok(Some(record));
        }
        let record = self.inner.config(agent, version).await?;
        if let Some(record) = record.as_ref().filter(|record| fits(record)) {
            self.copies.keep(&key, record, self.lifetimes.other).await;
        }
        Ok(record)
    }

    async fn conversation(
        &self,
        agent: &AgentName,
        conversation: &ConversationId,
        limit: usize,
    ) -> Result<Vec<Message>> {
        let inner = self.inner.as_ref();
        let talk = Talk {
            inner,
            agent,
            conversation,
            limit,
        };
        versioned::read(&talk, &self.copies, self.lifetimes.state).await
    }

    // Everything else passes.

    async fn history(
        &self,
        agent: &AgentName,
        conversation: &ConversationId,
        limit: usize,
    ) -> Result<Vec<Message>> {
        self.inner.history(agent, conversation, limit).await
    }

    async fn append(&self, append: Append) -> Result<Appended> {
        self.inner.append(append).await
    }
    async fn submit(&self, submission: Submission) -> Result<Submitted> {
        self.inner.submit(submission).await
    }
    async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>> {
        self.inner.claim(claim).await
    }
    async fn renew(&self, renewal: Renewal) -> Result<Vec<Signal>> {
        self.inner.renew(renewal).await
    }
    async fn woken(&self, worker: &WorkerId) -> Result<Vec<Signal>> {
        self.inner.woken(worker).await
    }
    async fn lease_holders(&self) -> Result<Vec<WorkerId>> {
        self.inner.lease_holders().await
    }
    async fn end_leases(&self, worker: &WorkerId, now: Time) -> Result<u64> {
        self.inner.end_leases(worker, now).await
    }
    async fn waiting(&self, id: ExecutionId) -> Result<Waiting> {
        self.inner.waiting(id).await
    }
    async fn cancel(
        &self,
        id: ExecutionId,
        by: &str,
        reason: &str,
        now: Time,
    ) -> Result<CancelAnswer> {
        self.inner.cancel(id, by, reason, now).await
    }
    async fn deliver_input(&self, input: NewInput) -> Result<InputAnswer> {
        self.inner.deliver_input(input).await
    }
    async fn inbox(&self, filter: InboxFilter) -> Result<(Vec<OpenRequest>, u64)> {
        self.inner.inbox(filter).await
    }
    async fn publish(&self, events: &[Event]) -> Result<()> {
        self.inner.publish(events).await
    }
    async fn outbox(&self, limit: usize) -> Result<Vec<OutboxEntry>> {
        self.inner.outbox(limit).await
    }
    async fn claim_outbox(&self, claim: OutboxClaim) -> Result<Vec<OutboxEntry>> {
        self.inner.claim_outbox(claim).await
    }
    async fn release_outbox(&self, ids: &[i64]) -> Result<()> {
        self.inner.release_outbox(ids).await
    }
    async fn outbox_done(&self, ids: &[i64]) -> Result<()> {
        self.inner.outbox_done(ids).await
    }
    async fn add_dead_letter(&self, letter: DeadLetter) -> Result<()> {
        self.inner.add_dead_letter(letter).await
    }
    async fn dead_letters(&self, page: Page) -> Result<Vec<DeadLetter>> {
        self.inner.dead_letters(page).await
    }
    async fn remove_dead_letter(&self, id: &str) -> Result<bool> {
        self.inner.remove_dead_letter(id).await
    }
    async fn executions(
        &self,
        filter: ExecutionFilter,
        page: Page,
    ) -> Result<(Vec<ExecutionRow>, Total)> {
        self.inner.executions(filter, page).await
    }
    async fn steps(&self, id: ExecutionId, after: Option<Seq>, limit: usize) -> Result<Vec<Step>> {
        self.inner.steps(id, after, limit).await
    }
    async fn agent_stats(&self, agent: Option<&AgentName>) -> Result<Vec<AgentStats>> {
        self.inner.agent_stats(agent).await
    }
    async fn put_config(&self, record: ConfigRecord) -> Result<()> {
        self.inner.put_config(record).await
    }
    async fn config_versions(&self, agent: &AgentName) -> Result<Vec<ConfigSummary>> {
        self.inner.config_versions(agent).await
    }
    async fn remember(
        &self,
        agent: &AgentName,
        key: &str,
        value: &Value,
        idempotency_key: &str,
        now: Time,
    ) -> Result<()> {
        self.inner
            .remember(agent, key, value, idempotency_key, now)
            .await
    }
    async fn recall(
        &self,
        agent: &AgentName,
        like: &str,
        limit: usize,
    ) -> Result<Vec<(String, Value)>> {
        self.inner.recall(agent, like, limit).await
    }
    async fn share(&self, write: SharedWrite) -> Result<SharedAnswer> {
        self.inner.share(write).await
    }
    async fn shared(&self, team: ExecutionId, keys: &[String]) -> Result<Vec<SharedValue>> {
        self.inner.shared(team, keys).await
    }
    async fn usage(&self, filter: UsageFilter) -> Result<Vec<UsageRow>> {
        self.inner.usage(filter).await
    }
    async fn save_schedule(&self, record: ScheduleRecord, seen: Option<u64>) -> Result<bool> {
        self.inner.save_schedule(record, seen).await
    }
    async fn remove_schedule(&self, name: &ScheduleName, seen: u64) -> Result<bool> {
        self.inner.remove_schedule(name, seen).await
    }
    async fn schedule(&self, name: &ScheduleName) -> Result<Option<ScheduleRow>> {
        self.inner.schedule(name).await
    }
    async fn schedules(&self, filter: ScheduleFilter) -> Result<(Vec<ScheduleRow>, u64)> {
        self.inner.schedules(filter).await
    }
    async fn due_schedules(&self, now: Time, ahead: Time, limit: usize) -> Result<DueSchedules> {
        self.inner.due_schedules(now, ahead, limit).await
    }
    async fn fire(&self, firings: Vec<Firing>) -> Result<Vec<Fired>> {
        self.inner.fire(firings).await
    }
    async fn schedule_runs(
        &self,
        name: &ScheduleName,
        before: Option<Time>,
        limit: usize,
    ) -> Result<(Vec<ScheduleRun>, u64)> {
        self.inner.schedule_runs(name, before, limit).await
    }
    async fn heartbeat(&self, worker: Worker, forget_before: Time) -> Result<()> {
        self.inner.heartbeat(worker, forget_before).await
    }
    async fn workers(&self) -> Result<Vec<Worker>> {
        self.inner.workers().await
    }
    async fn leave(&self, worker: &WorkerId) -> Result<()> {
        self.inner.leave(worker).await
    }
    async fn cleanup(&self, cleanup: Cleanup) -> Result<Cleaned> {
        self.inner.cleanup(cleanup).await
    }
    async fn check(&self) -> Result<()> {
        self.inner.check().await
    }
    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
    fn outbox_signal(&self) -> Option<Arc<Notify>> {
        self.inner.outbox_signal()
    }
    fn due_signal(&self) -> Option<Arc<Notify>> {
        self.inner.due_signal()
    }
    async fn conversation_version(
        &self,
        agent: &AgentName,
        conversation: &ConversationId,
    ) -> Result<Option<String>> {
        self.inner.conversation_version(agent, conversation).await
    }
    async fn ahead(&self, id: ExecutionId) -> Result<Vec<ExecutionId>> {
        self.inner.ahead(id).await
    }
    async fn agent_state(
        &self,
        agent: &AgentName,
        conversation: Option<&ConversationId>,
        messages: usize,
    ) -> Result<Option<AgentState>> {
        self.inner.agent_state(agent, conversation, messages).await
    }
    async fn change_state(&self, change: StateChange) -> Result<StateChanged> {
        self.inner.change_state(change).await
    }
    async fn identity(&self) -> Result<Option<String>> {
        self.inner.identity().await
    }
    async fn restored(&self) -> Result<Option<Restored>> {
        self.inner.restored().await
    }
}

#[async_trait]
impl Keys for Cached {
    async fn add_key(&self, key: ApiKey) -> Result<bool> {
        self.inner.add_key(key).await
    }
    async fn keys(&self, filter: KeyFilter) -> Result<Vec<ApiKey>> {
        self.inner.keys(filter).await
    }
    async fn revoke_key(&self, id: KeyId, by: &str, now: Time) -> Result<bool> {
        self.inner.revoke_key(id, by, now).await
    }
    async fn note_key_use(&self, uses: &[(KeyId, Time)]) -> Result<()> {
        self.inner.note_key_use(uses).await
    }
}

#[async_trait]
impl Switches for Cached {
    async fn switch_agent(&self, agent: &AgentName, off: Option<SwitchedOff>) -> Result<()> {
        self.inner.switch_agent(agent, off).await
    }
    async fn restart_agent(&self, agent: &AgentName) -> Result<u64> {
        self.inner.restart_agent(agent).await
    }
    async fn switches(&self) -> Result<Vec<Switch>> {
        self.inner.switches().await
    }
}

#[async_trait]
impl Pins for Cached {
    async fn see_tools(&self, agent: &AgentName, sights: &[Sight], now: Time) -> Result<Vec<Seen>> {
        self.inner.see_tools(agent, sights, now).await
    }
    async fn changed_tools(&self, agent: Option<&AgentName>) -> Result<Vec<Pin>> {
        self.inner.changed_tools(agent).await
    }
    async fn approve_tool(&self, approval: ToolApproval) -> Result<bool> {
        self.inner.approve_tool(approval).await
    }
}

#[async_trait]
impl Errands for Cached {
    async fn add_errand(&self, errand: NewErrand) -> Result<bool> {
        self.inner.add_errand(errand).await
    }
    async fn claim_errands(&self, claim: ErrandClaim) -> Result<Vec<Errand>> {
        self.inner.claim_errands(claim).await
    }
    async fn save_errand(&self, change: ErrandChange) -> Result<bool> {
        self.inner.save_errand(change).await
    }
    async fn wake_errand(&self, id: &str, now: Time) -> Result<bool> {
        self.inner.wake_errand(id, now).await
    }
    async fn errand(&self, id: &str) -> Result<Option<Errand>> {
        self.inner.errand(id).await
    }
    async fn forget_errands(&self, before: Time) -> Result<u64> {
        self.inner.forget_errands(before).await
    }
}

#[async_trait]
impl Audits for Cached {
    async fn append_audit(&self, chain: AuditChain, rows: Vec<AuditRow>) -> Result<()> {
        self.inner.append_audit(chain, rows).await
    }
    async fn audit_rows(&self, filter: AuditFilter) -> Result<Vec<AuditRow>> {
        self.inner.audit_rows(filter).await
    }
    async fn audit_chains(&self) -> Result<Vec<AuditChain>> {
        self.inner.audit_chains().await
    }
    async fn audit_chain(&self, chain: Uuid, after: u64, limit: usize) -> Result<Vec<AuditRow>> {
        self.inner.audit_chain(chain, after, limit).await
    }
    async fn audit_before(&self, chain: Uuid, time: Time) -> Result<Option<AuditRow>> {
        self.inner.audit_before(chain, time).await
    }
    async fn forget_audit(&self, chain: Uuid, through: u64, anchor: &str) -> Result<()> {
        self.inner.forget_audit(chain, through, anchor).await
    }
}

#[async_trait]
impl Outgoing for Cached {
    async fn claim_deliveries(&self, claim: DeliveryClaim) -> Result<Vec<ClaimedDelivery>> {
        self.inner.claim_deliveries(claim).await
    }
    async fn settle_delivery(&self, settlement: Settlement) -> Result<bool> {
        self.inner.settle_delivery(settlement).await
    }
    async fn resend_delivery(&self, id: DeliveryId, now: Time) -> Result<Option<Delivery>> {
        self.inner.resend_delivery(id, now).await
    }
    async fn delivery(&self, id: DeliveryId) -> Result<Option<Delivery>> {
        self.inner.delivery(id).await
    }
    async fn deliveries(&self, filter: DeliveryFilter) -> Result<Vec<Delivery>> {
        self.inner.deliveries(filter).await
    }
    async fn vitals(&self, since: &[Time], overdue: Time) -> Result<Vitals> {
        self.inner.vitals(since, overdue).await
    }
    async fn alert_state(&self) -> Result<AlertRecord> {
        self.inner.alert_state().await
    }
    async fn save_alert_state(
        &self,
        record: AlertRecord,
        tell: Vec<Delivery>,
        now: Time,
    ) -> Result<bool> {
        self.inner.save_alert_state(record, tell, now).await
    }
}
