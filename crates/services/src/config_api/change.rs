//! Changing configurations: uploads, and the way back to an earlier version.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::ConfigVersion;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::{IntoParams, ToSchema};

use super::{ConfigOut, DiagnosticOut, no_config, no_version};
use crate::config::{Diagnostic, Present, Put, PutError};
use crate::http::body::{OptionalBody, Payload, TextBody};
use crate::http::caller::Caller;
use crate::http::error::ErrorBody;
use crate::http::idempotency::idempotency_key;
use crate::http::params::{Params, agent_name};
use crate::http::{Answer, ApiError, App, Code};

/// What to do with an agent that is there.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UploadParams {
    /// Whether the agent of that name is replaced, if there is one. `If-Match` with its version makes sure which.
    #[serde(default)]
    replace: bool,
}

/// A configuration that was changed.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ChangedOut {
    #[serde(flatten)]
    config: ConfigOut,
    /// The version before; null when the agent is new.
    previous_version: Option<String>,
    /// What its author should know.
    warnings: Vec<DiagnosticOut>,
}

impl From<Put> for ChangedOut {
    fn from(put: Put) -> Self {
        Self {
            config: ConfigOut::from(&put.agent),
            previous_version: put.before.map(|version| version.to_string()),
            warnings: put.warnings.into_iter().map(Into::into).collect(),
        }
    }
}

/// Takes the text of an agent's file, YAML or JSON, into the folder of agents, as `NAME.yml`, and into use. It is checked
/// first, as by `/configs/validate`; a program of an MCP server (`command`) can't be named here. Executions that are under
/// way end on the version that they began with.
#[utoipa::path(post, path = "/configs/upload", tag = "configs",
    params(UploadParams,
        ("If-Match" = Option<String>, Header, description = "The version that is to be replaced."),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request harmless: when what is there is what is sent, it is answered as done.")),
    request_body(content((Value = "application/yaml"), (Value = "application/json"))),
    responses(
        (status = 201, description = "The agent is new.", body = ChangedOut),
        (status = 200, description = "The agent was replaced.", body = ChangedOut),
        (status = 400, description = "It can't be used; `details.fields` lists why.", body = ErrorBody),
        (status = 404, description = "There is no agent to replace.", body = ErrorBody),
        (status = 409, description = "The name is taken, the version is another, or the folder is read-only.", body = ErrorBody),
    ))]
pub(super) async fn upload(
    State(app): State<App>,
    caller: Caller,
    Params(params): Params<UploadParams>,
    headers: HeaderMap,
    TextBody(text): TextBody,
) -> Answer<Response> {
    let may_exist = idempotency_key(&headers)?.is_some();
    let present = present(&params, &headers)?;
    let seen = match &present {
        Present::Replace(seen) => seen.clone(),
        Present::Keep => None,
    };
    // Known before it is written down that it was refused.
    if let Ok(parsed) = app.config.validate(&text, "body") {
        caller.note("agent", parsed.definition.name.to_string());
    }
    let (put, is_replayed) = match app.config.put(&text, present).await {
        // Whoever was not answered asks again.
        Err(
            PutError::Taken {
                version: Some(version),
                name,
                ..
            }
            | PutError::Moved {
                present: version,
                name,
            },
        ) if may_exist && is_same(&app, &text, &version) => {
            let agent = app.engine.agents().get(&name);
            let agent = agent.ok_or_else(|| no_config(&app, name.as_str()))?;
            let put = Put {
                agent,
                before: seen,
                warnings: Vec::new(),
            };
            (put, true)
        }
        Err(error) => return Err(refuse(&app, error)),
        Ok(put) => (put, false),
    };
    let name = put.agent.definition.name.clone();
    tracing::info!(agent_name = %name, by = caller.name(), version = %put.agent.version, "a configuration was uploaded");
    let status = match put.before {
        None => StatusCode::CREATED,
        Some(_) => StatusCode::OK,
    };
    let mut response = (status, Json(ChangedOut::from(put))).into_response();
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(format!("/configs/{name}")) {
        headers.insert(header::LOCATION, location);
    }
    if is_replayed {
        let name = HeaderName::from_static("idempotency-replayed");
        headers.insert(name, HeaderValue::from_static("true"));
    }
    Ok(response)
}

fn present(params: &UploadParams, headers: &HeaderMap) -> Answer<Present> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(if params.replace {
            Present::Replace(None)
        } else {
            Present::Keep
        });
    };
    let text = value.to_str().unwrap_or_default().trim_matches('"');
    let version = text.parse().map_err(|_| {
        let message =
            "If-Match: it is the version of a configuration, as GET /configs/{name} tells it";
        ApiError::new(Code::InvalidRequest, message)
    })?;
    Ok(Present::Replace(Some(version)))
}

fn is_same(app: &App, text: &str, version: &ConfigVersion) -> bool {
    let parsed = app.config.validate(text, "body");
    parsed.is_ok_and(|parsed| parsed.definition.content_hash() == *version)
}

