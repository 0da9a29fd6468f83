//! The configuration of agents: YAML with positions, discovery, versions and hot reload.
//!
//! - [`parse()`] turns a text into a [`domain::Definition`] or into everything that is wrong with it.
//! - [`parse_alerts()`] does the same with `alerts.yml`.
//! - [`discover()`] finds the files below a folder.
//! - [`ConfigService`] keeps the engine's agents as the files say, and never worse than they were; and takes new files in.

mod alerts_file;
mod commands;
mod diagnostic;
mod discover;
mod document;
mod files;
mod parse;
mod plan;
mod put;
mod reload;
mod scalar;
mod schema;
mod shape;
mod watch;

pub use alerts_file::parse_alerts;
pub use diagnostic::{Diagnostic, render};
pub use discover::{Found, discover};
pub use parse::{Lookup, Parsed, decode, parse};
pub use plan::Report;
pub use put::{Present, Put, PutError};
pub use reload::{ConfigService, ReloadError, Settings};
pub use schema::schema;
