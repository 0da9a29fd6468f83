//! Claims, leases, performs one action, commits its step; relays the outbox; recovers what a lost worker left.
//!
//! There is one engine. The pools and modes are settings of it.

mod agents;
mod answer;
mod definitions;
mod dispatcher;
mod ended;
mod error;
mod feed;
mod fleet;
mod host;
mod leases;
mod live;
mod pins;
mod recovery;
mod relay;
mod run;
mod scheduler;
mod schedules;
mod shared;
mod subscriptions;
mod switches;
mod tally;
mod task;
mod traces;
mod travel;

use std::sync::Arc;
use std::time::Duration;

use domain::definition::expand::MissingVariable;
use domain::event::topics;
use domain::execution::Origin;
use domain::{AgentName, Event, ExecutionId, ExecutionMode, Time, TopicPattern, Worker, WorkerId};
use store::counters::{Counters, LocalCounters};
use store::{CancelAnswer, InputAnswer, NewInput, Store};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::definitions::Definitions;
use crate::dispatcher::Dispatcher;
use crate::fleet::Presence;
use crate::leases::Leases;
use crate::scheduler::Pace;
use crate::shared::Shared;

pub use agents::{Agent, Agents, Expand};
pub use error::Error;
pub use feed::{FeedEvent, FeedWatch, Happened, Note};
pub use fleet::Registration;
pub use host::StoreHost;
pub use live::{LiveEvent, Position, Watch};
pub use recovery::IsGone;
pub use scheduler::{Looked, Scheduler};
pub use schedules::{MAX_NEXT, NewSchedule, Schedules, Upcoming};
pub use subscriptions::QUEUE;
pub use task::{Accepted, NewTask};
pub use traces::{Export, Show, Traces};
pub use travel::{Branch, Cut};

/// Tells the time. The engine reads no other clock, so that a test can hold the hands.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// Makes ids: UUIDs of version 7. Their low bits are also the lots that the engine draws; it knows no other chance.
pub type NewId = Arc<dyn Fn() -> Uuid + Send + Sync>;

/// What an engine may be given instead of its own.
pub struct Surroundings {
    /// Where ids come from.
    pub new_id: NewId,
    /// What it counts together with other processes: what a provider told one of them about its limits, all keep to.
    pub counters: Arc<dyn Counters>,
    /// Who is told of calls that an agent was not let make.
    pub on_refusal: OnRefusal,
    /// Who is told the traces of what ended.
    pub traces: Option<Traces>,
}

/// A call of a tool that an agent wanted to make and was not let.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Which agent.
    pub agent: AgentName,
    /// In which execution.
    pub execution: ExecutionId,
    /// Of which trace.
    pub trace_id: domain::TraceId,
    /// The tool, as the model called it: anything can stand here.
    pub tool: String,
    /// Why not.
    pub why: String,
}

/// Is told of refusals; must not block.
pub type OnRefusal = Arc<dyn Fn(Refusal) + Send + Sync>;

impl Default for Surroundings {
    fn default() -> Self {
        Self {
            new_id: Arc::new(Uuid::now_v7),
            counters: Arc::new(LocalCounters::default()),
            on_refusal: Arc::new(drop),
            traces: None,
        }
    }
}

/// What the engine works with.
#[derive(Clone)]
pub struct Ports {
    /// Where journals are.
    pub store: Arc<dyn Store>,
    /// Where hints come from and events go.
    pub bus: Arc<dyn bus::Bus>,
    /// Who answers.
    pub model: Arc<dyn llm::ChatModel>,
    /// What can be called.
    pub tools: Arc<dyn tools::Toolbox>,
    /// What time it is.
    pub clock: Clock,
}

/// How the engine works.
#[derive(Clone)]
pub struct Settings {
    /// Who it is: unique to the process.
    pub worker: WorkerId,
    /// How many executions it performs at once.
    pub capacity: usize,
    /// Of which modes; none makes it an engine that takes tasks in and performs none.
    pub modes: Vec<ExecutionMode>,
    /// How long a lease lasts; it is renewed at a third of it.
    pub lease: Duration,
    /// How often it looks for work that no hint told of.
    pub poll: Duration,
    /// How often in a row an execution may take its worker down before it fails as poison.
    pub max_crashes: u32,
    /// The longest answer that is kept, in bytes.
    pub max_reply_bytes: usize,
    /// Tells which workers are certainly gone, so that their work is taken over at start without waiting.
    pub is_gone: Option<IsGone>,
    /// As what it is known to the other processes, when it performs executions.
    pub registration: Registration,
}

