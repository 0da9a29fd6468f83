//! Sends out what has to arrive: the ends of executions to the addresses that their callers named, alerts to their
//! receivers.
//!
//! What is to be sent lies in the store, written in the transaction that made it necessary. Any number of processes take
//! from there; one of them has a delivery at a time, and a process that dies only delays it. So a receiver gets each
//! message at least once, under the same `webhook-id` each time, and leaves out what it has seen. Requests go through
//! the egress guard, follow no redirects, and are signed as Standard Webhooks 1.0 wants it.

mod callback;
mod post;
mod sender;
pub mod signature;

use std::sync::Arc;

use engine::Engine;
use tools::Egress;

use crate::alerts::Alerts;
pub(crate) use post::{Tried, post, retry_after, webhook_id};
pub use signature::SigningKeys;

/// Sends out what is due. Cheap to clone.
#[derive(Clone)]
pub struct Sender {
    engine: Engine,
    egress: Arc<Egress>,
    /// Without them nothing can be signed, and callbacks wait for a process that has some.
    keys: Option<Arc<SigningKeys>>,
    alerts: Alerts,
}

impl Sender {
    /// A sender that signs with `keys` and tells alerts as `alerts` knows their receivers.
    pub fn new(
        engine: Engine,
        egress: Arc<Egress>,
        keys: Option<Arc<SigningKeys>>,
        alerts: Alerts,
    ) -> Self {
        Self {
            engine,
            egress,
            keys,
            alerts,
        }
    }
}
