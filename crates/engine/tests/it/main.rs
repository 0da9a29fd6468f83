//! The engine on a real store and bus, with a model and tools that the test plays itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what went wrong by panicking"
)]

mod faults;
mod pausing;
mod people;
mod rig;
mod running;
mod stopping;
mod watching;
