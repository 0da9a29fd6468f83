//! The simulated database as a [`Store`]: every verb is carried over some way to the tables, where it is performed at
//! one instant, and its answer comes back over the same way.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use domain::decide::Cancel;
use domain::{
    AgentName, ConfigVersion, ConversationId, Event, ExecutionId, Message, ScheduleName, Seq, Step,
    Time, Worker, WorkerId,
};
use serde_json::Value;
use store::{
    AgentState, AgentStats, Append, Appended, CancelAnswer, Claim, Claimed, Cleaned, Cleanup,
    ConfigRecord, ConfigSummary, DeadLetter, DueSchedules, ExecutionFilter, ExecutionRow, Fired,
    Firing, InboxFilter, InputAnswer, NewInput, OpenRequest, OutboxClaim, OutboxEntry, Page,
    Renewal, Result, ScheduleFilter, ScheduleRecord, ScheduleRow, ScheduleRun, SharedAnswer,
    SharedValue, SharedWrite, Signal, StateChange, StateChanged, Store, Submission, Submitted,
    Total, UsageFilter, UsageRow, Waiting,
};
use tokio::sync::Notify;

use super::tables::{Tables, Told};
use super::watchman::Seen;

/// The way to the tables.
pub(crate) trait Way: Send + Sync + 'static {
    /// Has `verb` performed, and brings what it answers.
    fn carry<T: Send + 'static>(
        &self,
        name: &'static str,
        verb: impl FnOnce(&mut Tables) -> Result<T> + Send + 'static,
    ) -> impl Future<Output = Result<T>> + Send;
}

/// The signals of one process.
#[derive(Debug, Clone, Default)]
pub(crate) struct Signals {
    events: Arc<Notify>,
    work: Arc<Notify>,
}

impl Signals {
    pub(crate) fn tell(&self, told: Told) {
        if told.events {
            self.events.notify_one();
        }
        if told.work {
            self.work.notify_one();
        }
    }
}

/// A store over a way.
pub(crate) struct Reached<W> {
    pub(crate) way: W,
    pub(crate) signals: Signals,
}

/// No distance and no faults: for the behaviour suite.
pub(crate) struct AtOnce {
    pub(crate) tables: Arc<Mutex<Tables>>,
    pub(crate) signals: Signals,
}

impl Way for AtOnce {
    async fn carry<T: Send + 'static>(
        &self,
        _: &'static str,
        verb: impl FnOnce(&mut Tables) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let mut tables = self.tables.lock().unwrap();
        tables.open()?;
        let answer = verb(&mut tables);
        self.signals.tell(std::mem::take(&mut tables.told));
        answer
    }
}