/// The engine: a handle that can be cloned and shared.
#[derive(Clone)]
pub struct Engine {
    core: Arc<Shared>,
    tasks: TaskTracker,
    /// Ends claiming.
    stop: CancellationToken,
    /// Ends renewal and relay, after the last run has.
    close: CancellationToken,
}

impl Engine {
    /// An engine that does not run yet.
    pub fn new(ports: Ports, agents: Agents, settings: Settings) -> Self {
        Self::within(ports, agents, settings, Surroundings::default())
    }

    /// The same in other surroundings. Given the same ids, and ports that do the same, it does the same.
    pub fn within(
        ports: Ports,
        agents: Agents,
        settings: Settings,
        surroundings: Surroundings,
    ) -> Self {
        let Surroundings {
            new_id,
            counters,
            on_refusal,
            traces,
        } = surroundings;
        let definitions = Definitions::new(ports.store.clone(), agents.clone());
        let presence = Presence::new((ports.clock)());
        let core = Shared {
            leases: Leases::new(ports.clock.clone()),
            feed: Arc::new(feed::Feed::new(&settings.worker)),
            ports,
            agents,
            settings,
            counters,
            on_refusal,
            telling: traces.map(traces::Telling::new),
            hub: Arc::default(),
            definitions,
            schemas: tools::Schemas::default(),
            pins: pins::Pins::default(),
            presence,
            hint: Notify::new(),
            pace: Pace::default(),
            look_at_switches: switches::Look::default(),
            new_id,
            restored: tokio::sync::OnceCell::new(),
        };
        Self {
            core: Arc::new(core),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
            close: CancellationToken::new(),
        }
    }

    /// Begins to relay events, to start agents by them, and, when it has modes, to claim and perform executions.
    pub fn start(&self) {
        let (core, close) = (&self.core, &self.close);
        if self.performs() {
            self.start_performing();
        }
        self.start_relay();
        self.tasks
            .spawn(relay::collect_dead_letters(core.clone(), close.clone()));
        self.tasks
            .spawn(subscriptions::listen(core.clone(), close.clone()));
        live::start(core, &self.tasks, close);
        feed::start(core, &self.tasks, close);
        self.tasks
            .spawn(switches::follow(core.clone(), close.clone()));
    }

    /// Begins to relay events and nothing else: for a process that only tells of something.
    pub fn start_relay(&self) {
        let (core, close) = (self.core.clone(), self.close.clone());
        feed::start(&core, &self.tasks, &close);
        self.tasks.spawn(relay::relay(core, close));
    }

    fn start_performing(&self) {
        let (core, close) = (&self.core, &self.close);
        // There from the beginning, so that none is told from unknown.
        metrics::counter!(shared::LATE_WRITES).increment(0);
        metrics::counter!(shared::TAKEN_OVER).increment(0);
        for kind in ["model", "tool"] {
            metrics::counter!(shared::DROPPED_CALLS, "kind" => kind).increment(0);
        }
        let dispatcher = Dispatcher::new(core.clone(), self.tasks.clone());
        let stop = self.stop.clone();
        self.tasks.spawn({
            let core = core.clone();
            async move {
                recovery::recover(&core).await;
                dispatcher.run(stop).await;
            }
        });
        self.tasks.spawn(traces::tell(core.clone(), close.clone()));
        self.tasks.spawn(leases::renew(core.clone(), close.clone()));
        self.tasks
            .spawn(leases::hear_others(core.clone(), close.clone()));
        // No longer than it claims: an agent is not ready because somebody is still busy with its last task.
        self.tasks
            .spawn(fleet::beat(core.clone(), self.stop.clone()));
        for (queue, patterns) in hint_queues(&core.settings.modes) {
            // Who claims no more must not take the hints from those who do.
            let stop = self.stop.clone();
            self.tasks
                .spawn(relay::listen(queue, patterns, core.clone(), stop));
        }
    }

