//! Tests of the store from outside: one behaviour suite that every adapter is run against, and what is special to each.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test that panics fails, which is what it is for"
)]

// The name that the rest of the workspace knows it by.
extern crate agentrunner_store as store;

#[macro_use]
mod suite;
mod cache;
mod copying;
mod counters;
mod crash;
mod model;
mod postgres;
mod postgres_plans;
mod redis;
mod redis_server;
mod refusals;
mod server;
mod sqlite;
