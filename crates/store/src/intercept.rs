//! A store that lets somebody step in at every commit of an execution's owner, and before what it reads on its way: for
//! tests that break things there, and that stop the process at an exact point of the step protocol.

use std::sync::Arc;

use async_trait::async_trait;
use domain::fleet::{Switch, SwitchedOff};
use domain::pin::{Pin, Seen, Sight};
use domain::{
    AgentName, ApiKey, ConfigVersion, ConversationId, Delivery, DeliveryId, Event, ExecutionId,
    KeyId, Message, Restored, ScheduleName, Seq, Step, Time, Worker, WorkerId,
};
use serde_json::Value;
use uuid::Uuid;

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

/// Steps in at a commit.
#[async_trait]
pub trait Intercept: Send + Sync + 'static {
    /// Called in the place of [`Store::append`]; passes it on to `inner` or does not.
    async fn append(&self, inner: &dyn Store, append: Append) -> Result<Appended>;

    /// Called in the place of [`Store::fire`]; passes it on to `inner` or does not.
    async fn fire(&self, inner: &dyn Store, firings: Vec<Firing>) -> Result<Vec<Fired>> {
        inner.fire(firings).await
    }

    /// Called before [`Store::conversation`] is passed on.
    async fn before_conversation(&self) {}

    /// Called before [`Store::woken`] is passed on.
    async fn before_woken(&self) {}
}

/// A store with somebody who steps in.
pub struct Intercepted<I> {
    inner: Arc<dyn Store>,
    intercept: I,
}

impl<I> Intercepted<I> {
    /// Puts `intercept` before `inner`.
    pub fn new(inner: Arc<dyn Store>, intercept: I) -> Self {
        Self { inner, intercept }
    }
}

#[async_trait]
impl<I: Intercept> Store for Intercepted<I> {
    async fn append(&self, append: Append) -> Result<Appended> {
        self.intercept.append(self.inner.as_ref(), append).await
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
        self.intercept.before_woken().await;
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
    async fn execution(&self, id: ExecutionId) -> Result<Option<ExecutionRow>> {
        self.inner.execution(id).await
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
    async fn config(
        &self,
        agent: &AgentName,
        version: &ConfigVersion,
    ) -> Result<Option<ConfigRecord>> {
        self.inner.config(agent, version).await
    }
    async fn config_versions(&self, agent: &AgentName) -> Result<Vec<ConfigSummary>> {
        self.inner.config_versions(agent).await
    }
    async fn ahead(&self, id: ExecutionId) -> Result<Vec<ExecutionId>> {
        self.inner.ahead(id).await
    }
    async fn conversation(
        &self,
        agent: &AgentName,
        conversation: &ConversationId,
        limit: usize,
    ) -> Result<Vec<Message>> {
        self.intercept.before_conversation().await;
        self.inner.conversation(agent, conversation, limit).await
    }
    async fn history(
        &self,
        agent: &AgentName,
        conversation: &ConversationId,
        limit: usize,
    ) -> Result<Vec<Message>> {
        self.intercept.before_conversation().await;
        self.inner.history(agent, conversation, limit).await
    }
    async fn conversation_version(
        &self,
        agent: &AgentName,
        conversation: &ConversationId,
    ) -> Result<Option<String>> {
        self.inner.conversation_version(agent, conversation).await
    }
    async fn identity(&self) -> Result<Option<String>> {
        self.inner.identity().await
    }
    async fn restored(&self) -> Result<Option<Restored>> {
        self.inner.restored().await
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
        self.intercept.fire(self.inner.as_ref(), firings).await
    }
    async fn schedule_runs(
        &self,
        name: &ScheduleName,
        before: Option<Time>,
        limit: usize,
    ) -> Result<(Vec<ScheduleRun>, u64)> {
        self.inner.schedule_runs(name, before, limit).await
    }
    async fn check(&self) -> Result<()> {
        self.inner.check().await
    }
    async fn close(&self) -> Result<()> {
        self.inner.close().await
    }
    fn outbox_signal(&self) -> Option<Arc<tokio::sync::Notify>> {
        self.inner.outbox_signal()
    }
    fn due_signal(&self) -> Option<Arc<tokio::sync::Notify>> {
        self.inner.due_signal()
    }
}

#[async_trait]
impl<I: Intercept> Keys for Intercepted<I> {
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
impl<I: Intercept> Switches for Intercepted<I> {
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
impl<I: Intercept> Pins for Intercepted<I> {
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
impl<I: Intercept> Errands for Intercepted<I> {
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
impl<I: Intercept> Audits for Intercepted<I> {
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
impl<I: Intercept> Outgoing for Intercepted<I> {
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
