//! Schedules: against an independent calculation over simulated years, and through the binary.

mod kills;
mod oracle;
mod product;
mod simulation;