/// To which version.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RollbackIn {
    /// Of `GET /configs/{name}/versions`; the one that was loaded before the present one when nothing is said.
    #[serde(default)]
    version: Option<String>,
}

impl Payload for RollbackIn {}

/// Makes an earlier version of a configuration the present one again: its text is written into the agent's file. New
/// executions begin with it; those that are under way end on the version that they began with.
#[utoipa::path(post, path = "/configs/{name}/rollback", tag = "configs", params(("name" = String, Path)),
    request_body(content = Option<RollbackIn>, content_type = "application/json"),
    responses(
        (status = 200, description = "The version is in use.", body = ChangedOut),
        (status = 400, description = "The version can't be used any more; `details.fields` lists why.", body = ErrorBody),
        (status = 404, description = "There is no such agent or version.", body = ErrorBody),
        (status = 409, description = "There is no version before, or the folder is read-only.", body = ErrorBody),
    ))]
pub(super) async fn roll_back(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    OptionalBody(body): OptionalBody<RollbackIn>,
) -> Answer<Json<ChangedOut>> {
    let parsed = agent_name(&name, Code::ConfigNotFound)?;
    let agent = app.engine.agents().get(&parsed);
    let agent = agent.ok_or_else(|| no_config(&app, &name))?;
    let version = match body.value.version.as_deref() {
        Some(given) => given.parse().map_err(|_| no_version(&name, given))?,
        None => before(&app, &agent).await?,
    };
    let record = app.engine.store().config(&parsed, &version).await?;
    let record = record.ok_or_else(|| no_version(&name, version.as_str()))?;
    caller.note("version", version.to_string());
    let put = app.config.roll_back(&parsed, &record.source).await;
    let put = put.map_err(|error| refuse(&app, error))?;
    tracing::info!(agent_name = %parsed, by = caller.name(), %version, "a configuration was rolled back");
    Ok(Json(ChangedOut::from(put)))
}

/// The version that was loaded before the present one.
async fn before(app: &App, agent: &engine::Agent) -> Answer<ConfigVersion> {
    let name = &agent.definition.name;
    let versions = app.engine.store().config_versions(name).await?;
    let older = versions
        .into_iter()
        .filter(|one| one.version != agent.version && one.loaded_at < agent.loaded_at);
    let latest = older.max_by_key(|one| one.loaded_at);
    latest.map(|one| one.version).ok_or_else(|| {
        let message = format!(
            "{name} has no version before the present one; GET /configs/{name}/versions lists them, name one in version"
        );
        ApiError::new(Code::StateConflict, message)
    })
}

/// What is told of a text that was not taken.
fn refuse(app: &App, error: PutError) -> ApiError {
    let message = error.to_string();
    match error {
        PutError::Invalid(found) => invalid(&found),
        PutError::Taken {
            name,
            path,
            version,
        } => {
            let message = format!(
                "{message}; upload with ?replace=true to replace it, or give the agent another name"
            );
            let version = version.map(|version| version.to_string());
            ApiError::new(Code::ConfigConflict, message)
                .with("name", name.to_string())
                .with("file", path)
                .with("version", version)
        }
        PutError::Moved { present, .. } => {
            let message = format!("{message}; look at it again");
            ApiError::new(Code::ConfigConflict, message).with("version", present.to_string())
        }
        PutError::Absent(name) => no_config(app, name.as_str()),
        PutError::ReadOnly(_) => ApiError::new(Code::StateConflict, message),
        PutError::Io(error) => {
            tracing::error!(%error, "a file of the folder of agents can't be written");
            let message = "the file can't be written, and nothing was changed; see the log";
            ApiError::new(Code::DependencyUnavailable, message).with("dependency", "config_folder")
        }
        PutError::Reload(error) => {
            tracing::warn!(%error, "a file of the folder of agents was written, and can't be taken into use now");
            let message = "the file is written, and can't be taken into use now; that is tried again by itself, and POST /reload tells when it is done";
            ApiError::new(Code::DependencyUnavailable, message)
        }
    }
}

fn invalid(found: &[Diagnostic]) -> ApiError {
    let errors = found.iter().filter(|found| found.is_error());
    let fields: Vec<Value> = errors
        .clone()
        .map(|found| {
            json!({
                "field": found.path, "line": found.line, "column": found.column,
                "message": found.message, "hint": found.hint,
            })
        })
        .collect();
    let first = errors.clone().next().map(|found| {
        let at = if found.path.is_empty() {
            format!("line {}", found.line)
        } else {
            found.path.clone()
        };
        let hint = if found.hint.is_empty() {
            String::new()
        } else {
            format!("; {}", found.hint)
        };
        format!("{at}: {}{hint}", found.message)
    });
    let more = match fields.len() {
        0 | 1 => String::new(),
        count => format!(" (and {} more: see details.fields)", count - 1),
    };
    let message = format!(
        "{}{more}",
        first.unwrap_or_else(|| "it can't be used".to_owned())
    );
    ApiError::new(Code::InvalidConfig, message).with("fields", fields)
}
