//! A database in which much has happened, made quickly: one execution of each kind is performed, and its rows copied.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use domain::{AgentName, ExecutionId, Status, TraceId};
use engine::{Engine, NewTask};
use serde_json::json;
use store::{ExecutionFilter, Page};
use uuid::Uuid;

use super::rig::{ASK, Rig, TURNS, listener};
use crate::cli::Context;

/// How long an execution may take to be as it is wanted.
const PATIENCE: Duration = Duration::from_secs(60);
/// How many things each of many agents does.
const OF_EACH: usize = 3;
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

/// Fills the database with executions that are over, spread over this many of all agents that listen to events; one share
/// more is another agent's, and was cancelled.
///
/// # Errors
/// As for [`fill`].
pub(crate) async fn spread(
    context: &Context,
    rig: &Rig,
    executions: u64,
    (all, agents): (u32, u32),
) -> anyhow::Result<()> {
    let server = context.settings.servers.postgres.as_ref();
    let server = server.context("this needs PostgreSQL: set POSTGRES_HOST")?;
    let engine = rig.system.engine();
    some_of_each(rig, all).await?;
    let each = executions / u64::from(agents + 1);
    for which in 0..agents {
        let (agent, _) = listener(which);
        let original = one(engine, &agent, Status::Completed).await?;
        store::postgres::fill(server, original, each).await?;
    }
    let waits = one(engine, ASK, Status::WaitingForInput).await?;
    engine
        .cancel(waits, "bench", "to be one that was cancelled")
        .await?;
    until(engine, waits, Status::Cancelled).await?;
    store::postgres::fill(server, waits, each).await?;
    Ok(())
}

/// Lets each agent that listens to events do a few things, so that there is something to count for each.
async fn some_of_each(rig: &Rig, agents: u32) -> anyhow::Result<()> {
    let engine = rig.system.engine();
    for which in (0..agents).cycle().take(agents as usize * OF_EACH) {
        let trace = TraceId::from_uuid(Uuid::now_v7());
        let (agent, _) = listener(which);
        engine
            .submit(NewTask::new(agent, json!({ "prompt": "Go." }), trace))
            .await?;
    }
    let (agent, _) = listener(agents.saturating_sub(1));
    one(engine, &agent, Status::Completed).await?;
    Ok(())
}

/// The trace of an execution of an agent.
///
/// # Errors
/// It has none.
pub(crate) async fn a_trace(engine: &Engine, agent: &AgentName) -> anyhow::Result<TraceId> {
    let filter = ExecutionFilter {
        agent: Some(agent.clone()),
        ..ExecutionFilter::default()
    };
    let one = Page {
        limit: 1,
        after: None,
    };
    let (rows, _) = engine.store().executions(filter, one).await?;
    let row = rows.into_iter().next();
    Ok(row
        .context("the agent has no execution")?
        .execution
        .trace_id)
}

/// Performs one until it has come to a state.
async fn one(engine: &Engine, agent: &str, wanted: Status) -> anyhow::Result<ExecutionId> {
    let trace = TraceId::from_uuid(Uuid::now_v7());
    let task = NewTask::new(agent, json!({ "prompt": "Go." }), trace);
    let id = engine.submit(task).await?.id;
    until(engine, id, wanted).await?;
    Ok(id)
}

/// Waits until an execution has come to a state.
async fn until(engine: &Engine, id: ExecutionId, wanted: Status) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        let row = engine.store().execution(id).await?;
        // Parked, when it waits: what an owner holds can't be copied.
        if row.is_some_and(|row| row.status == wanted && row.worker.is_none()) {
            return Ok(());
        }
        anyhow::ensure!(
            began.elapsed() < PATIENCE,
            "the execution to copy did not become {wanted}"
        );
        tokio::time::sleep(PAUSE).await;
    }
}
