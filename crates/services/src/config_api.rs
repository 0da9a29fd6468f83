//! ConfigService: definitions of agents, their versions, checks and reloads.

mod change;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::{AgentName, ConfigVersion, ExecutionMode, Time};
use engine::Agent;
use http::{Uri, header};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use crate::config::{Diagnostic, ReloadError, Report, schema};
use crate::http::body::TextBody;
use crate::http::caller::Caller;
use crate::http::door::{ADMIN, OPERATE, Owner, READ, Routes};
use crate::http::error::ErrorBody;
use crate::http::page::Listed;
use crate::http::params::{MODES, Params, agent_name, one_of};
use crate::http::{Answer, ApiError, App, Code};

/// The routes.
pub(crate) fn routes() -> Routes {
    let an_agents = Owner::Config("name");
    Routes::new()
        .with(READ.of(Owner::Handler), routes!(list))
        .with(READ.of(an_agents), routes!(show))
        .with(READ.of(an_agents), routes!(versions))
        .with(READ.of(an_agents), routes!(version))
        .with(READ.of(Owner::Nobody), routes!(validate))
        .with(ADMIN.of(Owner::Everybody), routes!(change::upload))
        .with(OPERATE.of(an_agents), routes!(change::roll_back))
        .with(OPERATE.of(Owner::Everybody), routes!(reload))
        .with(READ.of(Owner::Nobody), routes!(agent_schema))
}

/// The configuration of an agent.
#[derive(Debug, Serialize, ToSchema)]
struct ConfigOut {
    /// The agent's name.
    name: String,
    /// autonomous, collaborative, continuous or scheduled.
    #[schema(value_type = String, example = "autonomous")]
    execution_mode: ExecutionMode,
    /// What it does.
    description: String,
    /// Whether it takes work.
    enabled: bool,
    /// Labels to filter by.
    tags: Vec<String>,
    /// The version that new executions begin with: a hash of the content.
    version: String,
    /// The file, relative to the folder of agents.
    path: String,
    /// When this version was loaded first.
    #[schema(value_type = String, format = DateTime)]
    loaded_at: Time,
    /// Why the file's newest content is not in use; null when it is.
    rejected: Option<String>,
}

impl From<&Agent> for ConfigOut {
    fn from(agent: &Agent) -> Self {
        let definition = &agent.definition;
        Self {
            name: definition.name.to_string(),
            execution_mode: definition.execution_mode,
            description: definition.description.clone(),
            enabled: definition.enabled,
            tags: definition.tags.clone(),
            version: agent.version.to_string(),
            path: agent.path.clone(),
            loaded_at: agent.loaded_at,
            rejected: agent.rejected.clone(),
        }
    }
}

/// A configuration in full.
#[derive(Debug, Serialize, ToSchema)]
struct ConfigFull {
    #[serde(flatten)]
    config: ConfigOut,
    /// The definition; references to the environment are shown as they are written, never expanded.
    #[schema(value_type = Object)]
    definition: Value,
}

/// Which configurations; all of them when nothing is said.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListParams {
    /// autonomous, collaborative, continuous or scheduled.
    execution_mode: Option<String>,
    /// Only those with all of these labels, joined by commas.
    tags: Option<String>,
    /// Only those that take work, or that do not.
    enabled: Option<bool>,
    /// How many at most: 1 to 1000, 100 when nothing is said.
    limit: Option<usize>,
    /// Where to go on: from the `Link` header of the answer before.
    cursor: Option<String>,
}

impl ListParams {
    fn wants(&self, config: &ConfigOut) -> bool {
        let mode = self.execution_mode.as_deref();
        mode.is_none_or(|mode| mode == config.execution_mode.as_str())
            && self.enabled.is_none_or(|enabled| enabled == config.enabled)
            && self
                .tags
                .iter()
                .flat_map(|tags| tags.split(','))
                .all(|tag| config.tags.iter().any(|own| own == tag.trim()))
    }
}

/// Lists configurations.
#[utoipa::path(get, path = "/configs", tag = "configs", params(ListParams), responses(
    (status = 200, description = "Configurations by name.", body = Vec<ConfigOut>),
    (status = 400, body = ErrorBody),
))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(params): Params<ListParams>,
    uri: Uri,
) -> Answer<Response> {
    one_of("execution_mode", params.execution_mode.as_deref(), &MODES)?;
    let agents = app.engine.agents().all();
    let configs: Vec<ConfigOut> = agents
        .iter()
        .filter(|agent| caller.covers(&agent.definition.name))
        .map(ConfigOut::from)
        .filter(|config| params.wants(config))
        .collect();
    let cursor = params.cursor.as_deref();
    let listed = Listed::of_all(configs, |config| &config.name, params.limit, cursor, &uri)?;
    Ok(listed.into_response())
}

