//! The services over real HTTP, with the real store, bus, engine and tools; only the model is a script.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::too_many_lines,
    reason = "a test that panics fails, which is what it is for"
)]

mod access;
mod alerts;
mod callbacks;
mod collaboration;
mod config;
mod configs_api;
mod configs_change;
mod contract;
mod conversations;
mod documents;
mod edge;
mod feed;
mod harness;
mod openai_face;
mod openai_responses;
mod openapi;
mod operate;
mod people;
mod receiver;
mod slack;
mod socket;
mod state;
mod stream;
mod tasks;
mod travel;