    /// Whether it performs executions.
    pub fn performs(&self) -> bool {
        !self.core.settings.modes.is_empty()
    }

    /// Begins to act on schedules, those of agents' files included: call it when the files are read. Any number of
    /// processes may.
    pub fn start_scheduler(&self) {
        let stop = &self.stop;
        self.tasks
            .spawn(schedules::follow(self.core.clone(), stop.clone()));
        self.tasks.spawn(self.scheduler().run(stop.clone()));
    }

    /// A scheduler that looks when it is told to.
    pub fn scheduler(&self) -> Scheduler {
        Scheduler::new(self.core.clone())
    }

    /// The schedules, for reading and changing.
    pub fn schedules(&self) -> Schedules {
        Schedules::new(self.core.clone())
    }

    /// Accepts a task: when this answers, it is durable and will reach exactly one terminal state.
    ///
    /// # Errors
    /// The agent is unknown or disabled, the request is not valid, or the store can't take it.
    pub async fn submit(&self, task: NewTask) -> Result<Accepted, Error> {
        task::submit(&self.core, task).await
    }

    /// Asks for the end of an execution. When this answers, no new action of it is started.
    ///
    /// # Errors
    /// The store can't be reached.
    pub async fn cancel(
        &self,
        id: ExecutionId,
        by: &str,
        reason: &str,
    ) -> Result<CancelAnswer, Error> {
        let store = &self.core.ports.store;
        let answer = store.cancel(id, by, reason, self.core.now()).await?;
        // The run hears it at once and not at its next renewal.
        self.core.leases.tell_news(id);
        Ok(answer)
    }

    /// Gives a person's answer to an open request.
    ///
    /// # Errors
    /// The tool does not take the arguments that the person wrote, or it can't be found out whether it does; or the store
    /// can't be reached.
    pub async fn answer(&self, input: NewInput) -> Result<InputAnswer, Error> {
        answer::answer(&self.core, input).await
    }

    /// Accepts an execution that begins where another one was, and tells what it shares with that one.
    ///
    /// # Errors
    /// There is no such execution or step, it goes on still, its agent takes no work, or the store can't take it.
    pub async fn branch(&self, wish: Branch) -> Result<(Accepted, Origin), Error> {
        travel::branch(&self.core, wish).await
    }

    /// Takes an event in, durably. When this answers, it has its place in the conversations that it is a message of.
    ///
    /// # Errors
    /// The store can't be reached.
    pub async fn publish(&self, event: Event) -> Result<(), Error> {
        let store = &self.core.ports.store;
        store.publish(std::slice::from_ref(&event)).await?;
        subscriptions::take_places(&self.core, &event).await;
        Ok(())
    }

    /// Follows an execution, in whatever process it is: its steps from `after` on, and what its model says while it says
    /// it. Ends after the last step. Each step comes once; the words that come before it are its beginning, or are
    /// superseded first.
    pub fn watch(&self, id: ExecutionId, after: Option<Position>) -> Watch {
        Watch::new(self.core.ports.store.clone(), &self.core.hub, id, after)
    }

    /// Looks at everything that happens in all processes, from now on or from a place that was reached at any of them.
    ///
    /// # Errors
    /// It is no such place; says how one looks.
    pub fn look(&self, after: Option<&str>) -> Result<FeedWatch, String> {
        let after = after.map(str::parse).transpose()?;
        Ok(self.core.feed.look(after))
    }

    /// Reads which agents people have disabled; an engine that runs does so every few seconds by itself.
    ///
    /// # Errors
    /// The store can't be reached; then it stays as it was.
    pub async fn load_switches(&self) -> Result<(), Error> {
        Ok(switches::load(&self.core).await.map(drop)?)
    }

    /// Disables an agent, or takes that back: here at once, in every other process within five seconds. What it was given
    /// before goes on.
    ///
    /// # Errors
    /// There is no such agent, its file disables it and it is to be enabled, or the store can't be reached.
    pub async fn switch_agent(
        &self,
        name: &AgentName,
        is_on: bool,
        by: &str,
    ) -> Result<Agent, Error> {
        switches::switch(&self.core, name, is_on, by).await
    }

