//! What is asked of the store to tell how agents stand.

use std::collections::HashMap;

use domain::pin::Pin;
use domain::{AgentName, Worker};
use store::AgentStats;

use crate::http::{Answer, App};

/// Executions by agent, the workers, and tools that are withheld.
pub(crate) struct Fleet {
    stats: HashMap<AgentName, AgentStats>,
    pub(super) workers: Vec<Worker>,
    changed_tools: HashMap<AgentName, Vec<Pin>>,
}

impl Fleet {
    /// As far as it concerns one agent, or all of them.
    ///
    /// # Errors
    /// The store can't be read.
    pub(super) async fn read(app: &App, agent: Option<&AgentName>) -> Answer<Self> {
        let store = app.engine.store();
        let stats = store.agent_stats(agent).await?;
        let workers = app.engine.workers().await?;
        let mut changed_tools: HashMap<_, Vec<_>> = HashMap::new();
        for pin in store.changed_tools(agent).await? {
            let own = changed_tools.entry(pin.agent.clone());
            own.or_default().push(pin);
        }
        let by_agent = |stats: AgentStats| (stats.agent.clone(), stats);
        Ok(Self {
            stats: stats.into_iter().map(by_agent).collect(),
            workers,
            changed_tools,
        })
    }

    /// How many executions of an agent there are, if there were any.
    pub(super) fn stats(&self, agent: &AgentName) -> Option<&AgentStats> {
        self.stats.get(agent)
    }

    /// An agent's tools that are withheld.
    pub(super) fn changed_tools(&self, agent: &AgentName) -> &[Pin] {
        self.changed_tools.get(agent).map_or(&[], Vec::as_slice)
    }
}
