//! A worker, as the services show it.

use domain::Time;
use domain::fleet::WorkerStats;
use serde::Serialize;
use utoipa::ToSchema;

/// A worker.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct WorkerOut {
    /// Its id, unique to the process.
    pub(crate) id: String,
    /// The service that it is: autonomous-agent-pool, collaborative-agent-pool, continuous-agent-runner; `up` for a process
    /// that serves everything.
    #[schema(example = "autonomous-agent-pool")]
    pool: &'static str,
    /// alive, or lost when it has not been heard of for three quarters of AGENT_HEALTH_CHECK_INTERVAL.
    #[schema(example = "alive")]
    status: &'static str,
    /// Its machine or container.
    host: String,
    /// Its process id there.
    pid: u32,
    /// The version of its program.
    version: String,
    /// How many executions it can perform at once.
    capacity: u32,
    /// How many it performs.
    active: u32,
    /// `active` as a share of `capacity`.
    load: f64,
    /// `active` as a share of what its pool performs.
    load_share: f64,
    /// Executions that it brought to an end, per minute, over the last minute or so.
    throughput_per_minute: f64,
    /// Executions that it brought to an end since it started.
    finished: u64,
    /// The agents that it performs.
    agents: Vec<String>,
    /// When it started.
    #[schema(value_type = String, format = DateTime)]
    started_at: Time,
    /// When it was last heard of.
    #[schema(value_type = String, format = DateTime)]
    last_heartbeat: Time,
}

impl From<WorkerStats> for WorkerOut {
    fn from(stats: WorkerStats) -> Self {
        let worker = stats.worker;
        Self {
            id: worker.id.to_string(),
            pool: worker.pool.as_str(),
            status: if stats.is_alive { "alive" } else { "lost" },
            host: worker.host,
            pid: worker.process,
            version: worker.version,
            capacity: worker.capacity,
            active: worker.active,
            load: stats.load,
            load_share: stats.share,
            throughput_per_minute: worker.finished_per_minute,
            finished: worker.finished,
            agents: worker.agents.into_iter().map(String::from).collect(),
            started_at: worker.started_at,
            last_heartbeat: worker.last_heartbeat,
        }
    }
}
