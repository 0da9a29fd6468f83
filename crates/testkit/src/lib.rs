#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "dev only: a stand-in that cannot go on should stop the test at once"
)]
//! Stand-ins on the true wire, and fault tools, for tests only.

mod barrier;
mod control;
pub mod effects;
mod log;
mod pen;
pub mod provider;
mod server;

pub use barrier::{Barrier, Filter, Hold, Ticket};
pub use effects::EffectsStandIn;
pub use log::Outcome;
pub use provider::ProviderStandIn;
