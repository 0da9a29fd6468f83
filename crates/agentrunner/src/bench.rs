//! Measuring: a local stand-in for a provider, workloads on the real wiring, and what the disk and the stand-in can do
//! alone, so that a figure can be judged.

pub(crate) mod asking;
pub(crate) mod disk;
pub(crate) mod events;
pub(crate) mod fill;
pub(crate) mod latency;
pub(crate) mod lists;
pub(crate) mod memory;
pub(crate) mod provider;
pub(crate) mod report;
pub(crate) mod schedules;
pub(crate) mod sleeping;
pub(crate) mod startup;
pub(crate) mod statistics;
pub(crate) mod submit;
pub(crate) mod waiting;
pub(crate) mod workload;

mod rig;
