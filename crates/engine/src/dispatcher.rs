//! Claims what is due and has it performed, as much at once as the process has capacity for.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::execution::Totals;
use domain::{
    AgentName, Definition, Event, Execution, Failure, FailureCode, Message, Outcome, Seq, Status,
    Step, StepBody, Time,
};
use futures::FutureExt;
use store::{Append, Appended, Claim, Claimed, Then};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::ended::Subject;
use crate::leases::Lease;
use crate::run::{Ended, Run, Stop};
use crate::shared::{Shared, TAKEN_OVER, seconds};

/// How many executions are claimed in one transaction.
const BATCH: usize = 128;
/// How a journal note of a caught panic begins; counted to tell poison.
const PANIC_NOTE: &str = "panic: ";

/// Claims and performs.
pub(crate) struct Dispatcher {
    core: Arc<Shared>,
    tasks: TaskTracker,
    /// How many runs of each agent there are.
    running: Mutex<HashMap<AgentName, u32>>,
    /// When those parked here are due, as far as that is sooner than the next poll.
    timers: Mutex<BinaryHeap<Reverse<Time>>>,
}

impl Dispatcher {
    pub(crate) fn new(core: Arc<Shared>, tasks: TaskTracker) -> Arc<Self> {
        Arc::new(Self {
            core,
            tasks,
            running: Mutex::default(),
            timers: Mutex::default(),
        })
    }

    /// Claims until `stop`.
    pub(crate) async fn run(self: Arc<Self>, stop: CancellationToken) {
        let due = self.core.ports.store.due_signal().unwrap_or_default();
        loop {
            let more = self.claim_once().await;
            if stop.is_cancelled() {
                return;
            }
            if more {
                continue;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = due.notified() => {}
                () = self.core.hint.notified() => {}
                () = tokio::time::sleep(self.pause()) => {}
            }
        }
    }

    /// How long nothing is due, as far as this process knows.
    fn pause(&self) -> Duration {
        let now = self.core.now();
        let mut timers = self.timers.lock().unwrap_or_else(PoisonError::into_inner);
        while timers.peek().is_some_and(|Reverse(due)| *due <= now) {
            timers.pop();
        }
        let next = timers
            .peek()
            .and_then(|Reverse(due)| (*due - now).to_std().ok());
        next.unwrap_or(self.core.settings.poll)
            .min(self.core.settings.poll)
    }

    /// Remembers when a parked execution is due, if no poll would find it before.
    fn remember(&self, due: Time) {
        let soon = (due - self.core.now()).to_std().unwrap_or_default() < self.core.settings.poll;
        if soon {
            self.timers
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .push(Reverse(due));
            self.core.hint.notify_one();
        }
    }

    /// Claims one batch; tells whether there may be more at once.
    async fn claim_once(self: &Arc<Self>) -> bool {
        let free = self
            .core
            .settings
            .capacity
            .saturating_sub(self.core.leases.count());
        if free == 0 {
            return false;
        }
        let limit = free.min(BATCH);
        let now = self.core.now();
        if !self.core.leases.may_claim(now + self.core.settings.lease) {
            return false;
        }
        let asked = Instant::now();
        let claim = Claim {
            worker: self.core.settings.worker.clone(),
            now,
            lease: self.core.settings.lease,
            limit,
            only: None,
            modes: self.core.settings.modes.clone(),
            without: self.at_their_limit(),
        };
        match self.core.ports.store.claim(claim).await {
            Ok(claimed) => {
                let full = claimed.len() == limit;
                for one in claimed {
                    self.begin(one, asked);
                }
                full
            }
            Err(error) => {
                tracing::error!("work can't be claimed: {error}");
                tokio::time::sleep(Duration::from_secs(1)).await;
                false
            }
        }
    }

    /// Agents that may not run more at once.
    fn at_their_limit(&self) -> Vec<AgentName> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let full = |name: &AgentName, count: u32| {
            let agent = self.core.agents.get(name);
            agent
                .and_then(|agent| agent.definition.concurrency)
                .is_some_and(|limit| count >= limit)
        };
        running
            .iter()
            .filter(|(name, count)| full(name, **count))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Begins what was claimed. What came with it is as it was when the store was `asked` for it.
    fn begin(self: &Arc<Self>, claimed: Claimed, asked: Instant) {
        let committed = claimed.steps.last().map_or(0, |step| step.seq.get());
        let agent = claimed.execution.agent.clone();
        self.count_claim(&claimed);
        let id = claimed.execution.id;
        let lease = self.core.leases.add(id, &agent, claimed.epoch, committed);
        let over_limit = self.count_in(&agent);
        let this = self.clone();
        self.tasks.spawn(async move {
            let id = claimed.execution.id;
            if over_limit {
                this.hand_back(&claimed).await;
            } else {
                this.perform(claimed, &lease, asked).await;
            }
            this.core.leases.remove(&lease);
            this.count_out(&agent);
            tracing::trace!(execution_id = %id, "let go");
        });
    }

