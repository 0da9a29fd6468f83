//! The rules of the agent loop, held against every history that chance can think of.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test says what went wrong by panicking"
)]

mod collaboration;
mod definitions;
mod loop_rules;
mod people;
mod plans;
mod silence;
mod simulation;
mod spans;
mod travel;