#[async_trait]
impl<W: Way> Store for Reached<W> {
    async fn submit(&self, submission: Submission) -> Result<Submitted> {
        let submit = |t: &mut Tables| {
            let (agent, event) = {
                let asked = &submission.execution;
                (asked.agent.clone(), asked.event_id.clone())
            };
            let asked = submission.execution.id;
            let answer = t.submit(submission)?;
            let cause = event.map(|event| (agent, event));
            t.seen.push(Seen::Submitted {
                asked,
                cause,
                answer,
            });
            Ok(answer)
        };
        self.way.carry("submit", submit).await
    }
    async fn claim(&self, claim: Claim) -> Result<Vec<Claimed>> {
        let take = move |t: &mut Tables| {
            let claimed = t.claim(&claim);
            let seen = claimed.iter().map(|one| Seen::claimed(one, &claim));
            t.seen.extend(seen);
            Ok(claimed)
        };
        self.way.carry("claim", take).await
    }
    async fn renew(&self, renewal: Renewal) -> Result<Vec<Signal>> {
        let renew = move |t: &mut Tables| {
            let (leases, signals) = (renewal.leases.len(), t.renew(&renewal));
            let news = signals.len();
            t.seen.push(Seen::Renewed { leases, news });
            Ok(signals)
        };
        self.way.carry("renew", renew).await
    }
    async fn woken(&self, worker: &WorkerId) -> Result<Vec<Signal>> {
        let worker = worker.clone();
        let woken = move |t: &mut Tables| Ok(t.woken(&worker));
        self.way.carry("woken", woken).await
    }
    async fn lease_holders(&self) -> Result<Vec<WorkerId>> {
        let holders = |t: &mut Tables| Ok(t.lease_holders());
        self.way.carry("lease_holders", holders).await
    }
    async fn end_leases(&self, worker: &WorkerId, now: Time) -> Result<u64> {
        let worker = worker.clone();
        let end = move |t: &mut Tables| Ok(t.end_leases(&worker, now));
        self.way.carry("end_leases", end).await
    }
    async fn append(&self, append: Append) -> Result<Appended> {
        let commit = |t: &mut Tables| {
            let mut seen = Seen::appended(&append);
            let answer = t.append(append);
            seen.answered(&answer);
            t.seen.push(seen);
            answer
        };
        self.way.carry("append", commit).await
    }
    async fn waiting(&self, id: ExecutionId) -> Result<Waiting> {
        self.way.carry("waiting", move |t| Ok(t.waiting(id))).await
    }
    async fn cancel(
        &self,
        id: ExecutionId,
        by: &str,
        reason: &str,
        now: Time,
    ) -> Result<CancelAnswer> {
        let (by, reason) = (by.to_owned(), reason.to_owned());
        let cancel = move |t: &mut Tables| {
            let answer = t.cancel(id, Cancel { by, reason }, now);
            t.seen.push(Seen::Cancelled { id, answer });
            Ok(answer)
        };
        self.way.carry("cancel", cancel).await
    }
    async fn deliver_input(&self, input: NewInput) -> Result<InputAnswer> {
        let deliver = move |t: &mut Tables| {
            let answer = t.deliver_input(&input);
            let repeats = matches!(input.answer, domain::step::Answer::Repeat);
            if let (InputAnswer::Accepted { request }, true) = (&answer, repeats) {
                let key = t.key_asked_about(input.id, *request);
                t.seen.push(Seen::MayRepeat { key });
            }
            Ok(answer)
        };
        self.way.carry("deliver_input", deliver).await
    }
    async fn inbox(&self, filter: InboxFilter) -> Result<(Vec<OpenRequest>, u64)> {
        let read = move |t: &mut Tables| Ok(t.inbox(&filter));
        self.way.carry("inbox", read).await
    }
    async fn publish(&self, events: &[Event]) -> Result<()> {
        let events = events.to_vec();
        let publish = |t: &mut Tables| {
            t.publish(events);
            Ok(())
        };
        self.way.carry("publish", publish).await
    }
    async fn outbox(&self, limit: usize) -> Result<Vec<OutboxEntry>> {
        let first = move |t: &mut Tables| Ok(t.first_events(limit));
        self.way.carry("outbox", first).await
    }
    async fn claim_outbox(&self, claim: OutboxClaim) -> Result<Vec<OutboxEntry>> {
        let taken = move |t: &mut Tables| Ok(t.claim_outbox(claim));
        self.way.carry("claim_outbox", taken).await
    }
    async fn release_outbox(&self, ids: &[i64]) -> Result<()> {
        let ids = ids.to_vec();
        let release = move |t: &mut Tables| {
            t.release_outbox(&ids);
            Ok(())
        };
        self.way.carry("release_outbox", release).await
    }
    async fn outbox_done(&self, ids: &[i64]) -> Result<()> {
        let ids = ids.to_vec();
        let done = move |t: &mut Tables| {
            t.outbox_done(&ids);
            Ok(())
        };
        self.way.carry("outbox_done", done).await
    }
    fn outbox_signal(&self) -> Option<Arc<Notify>> {
        Some(self.signals.events.clone())
    }
    fn due_signal(&self) -> Option<Arc<Notify>> {
        Some(self.signals.work.clone())
    }
    async fn add_dead_letter(&self, letter: DeadLetter) -> Result<()> {
        let add = |t: &mut Tables| {
            t.add_dead_letter(letter);
            Ok(())
        };
        self.way.carry("add_dead_letter", add).await
    }
    async fn dead_letters(&self, page: Page) -> Result<Vec<DeadLetter>> {
        let read = move |t: &mut Tables| Ok(t.dead_letters(&page));
        self.way.carry("dead_letters", read).await
    }
    async fn remove_dead_letter(&self, id: &str) -> Result<bool> {
        let id = id.to_owned();
        let remove = move |t: &mut Tables| Ok(t.remove_dead_letter(&id));
        self.way.carry("remove_dead_letter", remove).await
    }
    async fn execution(&self, id: ExecutionId) -> Result<Option<ExecutionRow>> {
        self.way.carry("execution", move |t| t.execution(id)).await
    }
    async fn executions(
        &self,
        filter: ExecutionFilter,
        page: Page,
    ) -> Result<(Vec<ExecutionRow>, Total)> {
        let read = move |t: &mut Tables| Ok(t.executions(&filter, &page));
        self.way.carry("executions", read).await
    }
    async fn steps(&self, id: ExecutionId, after: Option<Seq>, limit: usize) -> Result<Vec<Step>> {
        let read = move |t: &mut Tables| t.steps(id, after, limit);
        self.way.carry("steps", read).await
    }
    async fn agent_stats(&self, agent: Option<&AgentName>) -> Result<Vec<AgentStats>> {
        let agent = agent.cloned();
        let count = move |t: &mut Tables| Ok(t.agent_stats(agent.as_ref()));
        self.way.carry("agent_stats", count).await
    }
    async fn put_config(&self, record: ConfigRecord) -> Result<()> {
        let put = |t: &mut Tables| {
            t.put_config(record);
            Ok(())
        };
        self.way.carry("put_config", put).await
    }
    async fn config(
        &self,
        agent: &AgentName,
        version: &ConfigVersion,
    ) -> Result<Option<ConfigRecord>> {
        let (agent, version) = (agent.clone(), version.clone());
        let read = move |t: &mut Tables| Ok(t.config(&agent, &version));
        self.way.carry("config", read).await
    }
    async fn config_versions(&self, agent: &AgentName) -> Result<Vec<ConfigSummary>> {
        let agent = agent.clone();
        let read = move |t: &mut Tables| Ok(t.config_versions(&agent));
        self.way.carry("config_versions", read).await
    }
    async fn ahead(&self, id: ExecutionId) -> Result<Vec<ExecutionId>> {
        self.way.carry("ahead", move |t| Ok(t.ahead(id))).await
    }
    async fn conversation(
        &self,
        agent: &AgentName,
        conversation: &ConversationId,
        limit: usize,
    ) -> Result<Vec<Message>> {
        let (agent, conversation) = (agent.clone(), conversation.clone());
        let read = move |t: &mut Tables| Ok(t.conversation(agent, conversation, limit));
        self.way.carry("conversation", read).await
    }
    async fn conversation_version(
        &self,
        agent: &AgentName,
        conversation: &ConversationId,
    ) -> Result<Option<String>> {
        let (agent, conversation) = (agent.clone(), conversation.clone());
        let read = move |t: &mut Tables| Ok(t.conversation_version(agent, conversation));
        self.way.carry("conversation_version", read).await
    }

