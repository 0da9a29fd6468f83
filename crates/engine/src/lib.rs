//! Claims, leases, performs one action, commits its step; relays the outbox; recovers what a lost worker left.
//!
//! There is one engine. The pools and modes are settings of it.

mod agents;
mod error;
mod live;
mod task;

use std::sync::Arc;
use std::time::Duration;

use domain::{Event, ExecutionId, ExecutionMode, Time, WorkerId};
use store::{CancelAnswer, InputAnswer, NewInput, Store};

pub use agents::{Agent, Agents, Expand};
pub use error::Error;
pub use live::{LiveEvent, Position, Watch};
pub use task::{Accepted, NewTask};

/// Tells the time. The engine reads no other clock, so that a test can hold the hands.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

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
#[derive(Debug, Clone)]
pub struct Settings {
    /// Who it is: unique to the process.
    pub worker: WorkerId,
    /// How many executions it performs at once.
    pub capacity: usize,
    /// Of which modes.
    pub modes: Vec<ExecutionMode>,
    /// How long a lease lasts; it is renewed at a third of it.
    pub lease: Duration,
    /// How often it looks for work that no hint told of.
    pub poll: Duration,
    /// How often in a row an execution may take its worker down before it fails as poison.
    pub max_crashes: u32,
    /// The longest answer that is kept, in bytes.
    pub max_reply_bytes: usize,
}

/// The engine: a handle that can be cloned and shared.
#[derive(Clone)]
pub struct Engine {
    ports: Ports,
    agents: Agents,
    settings: Arc<Settings>,
}

impl Engine {
    /// An engine that does not run yet.
    pub fn new(ports: Ports, agents: Agents, settings: Settings) -> Self {
        Self {
            ports,
            agents,
            settings: Arc::new(settings),
        }
    }

    /// Begins to claim and perform executions, to relay events and to renew leases.
    pub fn start(&self) {}

    /// Accepts a task: when this answers, it is durable and will reach exactly one terminal state.
    ///
    /// # Errors
    /// The agent is unknown or disabled, the request is not valid, or the store can't take it.
    pub async fn submit(&self, task: NewTask) -> Result<Accepted, Error> {
        task::submit(&self.ports, &self.agents, task).await
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
        Ok(self
            .ports
            .store
            .cancel(id, by, reason, (self.ports.clock)())
            .await?)
    }

    /// Gives a person's answer to an open request.
    ///
    /// # Errors
    /// The store can't be reached.
    pub async fn answer(&self, input: NewInput) -> Result<InputAnswer, Error> {
        Ok(self.ports.store.deliver_input(input).await?)
    }

    /// Takes an event in, durably.
    ///
    /// # Errors
    /// The store can't be reached.
    pub async fn publish(&self, event: Event) -> Result<(), Error> {
        Ok(self.ports.store.publish(&[event]).await?)
    }

    /// Follows an execution: its steps from `after` on, and what its model says while it says it. Ends after the last
    /// step. Without gap or repeat as far as steps go; pieces of a running answer are given from its beginning.
    pub fn watch(&self, id: ExecutionId, after: Option<Position>) -> Watch {
        Watch::new(self.ports.store.clone(), id, after)
    }

    /// The agents that new executions can be given to.
    pub const fn agents(&self) -> &Agents {
        &self.agents
    }

    /// Where journals are, for reading.
    pub const fn store(&self) -> &Arc<dyn Store> {
        &self.ports.store
    }

    /// The bus, for its health.
    pub const fn bus(&self) -> &Arc<dyn bus::Bus> {
        &self.ports.bus
    }

    /// The time.
    pub fn now(&self) -> Time {
        (self.ports.clock)()
    }

    /// Who it is.
    pub fn worker(&self) -> &WorkerId {
        &self.settings.worker
    }

    /// How many executions it performs now, and how many it can.
    pub fn load(&self) -> (usize, usize) {
        (0, self.settings.capacity)
    }

    /// Stops claiming, lets what runs come to its next commit or hands it back, within `limit`; then everything that
    /// was accepted is on disk.
    pub async fn shutdown(&self, _limit: Duration) {}
}
