//! What the parts of the engine share.

use std::sync::Arc;

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
    /// Told when a schedule was changed here.
    pub(crate) schedules_changed: Notify,
}

impl Shared {
    /// The time.
    pub(crate) fn now(&self) -> domain::Time {
        (self.ports.clock)()
    }
}
