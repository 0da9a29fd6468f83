//! What tools of servers were approved as.

use async_trait::async_trait;
use domain::pin::{Change, Pin, Seen, Sight, judge};
use domain::{AgentName, Time};
use store::{Pins, Result, ToolApproval};

use super::Tables;
use crate::simulation::store::{Reached, Way};

/// Whose tool it is, of which server, and which.
pub(super) type Key = (AgentName, String, String);

impl Tables {
    fn see_tools(&mut self, agent: &AgentName, sights: Vec<Sight>, now: Time) -> Vec<Seen> {
        let see = |sight: Sight| {
            let key = (agent.clone(), sight.server.clone(), sight.tool.clone());
            let known = self.pins.get_mut(&key);
            let seen = judge(
                known.as_ref().map(|pin| {
                    let change = pin.change.as_ref();
                    (&pin.approved, change.map(|change| &change.fingerprint))
                }),
                &sight.fingerprint,
            );
            match (seen, known) {
                (Seen::Changed | Seen::ChangedAgain, Some(pin)) => {
                    pin.change = Some(Change {
                        fingerprint: sight.fingerprint,
                        definition: sight.definition,
                        seen_at: now,
                    });
                }
                (Seen::First, _) => {
                    let pin = Pin {
                        agent: agent.clone(),
                        server: sight.server,
                        tool: sight.tool,
                        approved: sight.fingerprint,
                        definition: sight.definition,
                        approved_at: now,
                        approved_by: None,
                        change: None,
                    };
                    self.pins.insert(key, pin);
                }
                _ => {}
            }
            seen
        };
        sights.into_iter().map(see).collect()
    }

    fn changed_tools(&self, agent: Option<&AgentName>) -> Vec<Pin> {
        let pins = self.pins.values().filter(|pin| pin.change.is_some());
        let pins = pins.filter(|pin| agent.is_none_or(|agent| pin.agent == *agent));
        pins.cloned().collect()
    }

    fn approve_tool(&mut self, approval: ToolApproval) -> bool {
        let key = (approval.agent, approval.server, approval.tool);
        let Some(pin) = self.pins.get_mut(&key) else {
            return false;
        };
        match pin.change.take() {
            Some(change) if change.fingerprint == approval.fingerprint => {
                (pin.approved, pin.definition) = (change.fingerprint, change.definition);
            }
            Some(_) if pin.approved == approval.fingerprint => {}
            other => {
                pin.change = other;
                return false;
            }
        }
        (pin.approved_at, pin.approved_by) = (approval.at, Some(approval.by));
        true
    }
}

#[async_trait]
impl<W: Way> Pins for Reached<W> {
    async fn see_tools(&self, agent: &AgentName, sights: &[Sight], now: Time) -> Result<Vec<Seen>> {
        let (agent, sights) = (agent.clone(), sights.to_vec());
        let see = move |t: &mut Tables| Ok(t.see_tools(&agent, sights, now));
        self.way.carry("see_tools", see).await
    }
    async fn changed_tools(&self, agent: Option<&AgentName>) -> Result<Vec<Pin>> {
        let agent = agent.cloned();
        let read = move |t: &mut Tables| Ok(t.changed_tools(agent.as_ref()));
        self.way.carry("changed_tools", read).await
    }
    async fn approve_tool(&self, approval: ToolApproval) -> Result<bool> {
        let approve = move |t: &mut Tables| Ok(t.approve_tool(approval));
        self.way.carry("approve_tool", approve).await
    }
}
