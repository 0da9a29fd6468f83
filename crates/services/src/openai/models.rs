//! Agents, listed as models.

use axum::Json;
use axum::extract::{Path, State};
use engine::Agent;
use serde::Serialize;
use utoipa::ToSchema;

use super::OpenAiError;
use crate::http::caller::Caller;
use crate::http::{Answer, ApiError, App, Code};

/// All models.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelsOut {
    /// `list`.
    object: &'static str,
    /// The models.
    data: Vec<ModelOut>,
}

/// An agent as a model.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ModelOut {
    /// The agent's name.
    #[schema(example = "incident-writer")]
    id: String,
    /// `model`.
    object: &'static str,
    /// When this version of it was loaded, in seconds since 1970.
    created: i64,
    /// `agentrunner`.
    owned_by: &'static str,
}

impl From<&Agent> for ModelOut {
    fn from(agent: &Agent) -> Self {
        Self {
            id: agent.definition.name.to_string(),
            object: "model",
            created: agent.loaded_at.timestamp(),
            owned_by: "agentrunner",
        }
    }
}

/// Lists the agents that take work.
#[utoipa::path(get, path = "/v1/models", tag = "openai", responses((status = 200, body = ModelsOut)))]
pub(super) async fn list(State(app): State<App>, caller: Caller) -> Json<ModelsOut> {
    let agents = app.engine.agents().all();
    let data = agents
        .iter()
        .filter(|agent| agent.takes_work() && caller.covers(&agent.definition.name))
        .map(ModelOut::from)
        .collect();
    let object = "list";
    Json(ModelsOut { object, data })
}

/// Shows an agent.
#[utoipa::path(get, path = "/v1/models/{model}", tag = "openai", params(("model" = String, Path)), responses(
    (status = 200, body = ModelOut),
    (status = 404, body = OpenAiError),
))]
pub(super) async fn show(
    State(app): State<App>,
    Path(model): Path<String>,
) -> Answer<Json<ModelOut>> {
    find(&app, &model).map(|agent| Json(ModelOut::from(&agent)))
}

/// The agent that a client calls a model.
pub(super) fn find(app: &App, model: &str) -> Answer<Agent> {
    let agents = app.engine.agents();
    let found = model.parse().ok().and_then(|name| agents.get(&name));
    found.filter(|agent| agent.takes_work()).ok_or_else(|| {
        let nearest = agents.nearest(model);
        let hint = nearest.map_or_else(
            || "GET /v1/models lists them".to_owned(),
            |nearest| format!("did you mean {nearest}? GET /v1/models lists them"),
        );
        let shown: String = model.chars().take(80).collect();
        let message = format!("there is no agent {shown:?} that takes work; {hint}");
        ApiError::new(Code::AgentNotFound, message).with_field(
            "model",
            "there is no such agent",
            &hint,
        )
    })
}
