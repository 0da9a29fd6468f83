//! The stand-ins, seen from outside.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::too_many_lines,
    clippy::unwrap_used,
    reason = "tests, and their tables"
)]

mod clients;
mod deps;
mod effects;
mod process;
mod provider;
mod proxy;
mod rules;
mod servers;
mod slack;