/// Shows a configuration.
#[utoipa::path(get, path = "/configs/{name}", tag = "configs", params(("name" = String, Path)), responses(
    (status = 200, body = ConfigFull),
    (status = 404, body = ErrorBody),
))]
async fn show(State(app): State<App>, Path(name): Path<String>) -> Answer<Json<ConfigFull>> {
    let parsed = agent_name(&name, Code::ConfigNotFound)?;
    let agent = app
        .engine
        .agents()
        .get(&parsed)
        .ok_or_else(|| no_config(&app, &name))?;
    Ok(Json(ConfigFull {
        config: ConfigOut::from(&agent),
        definition: serde_json::to_value(&*agent.definition).unwrap_or_default(),
    }))
}

fn no_config(app: &App, name: &str) -> ApiError {
    let nearest = app.engine.agents().nearest(name);
    let hint = nearest.map_or_else(
        || "GET /configs lists them".to_owned(),
        |name| format!("did you mean {name}?"),
    );
    ApiError::new(
        Code::ConfigNotFound,
        format!("there is no configuration {name}; {hint}"),
    )
}

/// A version of a configuration.
#[derive(Debug, Serialize, ToSchema)]
struct VersionOut {
    /// A hash of the content.
    version: String,
    /// When it was loaded first.
    #[schema(value_type = String, format = DateTime)]
    loaded_at: Time,
    /// Whether new executions begin with it.
    is_current: bool,
}

/// Lists the versions of a configuration, newest first.
#[utoipa::path(get, path = "/configs/{name}/versions", tag = "configs", params(("name" = String, Path)), responses(
    (status = 200, body = Vec<VersionOut>),
    (status = 404, body = ErrorBody),
))]
async fn versions(
    State(app): State<App>,
    Path(name): Path<String>,
) -> Answer<Json<Vec<VersionOut>>> {
    let parsed = agent_name(&name, Code::ConfigNotFound)?;
    let versions = app.engine.store().config_versions(&parsed).await?;
    if versions.is_empty() {
        return Err(no_config(&app, &name));
    }
    let versions = versions.into_iter().map(|summary| VersionOut {
        version: summary.version.to_string(),
        loaded_at: summary.loaded_at,
        is_current: summary.is_current,
    });
    Ok(Json(versions.collect()))
}

/// A version of a configuration in full.
#[derive(Debug, Serialize, ToSchema)]
struct VersionFull {
    /// The agent's name.
    name: String,
    /// A hash of the content.
    version: String,
    /// When it was loaded first.
    #[schema(value_type = String, format = DateTime)]
    loaded_at: Time,
    /// The file that it was loaded from, relative to the folder of agents.
    path: String,
    /// The text of the file.
    source: String,
    /// The definition; references to the environment are shown as they are written, never expanded.
    #[schema(value_type = Object)]
    definition: Value,
}

/// Shows a version of a configuration.
#[utoipa::path(get, path = "/configs/{name}/versions/{version}", tag = "configs",
    params(("name" = String, Path), ("version" = String, Path)),
    responses((status = 200, body = VersionFull), (status = 404, body = ErrorBody)))]
async fn version(
    State(app): State<App>,
    Path((name, version)): Path<(String, String)>,
) -> Answer<Json<VersionFull>> {
    let parsed = agent_name(&name, Code::ConfigNotFound)?;
    let record = match version.parse::<ConfigVersion>() {
        Ok(version) => find_version(&app, &parsed, &version).await?,
        Err(_) => None,
    };
    let record = record.ok_or_else(|| no_version(&name, &version))?;
    Ok(Json(record))
}

fn no_version(name: &str, version: &str) -> ApiError {
    let shown: String = version.chars().take(40).collect();
    let message =
        format!("there is no version {shown:?} of {name}; GET /configs/{name}/versions lists them");
    ApiError::new(Code::ConfigNotFound, message)
}

async fn find_version(
    app: &App,
    name: &AgentName,
    version: &ConfigVersion,
) -> Answer<Option<VersionFull>> {
    let record = app.engine.store().config(name, version).await?;
    Ok(record.map(|record| VersionFull {
        name: record.definition.name.to_string(),
        version: record.version.to_string(),
        loaded_at: record.loaded_at,
        path: record.path,
        source: record.source,
        definition: serde_json::to_value(&record.definition).unwrap_or_default(),
    }))
}

/// What came of checking a text.
#[derive(Debug, Serialize, ToSchema)]
struct ValidationOut {
    /// Whether an agent can work with it.
    valid: bool,
    /// Everything that is wrong with it.
    errors: Vec<DiagnosticOut>,
    /// What its author should know besides.
    warnings: Vec<DiagnosticOut>,
}

