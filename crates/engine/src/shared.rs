//! What the parts of the engine share.

use std::sync::Arc;

use store::{Append, Appended};
use tokio::sync::Notify;

use crate::definitions::Definitions;
use crate::leases::Leases;
use crate::live::Hub;
use crate::{Agents, Ports, Settings};

/// Shared by the handle, the dispatcher and the runs.
pub(crate) struct Shared {
    pub(crate) ports: Ports,
    pub(crate) agents: Agents,
    pub(crate) settings: Settings,
    pub(crate) hub: Arc<Hub>,
    pub(crate) leases: Leases,
    pub(crate) definitions: Definitions,
    pub(crate) schemas: tools::Schemas,
    /// Told when there may be something to claim.
    pub(crate) hint: Notify,
}

impl Shared {
    /// The time.
    pub(crate) fn now(&self) -> domain::Time {
        (self.ports.clock)()
    }

    /// Commits steps; counts and names what the store refuses because another owns the execution by now.
    pub(crate) async fn append(&self, append: Append) -> store::Result<Appended> {
        let (id, epoch) = (append.id, append.epoch);
        let appended = self.ports.store.append(append).await?;
        if appended == Appended::LostLease {
            metrics::counter!("agentrunner_late_writes_refused_total").increment(1);
            tracing::warn!(execution_id = %id, epoch = epoch.get(), "a late write was refused: another owns the execution");
        }
        Ok(appended)
    }
}
