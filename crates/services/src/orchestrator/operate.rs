//! What people do to agents, over their files: disable, enable and restart them.

use axum::Json;
use axum::extract::{Path, State};
use domain::AgentName;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::agents::{StatusOut, find, status_of};
use crate::http::caller::Caller;
use crate::http::error::ErrorBody;
use crate::http::{Answer, App};

/// Lets an agent take work again that was disabled with `/disable`: here at once, in every other process within five
/// seconds. One that its file disables (`enabled: false`) is enabled there.
#[utoipa::path(post, path = "/agents/{name}/enable", tag = "agents", params(("name" = String, Path)), responses(
    (status = 200, description = "It takes work.", body = StatusOut),
    (status = 404, body = ErrorBody),
    (status = 409, description = "Its file disables it.", body = ErrorBody),
))]
pub(super) async fn enable(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer<Json<StatusOut>> {
    switch(&app, &caller, &name, true).await
}

/// Has an agent take no more work, until it is enabled again: also after a restart, and whatever becomes of its file. Tasks
/// for it are refused with 409, events do not start it, its schedules skip their runs. What it was given before goes on.
/// Here at once, in every other process within five seconds.
#[utoipa::path(post, path = "/agents/{name}/disable", tag = "agents", params(("name" = String, Path)), responses(
    (status = 200, description = "It takes no work.", body = StatusOut),
    (status = 404, body = ErrorBody),
))]
pub(super) async fn disable(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer<Json<StatusOut>> {
    switch(&app, &caller, &name, false).await
}

async fn switch(app: &App, caller: &Caller, name: &str, is_on: bool) -> Answer<Json<StatusOut>> {
    let name = find(app, name)?.definition.name.clone();
    let agent = app.engine.switch_agent(&name, is_on, caller.name()).await?;
    let word = if is_on { "enabled" } else { "disabled" };
    tracing::info!(agent_name = %name, by = caller.name(), "the agent was {word}");
    Ok(Json(status_of(app, &agent).await?))
}

/// A restart that is under way.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct RestartOut {
    /// The agent.
    #[schema(value_type = String)]
    name: AgentName,
    /// `restarting`.
    #[schema(example = "restarting")]
    status: &'static str,
    /// How many of its executions are performed at this moment: those are interrupted.
    running: u64,
}

/// Has the executions that an agent performs at this moment interrupted and taken up anew, in all processes, with its
/// variables and secrets read anew: for one that hangs, or whose key was changed. Each comes to its next durable step
/// first, for ten seconds at most. Nothing that is durable is done again; a call of a tool that is cut off is settled by
/// the tool's `effect`. Executions that wait are not touched.
#[utoipa::path(post, path = "/agents/{name}/restart", tag = "agents", params(("name" = String, Path)), responses(
    (status = 202, description = "It is said; every process acts on it within a few seconds.", body = RestartOut),
    (status = 404, body = ErrorBody),
))]
pub(super) async fn restart(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
) -> Answer<(StatusCode, Json<RestartOut>)> {
    let name = find(&app, &name)?.definition.name.clone();
    let filter = store::ExecutionFilter {
        agent: Some(name.clone()),
        status: vec![domain::Status::Running],
        ..store::ExecutionFilter::default()
    };
    let page = store::Page {
        limit: 1,
        after: None,
    };
    let (_, running) = app.engine.store().executions(filter, page).await?;
    app.engine.restart_agent(&name).await?;
    tracing::info!(agent_name = %name, by = caller.name(), running, "the agent is restarted");
    let restarting = RestartOut {
        name,
        status: "restarting",
        running,
    };
    Ok((StatusCode::ACCEPTED, Json(restarting)))
}