    fn count_claim(&self, claimed: &Claimed) {
        if claimed.crashes > 0 {
            metrics::counter!(TAKEN_OVER).increment(1);
        }
        if claimed.epoch.get() == 1 {
            let Execution {
                mode, created_at, ..
            } = &claimed.execution;
            let waited = seconds(self.core.now() - *created_at);
            metrics::histogram!("agentrunner_execution_queue_seconds", "mode" => mode.as_str())
                .record(waited);
        }
    }

    async fn perform(&self, claimed: Claimed, lease: &Arc<Lease>, asked: Instant) {
        let subject = Subject::new(&claimed.execution);
        let (id, agent, trace) = (subject.id, &subject.agent, &subject.trace_id);
        let is_scheduled = claimed.execution.metadata.get("schedule").is_some();
        let live = self.core.hub.start(id, lease.clone());
        let totals = totals_of(&claimed.steps);
        let begins = if claimed.steps.is_empty() {
            "begins"
        } else {
            "goes on"
        };
        tracing::info!(execution_id = %id, agent_name = %agent, trace_id = %trace, epoch = %claimed.epoch, "the execution {begins}");
        let work =
            AssertUnwindSafe(self.work((claimed, asked), lease, live.clone())).catch_unwind();
        match work.await {
            Ok(Ok(ended)) => {
                match ended {
                    Ended::Parked(due) => self.remember(due),
                    Ended::Finished(_) => {
                        self.core.presence.count_finished();
                        if is_scheduled {
                            self.core.pace.run_ended();
                        }
                    }
                    Ended::HandedBack => {}
                }
                tracing::info!(execution_id = %id, agent_name = %agent, trace_id = %trace, "the execution {ended}");
            }
            Ok(Err(Stop::Lost)) => {
                tracing::warn!(execution_id = %id, agent_name = %agent, trace_id = %trace, "the lease was lost; another goes on");
            }
            Ok(Err(Stop::Store(error))) => {
                tracing::error!(execution_id = %id, agent_name = %agent, trace_id = %trace, "given up until the lease ends: {error}");
            }
            Ok(Err(Stop::Illegal(illegal))) => {
                let failure = crate::run::corrupt(format!(
                    "the journal does not allow what comes next: {illegal}"
                ));
                self.fail(&subject, lease, totals, failure).await;
            }
            Err(panic) => {
                let message = panic_text(panic.as_ref());
                tracing::error!(execution_id = %id, agent_name = %agent, trace_id = %trace, "panicked: {message}");
                self.note_panic(id, lease, totals, message).await;
            }
        }
        self.core.hub.end(id, &live);
    }

    async fn work(
        &self,
        (claimed, asked): (Claimed, Instant),
        lease: &Arc<Lease>,
        live: Arc<crate::live::LiveRun>,
    ) -> Result<Ended, Stop> {
        let (subject, totals) = (Subject::new(&claimed.execution), totals_of(&claimed.steps));
        let failure = match self.poison(&claimed) {
            Some(failure) => failure,
            None => {
                let definition = self
                    .core
                    .definitions
                    .get(&claimed.execution.agent, &claimed.execution.version)
                    .await?;
                let run = match definition {
                    Ok(definition) => {
                        let stored = self.history(&definition, &claimed).await?;
                        let core = self.core.clone();
                        Run::new(core, lease.clone(), live, definition, claimed, stored)
                    }
                    Err(failure) => Err(failure),
                };
                match run {
                    Ok((run, waiting)) => return Box::pin(run.go(waiting, asked)).await,
                    Err(failure) => failure,
                }
            }
        };
        self.fail(&subject, lease, totals, failure).await;
        Ok(Ended::Finished(Status::Failed))
    }

    /// What its conversation holds, as far as it may be shown or has to be summarised. One that brings its own history,
    /// or ends before its turn, needs none.
    async fn history(
        &self,
        definition: &Definition,
        claimed: &Claimed,
    ) -> Result<Vec<Message>, store::Error> {
        let execution = &claimed.execution;
        let Some(conversation) = &execution.conversation else {
            return Ok(Vec::new());
        };
        if claimed.waits_turn || !execution.history.is_empty() {
            return Ok(Vec::new());
        }
        let store = &self.core.ports.store;
        let limit = domain::pruning::to_load(definition);
        if claimed.epoch.get() == 1 {
            return store.history(&execution.agent, conversation, limit).await;
        }
        store
            .conversation(&execution.agent, conversation, limit)
            .await
    }

