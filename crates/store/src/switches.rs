//! What people said of agents, as a store keeps it.

use async_trait::async_trait;
use domain::fleet::{Switch, SwitchedOff};
use domain::{AgentName, Time};

use crate::Result;

/// The part of a store that keeps which agents people have disabled, and how often they restarted them. Processes read all
/// of it every few seconds: it is as small as the number of agents of which something was said.
#[async_trait]
pub trait Switches: Send + Sync + 'static {
    /// Disables an agent, or takes that back when `off` is `None`. One that is disabled stays so under the first name.
    /// Durable; may be repeated.
    async fn switch_agent(&self, agent: &AgentName, off: Option<SwitchedOff>) -> Result<()>;

    /// Counts a restart of an agent; answers how many there were. Repeated, it counts one more.
    async fn restart_agent(&self, agent: &AgentName) -> Result<u64>;

    /// All that was said, by name. What can't be read is left out.
    async fn switches(&self) -> Result<Vec<Switch>>;
}

/// What a row says.
pub(crate) fn read(
    agent: &str,
    off_by: Option<String>,
    off_at: Option<Time>,
    restarts: u64,
) -> Option<Switch> {
    let Ok(agent) = agent.parse() else {
        tracing::warn!(
            agent,
            "what was said of an agent is left out: it is no name"
        );
        return None;
    };
    let off = off_by.zip(off_at).map(|(by, at)| SwitchedOff { by, at });
    Some(Switch {
        agent,
        off,
        restarts,
    })
}
