//! Every provider against a stand-in that speaks its true wire format, and what all of them have in common.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on should stop at once"
)]

mod bedrock;
mod chunking;
mod conformance;
mod failures;
mod keys;
mod probes;
mod quirks;
mod requests;
mod scripted;
mod support;
