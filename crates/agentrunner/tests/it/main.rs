//! The binary, end to end: as a person at a shell and as a program around it would use it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a test says by panicking that something is wrong"
)]

mod attacks;
mod backing;
mod bad_input;
mod conversations;
mod crash;
mod crash_people;
mod doctor;
mod fault_suite;
mod five_kinds;
mod fleet;
mod health;
mod init;
mod keys;
mod ledger;
mod limits_audit;
mod logs;
mod mcp;
mod migrating;
mod monitoring;
mod outgoing;
mod pages;
mod postgres_faults;
mod product;
mod project;
mod real_parts;
mod restoring;
mod run;
mod schedules;
mod schemathesis;
mod secrets;
mod serve;
mod servers;
mod servers_redis;
mod servers_roles;
mod slack;
mod streaming;
mod survive;
mod teams;
mod tidy;
mod tls;
mod tools_of_the_trade;
mod traces;
mod wrong_use;