    /// Whether the execution has taken down too many workers.
    fn poison(&self, claimed: &Claimed) -> Option<Failure> {
        let panics = claimed
            .steps
            .iter()
            .rev()
            .take_while(|step| is_panic(step))
            .count();
        let crashes = claimed
            .crashes
            .max(u32::try_from(panics).unwrap_or(u32::MAX));
        (crashes >= self.core.settings.max_crashes).then(|| Failure {
            code: FailureCode::Poison,
            message: format!(
                "it took its worker down {crashes} times in a row without getting further (AGENT_RESTART_MAX_ATTEMPTS); see its journal and the log"
            ),
        })
    }

    /// Ends an execution that can't be performed.
    async fn fail(&self, subject: &Subject, lease: &Lease, totals: Totals, failure: Failure) {
        let outcome = Outcome::Failed(failure);
        let then = Then::Finish {
            outcome: outcome.clone(),
            messages: Vec::new(),
            digest: None,
        };
        let events = subject.events(&outcome, self.core.now());
        let status = outcome.status();
        let body = StepBody::Finished { outcome };
        let is_over = self
            .last_words(subject.id, lease, totals, (body, events), then)
            .await;
        if is_over {
            self.core.ended(subject, status);
        }
    }

    async fn note_panic(
        &self,
        id: domain::ExecutionId,
        lease: &Lease,
        totals: Totals,
        message: String,
    ) {
        let text = format!("{PANIC_NOTE}{message}; it is tried again");
        let note = (StepBody::Note { text }, Vec::new());
        self.last_words(id, lease, totals, note, Then::HandBack)
            .await;
    }

    /// Writes the last step of this process; whether it is on disk.
    async fn last_words(
        &self,
        id: domain::ExecutionId,
        lease: &Lease,
        totals: Totals,
        (body, events): (StepBody, Vec<Event>),
        then: Then,
    ) -> bool {
        let now = self.core.now();
        let step = Step {
            seq: Seq::new(lease.last_committed() + 1),
            at: now,
            epoch: lease.epoch(),
            body,
        };
        let (epoch, steps) = (lease.epoch(), vec![step]);
        let append = Append {
            id,
            epoch,
            now,
            steps,
            totals,
            events,
            children: Vec::new(),
            then,
        };
        match self.core.append(append).await {
            Ok(answer) => !matches!(answer, Appended::LostLease),
            Err(error) => {
                tracing::error!(execution_id = %id, "its end could not be written, it is tried again: {error}");
                false
            }
        }
    }

    async fn hand_back(&self, claimed: &Claimed) {
        let append = Append {
            id: claimed.execution.id,
            epoch: claimed.epoch,
            now: self.core.now(),
            steps: Vec::new(),
            totals: totals_of(&claimed.steps),
            events: Vec::new(),
            children: Vec::new(),
            then: Then::HandBack,
        };
        if let Err(error) = self.core.append(append).await {
            tracing::warn!(execution_id = %claimed.execution.id, "could not be handed back: {error}");
        }
    }

    /// Counts a run of an agent in; tells whether that is one too many.
    fn count_in(&self, agent: &AgentName) -> bool {
        let limit = self
            .core
            .agents
            .get(agent)
            .and_then(|agent| agent.definition.concurrency);
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let count = running.entry(agent.clone()).or_default();
        *count += 1;
        limit.is_some_and(|limit| *count > limit)
    }

    fn count_out(&self, agent: &AgentName) {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = running.get_mut(agent) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                running.remove(agent);
            }
        }
        drop(running);
        self.core.hint.notify_one();
    }
}

/// What a journal says was consumed; for ends that are written without a state.
fn totals_of(steps: &[Step]) -> Totals {
    let mut totals = Totals::default();
    for step in steps {
        match &step.body {
            StepBody::ModelCall(call) => {
                totals.usage += call.usage;
                totals.cost_usd += call.cost_usd.unwrap_or_default();
                totals.model_calls += 1;
            }
            StepBody::ToolIntent(_) | StepBody::ChildStarted { .. } => totals.tool_calls += 1,
            _ => {}
        }
    }
    totals
}

fn is_panic(step: &Step) -> bool {
    matches!(&step.body, StepBody::Note { text } if text.starts_with(PANIC_NOTE))
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("without a message")
        .chars()
        .take(500)
        .collect()
}
