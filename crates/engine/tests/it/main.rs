//! The engine on a real store and bus, with a model and tools that the test plays itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what went wrong by panicking"
)]
#![allow(
    clippy::print_stdout,
    reason = "a simulated history is told to whoever asks for it"
)]

/// The behaviour suite of the stores, where it is: the simulated database must pass it too.
#[macro_use]
#[path = "../../../store/tests/it"]
mod stores {
    #[macro_use]
    #[allow(
        dead_code,
        reason = "what looks into rows is for stores that have some"
    )]
    pub(crate) mod suite;
}
pub(crate) use stores::suite;

mod collaboration;
mod conversations;
mod delegation;
mod events;
mod faults;
mod fleet;
mod frozen;
mod looking;
mod pausing;
mod people;
mod restored;
mod rig;
mod running;
mod scheduling;
mod simulation;
mod slow_store;
mod stopping;
mod travel;
mod watching;
