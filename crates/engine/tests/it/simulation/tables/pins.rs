//! What tools of servers were approved as: here no server changes its tools.

use async_trait::async_trait;
use domain::pin::{Pin, Seen, Sight};
use domain::{AgentName, Time};
use store::{Pins, Result, ToolApproval};

use crate::simulation::store::{Reached, Way};

#[async_trait]
impl<W: Way> Pins for Reached<W> {
    async fn see_tools(&self, _: &AgentName, sights: &[Sight], _: Time) -> Result<Vec<Seen>> {
        let count = sights.len();
        self.way
            .carry("see_tools", move |_| Ok(vec![Seen::Approved; count]))
            .await
    }
    async fn changed_tools(&self, _: Option<&AgentName>) -> Result<Vec<Pin>> {
        self.way.carry("changed_tools", |_| Ok(Vec::new())).await
    }
    async fn approve_tool(&self, _: ToolApproval) -> Result<bool> {
        self.way.carry("approve_tool", |_| Ok(false)).await
    }
}