/// Something about a text.
#[derive(Debug, Serialize, ToSchema)]
struct DiagnosticOut {
    /// Which field.
    #[schema(example = "llm_config.temprature")]
    path: String,
    /// From 1.
    line: usize,
    /// From 1.
    column: usize,
    /// What is wrong.
    message: String,
    /// What to do.
    hint: String,
}

impl From<Diagnostic> for DiagnosticOut {
    fn from(diagnostic: Diagnostic) -> Self {
        Self {
            path: diagnostic.path,
            line: diagnostic.line,
            column: diagnostic.column,
            message: diagnostic.message,
            hint: diagnostic.hint,
        }
    }
}

/// Checks the text of an agent's file, YAML or JSON, without keeping or running anything.
#[utoipa::path(post, path = "/configs/validate", tag = "configs",
    request_body(content((Value = "application/yaml"), (Value = "application/json"))),
    responses(
        (status = 200, description = "It was checked; `valid` tells the verdict.", body = ValidationOut),
        (status = 400, body = ErrorBody), (status = 413, body = ErrorBody), (status = 415, body = ErrorBody),
    ))]
async fn validate(State(app): State<App>, TextBody(text): TextBody) -> Json<ValidationOut> {
    let (errors, warnings) = match app.config.validate(&text, "body") {
        Ok(parsed) => (Vec::new(), parsed.warnings),
        Err(found) => found.into_iter().partition(Diagnostic::is_error),
    };
    Json(ValidationOut {
        valid: errors.is_empty(),
        errors: errors.into_iter().map(Into::into).collect(),
        warnings: warnings.into_iter().map(Into::into).collect(),
    })
}

/// What came of a reload.
#[derive(Debug, Serialize, ToSchema)]
struct ReloadOut {
    /// Agents that there are now.
    loaded: usize,
    /// Agents that there were not before.
    added: usize,
    /// Agents with a new version.
    updated: usize,
    /// Agents as before.
    unchanged: usize,
    /// Agents that are gone with their files.
    removed: usize,
    /// Files that can't be used; their last good versions stay.
    rejected: usize,
    /// Why not.
    errors: Vec<FileDiagnosticOut>,
    /// What authors should know besides.
    warnings: Vec<FileDiagnosticOut>,
}

/// Something about a file.
#[derive(Debug, Serialize, ToSchema)]
struct FileDiagnosticOut {
    /// The file, relative to the folder of agents.
    file: String,
    #[serde(flatten)]
    diagnostic: DiagnosticOut,
}

impl From<Diagnostic> for FileDiagnosticOut {
    fn from(diagnostic: Diagnostic) -> Self {
        Self {
            file: diagnostic.file.clone(),
            diagnostic: diagnostic.into(),
        }
    }
}

impl From<Report> for ReloadOut {
    fn from(report: Report) -> Self {
        Self {
            loaded: report.loaded,
            added: report.added,
            updated: report.updated,
            unchanged: report.unchanged,
            removed: report.removed,
            rejected: report.rejected,
            errors: report.errors.into_iter().map(Into::into).collect(),
            warnings: report.warnings.into_iter().map(Into::into).collect(),
        }
    }
}

/// Reads the folder of agents now. It is read by itself whenever a file changes.
#[utoipa::path(post, path = "/reload", tag = "configs", responses(
    (status = 200, body = ReloadOut),
    (status = 503, description = "The folder or the store can't be reached; nothing was changed.", body = ErrorBody),
))]
async fn reload(State(app): State<App>) -> Answer<Json<ReloadOut>> {
    let report = app.config.reload().await.map_err(unreadable)?;
    Ok(Json(report.into()))
}

fn unreadable(error: ReloadError) -> ApiError {
    match error {
        ReloadError::Store(error) => error.into(),
        ReloadError::Folder { .. } => {
            tracing::warn!(%error, "the folder of agents can't be read");
            let message =
                "the folder of agents can't be read, and the agents stay as they are; see the log";
            ApiError::new(Code::DependencyUnavailable, message)
        }
    }
}

/// The JSON Schema of an agent's file, for editors: put
/// `# yaml-language-server: $schema=http://localhost:8002/schema/agent.json` on its first line.
#[utoipa::path(get, path = "/schema/agent.json", tag = "configs",
    responses((status = 200, body = Object, content_type = "application/schema+json")))]
async fn agent_schema() -> Response {
    let content_type = [(header::CONTENT_TYPE, "application/schema+json")];
    (content_type, schema().to_string()).into_response()
}
