//! Agents as they are now.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::definition::Definition;
use domain::fleet::{AgentStatus, Circumstances, standing};
use domain::{ExecutionMode, Time};
use engine::Agent;
use http::Uri;
use serde::{Deserialize, Serialize};
use store::AgentStats;
use utoipa::{IntoParams, ToSchema};

use super::changed_tools::{self, ChangedToolOut};
use super::fleet::Fleet;
use crate::execution::provider;
use crate::http::caller::Caller;
use crate::http::error::ErrorBody;
use crate::http::page::Listed;
use crate::http::params::{MODES, Params, agent_name, one_of};
use crate::http::{Answer, ApiError, App, Code};

/// An agent as it stands.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AgentOut {
    /// Its name.
    name: String,
    /// The label that its author gave it.
    agent_type: String,
    /// autonomous, collaborative, continuous or scheduled.
    #[schema(value_type = String, example = "autonomous")]
    execution_mode: ExecutionMode,
    /// ready, running, degraded, unavailable or disabled.
    status: &'static str,
    /// Why, in words; null when all is well.
    status_reason: Option<String>,
    /// What it does.
    description: String,
    /// Labels to filter by.
    tags: Vec<String>,
    /// Whether it takes work.
    enabled: bool,
    /// The version that new executions begin with.
    config_version: String,
    /// The version label that its author gave it.
    version: Option<String>,
    /// Whose model answers.
    provider: &'static str,
    /// Which.
    model: String,
    /// The names of its tools.
    tools: Vec<String>,
    /// Tools that are withheld because their servers changed them after they were approved.
    changed_tools: Vec<ChangedToolOut>,
    /// Executions that are under way or wait.
    active_tasks: u64,
    /// Executions that nobody has begun.
    queued_tasks: u64,
    /// Executions in all.
    total_executions: u64,
    /// The share of executions that ended with an answer, of those that ended by themselves; null when none has.
    success_rate: Option<f64>,
    /// When a worker that performs it was last heard of; null when none is known.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_heartbeat: Option<Time>,
    /// When this version was loaded.
    #[schema(value_type = String, format = DateTime)]
    loaded_at: Time,
}

impl AgentOut {
    fn new(agent: &Agent, fleet: &Fleet, app: &App) -> Self {
        let definition = &agent.definition;
        let stats = fleet.stats(&definition.name);
        let count = |field: fn(&AgentStats) -> u64| stats.map_or(0, field);
        let (completed, failed) = (count(|s| s.completed), count(|s| s.failed));
        let ended = completed + failed;
        let (status, status_reason) = stands(agent, fleet, app);
        let workers = fleet.workers.iter();
        let own = workers.filter(|worker| worker.serves(&definition.name));
        Self {
            name: definition.name.to_string(),
            agent_type: definition.agent_type.clone(),
            execution_mode: definition.execution_mode,
            status: status.as_str(),
            status_reason,
            description: definition.description.clone(),
            tags: definition.tags.clone(),
            enabled: agent.takes_work(),
            config_version: agent.version.to_string(),
            version: definition.version.clone(),
            provider: provider(definition.llm_config.provider),
            model: definition.llm_config.model.clone(),
            tools: definition
                .tools
                .iter()
                .map(|tool| tool.name.clone())
                .collect(),
            changed_tools: changed_tools::shown(fleet.changed_tools(&definition.name)),
            active_tasks: count(|s| s.active),
            queued_tasks: count(|s| s.queued),
            total_executions: count(|s| s.total),
            success_rate: (ended > 0).then(|| completed as f64 / ended as f64),
            last_heartbeat: own.map(|worker| worker.last_heartbeat).max(),
            loaded_at: agent.loaded_at,
        }
    }
}

/// How an agent stands in this fleet.
fn stands(agent: &Agent, fleet: &Fleet, app: &App) -> (AgentStatus, Option<String>) {
    let definition = &agent.definition;
    let missing = app.engine.missing(agent);
    let missing = missing.map(|missing| missing.to_string());
    let circumstances = Circumstances {
        name: &definition.name,
        mode: definition.execution_mode,
        is_enabled: definition.enabled,
        switched_off: agent.switched_off.as_ref(),
        missing: missing.as_deref(),
        rejected: agent.rejected.as_deref(),
        withheld: fleet.changed_tools(&definition.name).len(),
        active: fleet
            .stats(&definition.name)
            .map_or(0, |stats| stats.active),
    };
    let interval = app.engine.registration().interval;
    standing(&circumstances, &fleet.workers, app.engine.now(), interval)
}

