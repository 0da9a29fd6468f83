//! How busy the workers are, in all processes.

use axum::Json;
use axum::extract::State;
use domain::fleet::{AgentLoad, PoolStats, pools};
use serde::Serialize;
use utoipa::ToSchema;

use super::fleet::Fleet;
use crate::http::{Answer, App};
use crate::worker::WorkerOut;

/// A pool of workers. Capacity, activity and throughput are those of the workers that are alive.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct PoolOut {
    /// The service that its workers are: autonomous-agent-pool, collaborative-agent-pool, continuous-agent-runner; `up`
    /// for processes that serve everything.
    #[schema(example = "autonomous-agent-pool")]
    pool: &'static str,
    /// Its workers; one that was lost is shown for a while.
    workers: Vec<WorkerOut>,
    /// How many executions it can perform at once.
    capacity: u64,
    /// How many it performs.
    active: u64,
    /// How many wait to be begun.
    queued: u64,
    /// `active` as a share of `capacity`.
    load: f64,
    /// Executions that it brought to an end, per minute, over the last minute or so.
    throughput_per_minute: f64,
    /// Executions of its agents that ended, with an answer or without, as far as the store remembers.
    finished_total: u64,
}

impl From<PoolStats> for PoolOut {
    fn from(stats: PoolStats) -> Self {
        Self {
            pool: stats.pool.as_str(),
            workers: stats.workers.into_iter().map(WorkerOut::from).collect(),
            capacity: stats.capacity,
            active: stats.active,
            queued: stats.queued,
            load: stats.load,
            throughput_per_minute: stats.finished_per_minute,
            finished_total: stats.finished,
        }
    }
}

/// Shows how busy the pools are: their workers in all processes, what these perform, and what waits for them.
#[utoipa::path(get, path = "/metrics/pool-stats", tag = "usage", responses(
    (status = 200, description = "Pools that have workers, or agents that wait for some.", body = Vec<PoolOut>),
))]
pub(super) async fn list(State(app): State<App>) -> Answer<Json<Vec<PoolOut>>> {
    let engine = &app.engine;
    let fleet = app.fleet.get(|| Fleet::read(&app, None)).await?;
    let load = |agent: engine::Agent| {
        let stats = fleet.stats(&agent.definition.name);
        AgentLoad {
            mode: agent.definition.execution_mode,
            queued: stats.map_or(0, |stats| stats.queued),
            finished: stats.map_or(0, |stats| stats.completed + stats.failed),
        }
    };
    let agents: Vec<AgentLoad> = engine.agents().all().into_iter().map(load).collect();
    let interval = engine.registration().interval;
    let pools = pools(fleet.workers.clone(), &agents, engine.now(), interval);
    Ok(Json(pools.into_iter().map(PoolOut::from).collect()))
}
