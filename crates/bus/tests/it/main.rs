//! The behaviour of every bus, and what is particular to each.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test fails by panicking"
)]

extern crate agentrunner_bus as bus;

#[macro_use]
mod suite;
mod broker;
mod in_process;
mod model;
mod rabbitmq;
mod rabbitmq_faults;
mod rabbitmq_kills;
mod support;