/// The words for how an agent stands.
const STATUSES: [&str; 5] = ["ready", "running", "degraded", "unavailable", "disabled"];

/// Which agents; all of them when nothing is said.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// autonomous, collaborative, continuous or scheduled.
    execution_mode: Option<String>,
    /// Only those in this state.
    status: Option<String>,
    /// Only those with all of these labels, joined by commas.
    tags: Option<String>,
    /// How many at most: 1 to 1000, 100 when nothing is said.
    limit: Option<usize>,
    /// Where to go on: from the `Link` header of the answer before.
    cursor: Option<String>,
}

impl ListParams {
    /// What is known without asking how the agent stands.
    fn wants(&self, agent: &Definition) -> bool {
        let mode = self.execution_mode.as_deref();
        mode.is_none_or(|mode| mode == agent.execution_mode.as_str())
            && self
                .tags
                .iter()
                .flat_map(|tags| tags.split(','))
                .all(|tag| agent.tags.iter().any(|own| own == tag.trim()))
    }
}

/// Lists agents. While very many ask, what they are told of counts and workers is up to half a second old.
#[utoipa::path(get, path = "/agents", tag = "agents", params(ListParams), responses(
    (status = 200, description = "Agents by name.", body = Vec<AgentOut>),
    (status = 400, body = ErrorBody),
))]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(params): Params<ListParams>,
    uri: Uri,
) -> Answer<Response> {
    one_of("execution_mode", params.execution_mode.as_deref(), &MODES)?;
    one_of("status", params.status.as_deref(), &STATUSES)?;
    let fleet = app.fleet.get(|| Fleet::read(&app, None)).await?;
    let mut agents = app.engine.agents().all();
    agents.retain(|agent| caller.covers(&agent.definition.name) && params.wants(&agent.definition));
    // How each stands is worked out only for those that are shown, unless it decides who is.
    if let Some(wanted) = &params.status {
        agents.retain(|agent| stands(agent, &fleet, &app).0.as_str() == wanted);
    }
    let cursor = params.cursor.as_deref();
    let listed = Listed::of_all(agents, named, params.limit, cursor, &uri)?;
    let shown = listed.map(|agent| AgentOut::new(&agent, &fleet, &app));
    Ok(shown.into_response())
}

fn named(agent: &Agent) -> &str {
    agent.definition.name.as_str()
}

/// Shows an agent.
#[utoipa::path(get, path = "/agents/{name}", tag = "agents", params(("name" = String, Path)), responses(
    (status = 200, body = AgentOut),
    (status = 404, body = ErrorBody),
))]
pub(super) async fn show(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Answer<Json<AgentOut>> {
    let agent = find(&app, &name)?;
    Ok(Json(seen(&app, &agent).await?))
}

/// How an agent stands, briefly.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct StatusOut {
    /// Its name.
    name: String,
    /// ready, running, degraded, unavailable or disabled.
    status: &'static str,
    /// Why, in words; null when all is well.
    status_reason: Option<String>,
    /// Executions that are under way or wait.
    active_tasks: u64,
    /// Executions that nobody has begun.
    queued_tasks: u64,
    /// The version that new executions begin with.
    config_version: String,
    /// When a worker that performs it was last heard of; null when none is known.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_heartbeat: Option<Time>,
}

/// Tells how an agent stands.
#[utoipa::path(get, path = "/agents/{name}/status", tag = "agents", params(("name" = String, Path)), responses(
    (status = 200, body = StatusOut),
    (status = 404, body = ErrorBody),
))]
pub(super) async fn status(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Answer<Json<StatusOut>> {
    let agent = find(&app, &name)?;
    Ok(Json(status_of(&app, &agent).await?))
}

pub(super) async fn status_of(app: &App, agent: &Agent) -> Answer<StatusOut> {
    let whole = seen(app, agent).await?;
    Ok(StatusOut {
        name: whole.name,
        status: whole.status,
        status_reason: whole.status_reason,
        active_tasks: whole.active_tasks,
        queued_tasks: whole.queued_tasks,
        config_version: whole.config_version,
        last_heartbeat: whole.last_heartbeat,
    })
}

pub(super) fn find(app: &App, name: &str) -> Answer<Agent> {
    let agents = app.engine.agents();
    let parsed = agent_name(name, Code::AgentNotFound)?;
    agents
        .get(&parsed)
        .ok_or_else(|| ApiError::from(agents.unknown(name)))
}

async fn seen(app: &App, agent: &Agent) -> Answer<AgentOut> {
    let fleet = Fleet::read(app, Some(&agent.definition.name)).await?;
    Ok(AgentOut::new(agent, &fleet, app))
}
