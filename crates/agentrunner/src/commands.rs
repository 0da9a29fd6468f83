//! One file per command. A command reads its settings, asks a server (or this process in its place), and prints.

pub(crate) mod agents;
pub(crate) mod alerts;
pub(crate) mod audit;
pub(crate) mod backup;
pub(crate) mod bench;
pub(crate) mod callbacks;
pub(crate) mod chat;
pub(crate) mod cleanup;
pub(crate) mod completions;
pub(crate) mod configs;
pub(crate) mod dead_letters;
pub(crate) mod doctor;
pub(crate) mod health;
pub(crate) mod inbox;
pub(crate) mod init;
pub(crate) mod keys;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod mcp;
pub(crate) mod migrate;
pub(crate) mod restore;
pub(crate) mod run;
pub(crate) mod schedules;
pub(crate) mod serve;
pub(crate) mod tasks;
pub(crate) mod transfer;
pub(crate) mod up;
pub(crate) mod validate;

mod backend;
pub(crate) mod choose;
mod follow;
mod serving;
mod starter;
mod tree;