    /// Has what an agent performs handed back and claimed anew, in all processes, with secrets and variables read anew.
    ///
    /// # Errors
    /// There is no such agent, or the store can't be reached.
    pub async fn restart_agent(&self, name: &AgentName) -> Result<Agent, Error> {
        switches::restart(&self.core, name).await
    }

    /// The agents that new executions can be given to.
    pub fn agents(&self) -> &Agents {
        &self.core.agents
    }

    /// Where journals are, for reading.
    pub fn store(&self) -> &Arc<dyn Store> {
        &self.core.ports.store
    }

    /// The bus, for its health.
    pub fn bus(&self) -> &Arc<dyn bus::Bus> {
        &self.core.ports.bus
    }

    /// The time.
    pub fn now(&self) -> Time {
        self.core.now()
    }

    /// Who it is.
    pub fn worker(&self) -> &WorkerId {
        &self.core.settings.worker
    }

    /// As what it is known to the others, and by which interval they are watched.
    pub fn registration(&self) -> &Registration {
        &self.core.settings.registration
    }

    /// The workers that are known, alive or not: those of other processes as they last said, this one as it is.
    ///
    /// # Errors
    /// The store can't be reached.
    pub async fn workers(&self) -> Result<Vec<Worker>, Error> {
        let mut workers = self.core.ports.store.workers().await?;
        if self.performs() && !self.stop.is_cancelled() {
            workers.retain(|worker| worker.id != self.core.settings.worker);
            workers.push(fleet::own(&self.core));
        }
        Ok(workers)
    }

    /// How many executions it performs now, and how many it can.
    pub fn load(&self) -> (usize, usize) {
        (self.core.leases.count(), self.core.settings.capacity)
    }

    /// What an agent refers to that is not there, in a process that performs executions: another need not have what
    /// performing takes.
    pub fn missing(&self, agent: &Agent) -> Option<MissingVariable> {
        self.performs()
            .then(|| self.core.definitions.missing(agent))
            .flatten()
    }

    /// Forgets expanded definitions: call it when variables or secrets may have changed.
    pub fn forget_secrets(&self) {
        self.core.definitions.clear();
    }

    /// Whether it was told to stop: it claims nothing any more.
    pub fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Stops claiming, lets what runs come to its next commit and hands it back; what has not come there by `limit`
    /// is handed back as it is. Then everything that was accepted is on disk. Call it once.
    pub async fn shutdown(&self, limit: Duration) {
        self.stop.cancel();
        self.core.leases.stop_all(false);
        if tokio::time::timeout(limit, self.core.leases.none_left())
            .await
            .is_err()
        {
            tracing::warn!(
                left = self.core.leases.count(),
                "the time is up: what still runs is handed back as it is"
            );
            self.core.leases.stop_all(true);
            if tokio::time::timeout(Duration::from_secs(2), self.core.leases.none_left())
                .await
                .is_err()
            {
                tracing::error!(
                    left = self.core.leases.count(),
                    "these could not be handed back; their leases will run out"
                );
            }
        }
        self.close.cancel();
        self.tasks.close();
        if tokio::time::timeout(Duration::from_secs(5), self.tasks.wait())
            .await
            .is_err()
        {
            tracing::error!("some tasks did not end in time");
        }
    }
}

/// Which queues tell this process of work.
fn hint_queues(modes: &[ExecutionMode]) -> Vec<(String, Vec<TopicPattern>)> {
    let queue = |mode: &ExecutionMode| {
        let (queue, pattern) = match mode {
            ExecutionMode::Autonomous => ("autonomous-agent-pool", topics::AUTONOMOUS_SUBMITTED),
            ExecutionMode::Collaborative => {
                ("collaborative-agent-pool", "collaborative.task.submitted")
            }
            ExecutionMode::Continuous => ("continuous-agent-runner", "continuous.task.*"),
            ExecutionMode::Scheduled => ("scheduled-agent-pool", "scheduled.task.*"),
        };
        Some((queue.to_owned(), vec![pattern.parse().ok()?]))
    };
    modes.iter().filter_map(queue).collect()
}
