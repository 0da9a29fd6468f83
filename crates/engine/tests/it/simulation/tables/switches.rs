//! What people said of agents.

use async_trait::async_trait;
use domain::AgentName;
use domain::fleet::{Switch, SwitchedOff};
use store::{Result, Switches};

use super::Tables;
use crate::simulation::store::{Reached, Way};

impl Tables {
    fn switch_of(&mut self, agent: AgentName) -> &mut Switch {
        let fresh = Switch {
            agent: agent.clone(),
            off: None,
            restarts: 0,
        };
        self.switches.entry(agent).or_insert(fresh)
    }
}

#[async_trait]
impl<W: Way> Switches for Reached<W> {
    async fn switch_agent(&self, agent: &AgentName, off: Option<SwitchedOff>) -> Result<()> {
        let agent = agent.clone();
        let switch = move |t: &mut Tables| {
            let switch = t.switch_of(agent);
            switch.off = match off {
                Some(off) => switch.off.take().or(Some(off)),
                None => None,
            };
            Ok(())
        };
        self.way.carry("switch_agent", switch).await
    }
    async fn restart_agent(&self, agent: &AgentName) -> Result<u64> {
        let agent = agent.clone();
        let restart = move |t: &mut Tables| {
            let switch = t.switch_of(agent);
            switch.restarts += 1;
            Ok(switch.restarts)
        };
        self.way.carry("restart_agent", restart).await
    }
    async fn switches(&self) -> Result<Vec<Switch>> {
        let read = |t: &mut Tables| Ok(t.switches.values().cloned().collect());
        self.way.carry("switches", read).await
    }
}
