//! Schedules: against an independent calculation over simulated years, and through the binary.

mod oracle;
mod product;
mod simulation;
