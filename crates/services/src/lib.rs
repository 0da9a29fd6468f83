//! The HTTP services, their faces, and the agent configuration with hot reload.
//!
//! - [`config`] reads agents and keeps them current.
//! - [`http`] is what every service shares: errors, bodies, paging, tracing, limits, health, metrics.
//! - [`orchestrator`], [`config_api`] and [`state`] are the services; none knows of another.
//! - [`Server`] binds and serves them.

pub mod config;