    async fn agent_state(
        &self,
        agent: &AgentName,
        conversation: Option<&ConversationId>,
        messages: usize,
    ) -> Result<Option<AgentState>> {
        let (agent, conversation) = (agent.clone(), conversation.cloned());
        let read = move |t: &mut Tables| Ok(t.agent_state(agent, conversation, messages));
        self.way.carry("agent_state", read).await
    }
    async fn change_state(&self, change: StateChange) -> Result<StateChanged> {
        let write = move |t: &mut Tables| Ok(t.change_state(change));
        self.way.carry("change_state", write).await
    }
    async fn remember(
        &self,
        agent: &AgentName,
        key: &str,
        value: &Value,
        idempotency_key: &str,
        now: Time,
    ) -> Result<()> {
        let (agent, key, value) = (agent.clone(), key.to_owned(), value.clone());
        let write = idempotency_key.to_owned();
        let keep = move |t: &mut Tables| {
            t.remember(agent, key, value, write, now);
            Ok(())
        };
        self.way.carry("remember", keep).await
    }
    async fn recall(
        &self,
        agent: &AgentName,
        like: &str,
        limit: usize,
    ) -> Result<Vec<(String, Value)>> {
        let (agent, like) = (agent.clone(), like.to_owned());
        let read = move |t: &mut Tables| Ok(t.recall(&agent, &like, limit));
        self.way.carry("recall", read).await
    }
    async fn share(&self, write: SharedWrite) -> Result<SharedAnswer> {
        let share = move |t: &mut Tables| Ok(t.share(write));
        self.way.carry("share", share).await
    }
    async fn shared(&self, team: ExecutionId, keys: &[String]) -> Result<Vec<SharedValue>> {
        let keys = keys.to_vec();
        let read = move |t: &mut Tables| Ok(t.shared(team, &keys));
        self.way.carry("shared", read).await
    }
    async fn usage(&self, filter: UsageFilter) -> Result<Vec<UsageRow>> {
        let read = move |t: &mut Tables| Ok(t.usage(&filter));
        self.way.carry("usage", read).await
    }
    async fn save_schedule(&self, record: ScheduleRecord, seen: Option<u64>) -> Result<bool> {
        let keep = move |t: &mut Tables| Ok(t.save_schedule(record, seen));
        self.way.carry("save_schedule", keep).await
    }
    async fn remove_schedule(&self, name: &ScheduleName, seen: u64) -> Result<bool> {
        let name = name.clone();
        let remove = move |t: &mut Tables| Ok(t.remove_schedule(&name, seen));
        self.way.carry("remove_schedule", remove).await
    }
    async fn schedule(&self, name: &ScheduleName) -> Result<Option<ScheduleRow>> {
        let name = name.clone();
        let read = move |t: &mut Tables| Ok(t.schedule(&name));
        self.way.carry("schedule", read).await
    }
    async fn schedules(&self, filter: ScheduleFilter) -> Result<(Vec<ScheduleRow>, u64)> {
        let read = move |t: &mut Tables| Ok(t.schedules(&filter));
        self.way.carry("schedules", read).await
    }
    async fn due_schedules(&self, now: Time, ahead: Time, limit: usize) -> Result<DueSchedules> {
        let read = move |t: &mut Tables| Ok(t.due_schedules(now, ahead, limit));
        self.way.carry("due_schedules", read).await
    }
    async fn fire(&self, firings: Vec<Firing>) -> Result<Vec<Fired>> {
        self.way.carry("fire", move |t| t.fire(firings)).await
    }
    async fn schedule_runs(
        &self,
        name: &ScheduleName,
        before: Option<Time>,
        limit: usize,
    ) -> Result<(Vec<ScheduleRun>, u64)> {
        let name = name.clone();
        let read = move |t: &mut Tables| Ok(t.schedule_runs(&name, before, limit));
        self.way.carry("schedule_runs", read).await
    }
    async fn heartbeat(&self, worker: Worker, forget_before: Time) -> Result<()> {
        let beat = move |t: &mut Tables| {
            t.heartbeat(worker, forget_before);
            Ok(())
        };
        self.way.carry("heartbeat", beat).await
    }
    async fn workers(&self) -> Result<Vec<Worker>> {
        self.way.carry("workers", |t| Ok(t.workers())).await
    }
    async fn leave(&self, worker: &WorkerId) -> Result<()> {
        let worker = worker.clone();
        let leave = move |t: &mut Tables| {
            t.leave(&worker);
            Ok(())
        };
        self.way.carry("leave", leave).await
    }
    async fn cleanup(&self, cleanup: Cleanup) -> Result<Cleaned> {
        let clean = move |t: &mut Tables| Ok(t.cleanup(cleanup));
        self.way.carry("cleanup", clean).await
    }
    async fn check(&self) -> Result<()> {
        self.way.carry("check", |_| Ok(())).await
    }
    async fn close(&self) -> Result<()> {
        // Closing twice is allowed, and it is the only verb that is.
        let close = |t: &mut Tables| {
            t.close();
            Ok(())
        };
        self.way.carry("close", close).await.or(Ok(()))
    }
}

/// The store's own behaviour suite, run against the tables: what the simulation relies on is what the real ones do.
mod behaviour {
    use super::*;
    use crate::suite::Fixture;

    struct InMemory {
        tables: Arc<Mutex<Tables>>,
        store: Arc<dyn Store>,
    }

    #[async_trait]
    impl Fixture for InMemory {
        async fn open() -> Self {
            let (tables, signals) = (Arc::<Mutex<Tables>>::default(), Signals::default());
            let way = AtOnce {
                tables: tables.clone(),
                signals: signals.clone(),
            };
            let store = Arc::new(Reached { way, signals });
            Self { tables, store }
        }
        fn store(&self) -> Arc<dyn Store> {
            self.store.clone()
        }
        async fn damage_step(&self, id: ExecutionId, seq: Seq) {
            self.tables.lock().unwrap().damage_step(id, seq);
        }
        async fn remove_step(&self, id: ExecutionId, seq: Seq) {
            self.tables.lock().unwrap().remove_step(id, seq);
        }
        async fn damage_task(&self, id: ExecutionId) {
            self.tables.lock().unwrap().damage_task(id);
        }
    }

    behaviour!(InMemory);
}
