//! A database in which much has happened, made quickly: one execution of each kind is performed, and its rows copied.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use domain::{ExecutionId, Status, TraceId};
use engine::{Engine, NewTask};
use serde_json::json;
use uuid::Uuid;

use super::rig::{ASK, Rig, TURNS};
use crate::cli::Context;

/// How long an execution may take to be as it is wanted.
const PATIENCE: Duration = Duration::from_secs(60);
const PAUSE: Duration = Duration::from_millis(20);

/// Fills the database with executions that are over and ones that wait for a person.
///
/// # Errors
/// It is the embedded one, or can't be written.
pub(crate) async fn fill(
    context: &Context,
    rig: &Rig,
    finished: u64,
    waiting: u64,
) -> anyhow::Result<()> {
    let kinds = [
        (TURNS, Status::Completed, finished),
        (ASK, Status::WaitingForInput, waiting),
    ];
    for (agent, status, copies) in kinds.into_iter().filter(|(.., copies)| *copies > 0) {
        let server = context.settings.servers.postgres.as_ref();
        let server =
            server.context("--finished and --waiting need PostgreSQL: set POSTGRES_HOST")?;
        let original = one(rig.system.engine(), agent, status).await?;
        store::postgres::fill(server, original, copies).await?;
    }
    Ok(())
}

/// Performs one until it has come to a state.
async fn one(engine: &Engine, agent: &str, wanted: Status) -> anyhow::Result<ExecutionId> {
    let trace = TraceId::from_uuid(Uuid::now_v7());
    let task = NewTask::new(agent, json!({ "prompt": "Go." }), trace);
    let id = engine.submit(task).await?.id;
    let began = Instant::now();
    loop {
        let row = engine.store().execution(id).await?;
        // Parked, when it waits: what an owner holds can't be copied.
        if row.is_some_and(|row| row.status == wanted && row.worker.is_none()) {
            return Ok(id);
        }
        anyhow::ensure!(
            began.elapsed() < PATIENCE,
            "the execution to copy did not become {wanted}"
        );
        tokio::time::sleep(PAUSE).await;
    }
}
