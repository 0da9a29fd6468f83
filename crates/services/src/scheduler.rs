//! SchedulerService: when agents work by themselves.

mod shape;
mod workers;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::{AgentName, ScheduleName, Time};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, header};
use serde::{Deserialize, Serialize};
use store::{ScheduleFilter, ScheduleRow, Total};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use crate::http::body::{JsonBody, Payload};
use crate::http::caller::Caller;
use crate::http::door::{OPERATE, Owner, READ, Routes};
use crate::http::error::ErrorBody;
use crate::http::idempotency::idempotency_key;
use crate::http::page::{Listed, limit, next_address};
use crate::http::params::Params;
use crate::http::{Answer, ApiError, App, Code};
use shape::{RunOut, ScheduleIn, ScheduleOut};

/// The routes.
pub(crate) fn routes() -> Routes {
    let an_agents = Owner::Schedule("name");
    Routes::new()
        .with(READ.of(Owner::Handler), routes!(list))
        .with(OPERATE.of(Owner::Handler), routes!(create))
        .with(READ.of(an_agents), routes!(show))
        .with(OPERATE.of(an_agents), routes!(replace, remove))
        .with(OPERATE.of(an_agents), routes!(enable))
        .with(OPERATE.of(an_agents), routes!(trigger))
        .with(READ.of(an_agents), routes!(runs))
        .with(READ.of(an_agents), routes!(next))
        .with(READ.of(Owner::Everybody), routes!(workers::list))
}

/// Which schedules; all of them when nothing is said.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct ListParams {
    /// Of one agent.
    agent_name: Option<String>,
    /// Only those that run by themselves, or only those that are disabled or paused.
    enabled: Option<bool>,
    /// api or file.
    managed_by: Option<String>,
    /// How many at most: 1 to 1000, 100 when nothing is said.
    limit: Option<usize>,
    /// Where to go on: from the `Link` header of the answer before.
    cursor: Option<String>,
}

impl ListParams {
    fn filter(&self) -> Answer<ScheduleFilter> {
        let bad = |field: &str, message: &str| {
            ApiError::new(
                Code::InvalidRequest,
                format!("query parameter {field}: {message}"),
            )
            .with_field(field, message, "")
        };
        let is_of_file = match self.managed_by.as_deref() {
            None => None,
            Some("api") => Some(false),
            Some("file") => Some(true),
            Some(_) => return Err(bad("managed_by", "it is api or file")),
        };
        let agent: Option<Result<AgentName, _>> = self.agent_name.as_deref().map(str::parse);
        let after: Option<Result<ScheduleName, _>> = self.cursor.as_deref().map(str::parse);
        Ok(ScheduleFilter {
            agent: agent
                .transpose()
                .map_err(|error: domain::id::InvalidId| bad("agent_name", &error.to_string()))?,
            is_active: self.enabled,
            is_of_file,
            after: after
                .transpose()
                .map_err(|_| bad("cursor", "it is not one that this list gave"))?,
            limit: limit(self.limit)?,
        })
    }
}

/// Lists schedules by name.
#[utoipa::path(get, path = "/schedules", tag = "schedules", params(ListParams), responses(
    (status = 200, description = "Schedules by name; `X-Total-Count` tells how many there are.", body = Vec<ScheduleOut>),
    (status = 400, body = ErrorBody),
))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(params): Params<ListParams>,
    uri: Uri,
) -> Answer<Response> {
    let filter = params.filter()?;
    let most = filter.limit;
    let (rows, total) = find(&app, &caller, filter).await?;
    let last = rows.last().filter(|_| rows.len() == most);
    let next = last.map(|row| next_address(&uri, row.record.schedule.name.as_str()));
    let items: Vec<ScheduleOut> = rows.iter().map(ScheduleOut::from).collect();
    Ok(Listed::new(items, next, Some(Total::exactly(total))).into_response())
}

/// The schedules that match; a caller who is limited to agents is shown theirs.
async fn find(
    app: &App,
    caller: &Caller,
    filter: ScheduleFilter,
) -> Answer<(Vec<ScheduleRow>, u64)> {
    let schedules = app.engine.schedules();
    let Some(agents) = caller.agents() else {
        return Ok(schedules.list(filter).await?);
    };
    let wanted = |agent: &&AgentName| filter.agent.as_ref().is_none_or(|one| one == *agent);
    let (mut rows, mut total) = (Vec::new(), 0);
    for agent in agents.iter().filter(wanted) {
        let filter = ScheduleFilter {
            agent: Some(agent.clone()),
            ..filter.clone()
        };
        let (more, count) = schedules.list(filter).await?;
        rows.extend(more);
        total += count;
    }
    rows.sort_by(|a, b| a.record.schedule.name.cmp(&b.record.schedule.name));
    rows.truncate(filter.limit);
    Ok((rows, total))
}

/// Makes a schedule.
#[utoipa::path(post, path = "/schedules", tag = "schedules",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request harmless.")),
    request_body = ScheduleIn,
    responses(
        (status = 201, description = "It is made, and runs from now on.", body = ScheduleOut),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
    ))]
async fn create(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    JsonBody { value: given, .. }: JsonBody<ScheduleIn>,
) -> Answer<Response> {
    caller.check(&given.agent_name)?;
    let may_exist = idempotency_key(&headers)?.is_some();
    let Some(name) = given.name.clone() else {
        let (message, hint) = ("the field is missing", "name the schedule");
        return Err(
            ApiError::new(Code::InvalidRequest, format!("name: {message}; {hint}"))
                .with_field("name", message, hint),
        );
    };
    let (row, is_new) = app
        .engine
        .schedules()
        .create(&name, given.read()?, may_exist)
        .await?;
    let mut response = (StatusCode::CREATED, Json(ScheduleOut::from(&row))).into_response();
    let headers = response.headers_mut();
    if let Ok(location) = HeaderValue::try_from(format!("/schedules/{name}")) {
        headers.insert(header::LOCATION, location);
    }
    if !is_new {
        let name = HeaderName::from_static("idempotency-replayed");
        headers.insert(name, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// Shows a schedule with its latest run.
#[utoipa::path(get, path = "/schedules/{name}", tag = "schedules", params(("name" = String, Path)), responses(
    (status = 200, body = ScheduleOut), (status = 404, body = ErrorBody),
))]
async fn show(State(app): State<App>, Path(name): Path<String>) -> Answer<Json<ScheduleOut>> {
    let row = app.engine.schedules().get(&name).await?;
    Ok(Json(ScheduleOut::from(&row)))
}

/// Puts a definition in the place of a schedule's. One that an agent's file manages is edited there.
#[utoipa::path(put, path = "/schedules/{name}", tag = "schedules", params(("name" = String, Path)),
    request_body = ScheduleIn,
    responses(
        (status = 200, body = ScheduleOut),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
    ))]
async fn replace(
    State(app): State<App>,
    caller: Caller,
    Path(name): Path<String>,
    JsonBody { value: given, .. }: JsonBody<ScheduleIn>,
) -> Answer<Json<ScheduleOut>> {
    if let Some(other) = given.name.as_ref().filter(|other| **other != name) {
        let message = format!("name: {other:?} is not the schedule of the address; leave it out");
        return Err(ApiError::new(Code::InvalidRequest, message));
    }
    caller.check(&given.agent_name)?;
    let row = app.engine.schedules().replace(&name, given.read()?).await?;
    Ok(Json(ScheduleOut::from(&row)))
}

/// Forgets a schedule and the list of its runs. Their executions stay.
#[utoipa::path(delete, path = "/schedules/{name}", tag = "schedules", params(("name" = String, Path)), responses(
    (status = 204, description = "It is forgotten."),
    (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
))]
async fn remove(State(app): State<App>, Path(name): Path<String>) -> Answer<StatusCode> {
    app.engine.schedules().remove(&name).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Whether a schedule is to run by itself.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct EnabledIn {
    /// `false` stops it, `true` lets it run again.
    enabled: bool,
}

impl Payload for EnabledIn {}

/// Stops a schedule, or lets it run again. What passes meanwhile is not made up for.
#[utoipa::path(patch, path = "/schedules/{name}/enabled", tag = "schedules", params(("name" = String, Path)),
    request_body = EnabledIn,
    responses(
        (status = 200, body = ScheduleOut),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
    ))]
async fn enable(
    State(app): State<App>,
    Path(name): Path<String>,
    JsonBody { value: given, .. }: JsonBody<EnabledIn>,
) -> Answer<Json<ScheduleOut>> {
    let row = app
        .engine
        .schedules()
        .set_enabled(&name, given.enabled)
        .await?;
    Ok(Json(ScheduleOut::from(&row)))
}

/// A run that was asked for.
#[derive(Debug, Serialize, ToSchema)]
struct TriggeredOut {
    /// The schedule.
    schedule: String,
    /// Names the run in the list of runs.
    #[schema(value_type = String, format = DateTime)]
    fire_time: Time,
    /// Whose execution.
    agent_name: String,
    /// The execution; follow it at `/tasks/{execution_id}` of AgentOrchestrator.
    #[schema(value_type = String, format = Uuid)]
    execution_id: domain::ExecutionId,
    /// queued.
    status: &'static str,
}

/// Starts a run now, whether the schedule is enabled or not and whatever runs already.
#[utoipa::path(post, path = "/schedules/{name}/trigger", tag = "schedules",
    params(("name" = String, Path),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request harmless.")),
    responses(
        (status = 202, description = "The run is accepted.", body = TriggeredOut),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 409, body = ErrorBody),
    ))]
async fn trigger(
    State(app): State<App>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Answer<(StatusCode, Json<TriggeredOut>)> {
    let key = idempotency_key(&headers)?;
    let (fire_time, execution_id, agent) = app
        .engine
        .schedules()
        .trigger(&name, key.as_deref())
        .await?;
    let triggered = TriggeredOut {
        schedule: name,
        fire_time,
        agent_name: agent.to_string(),
        execution_id,
        status: "queued",
    };
    Ok((StatusCode::ACCEPTED, Json(triggered)))
}

/// Which part of a list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct RunParams {
    /// How many at most: 1 to 1000, 100 when nothing is said.
    limit: Option<usize>,
    /// Where to go on: from the `Link` header of the answer before.
    cursor: Option<i64>,
}

/// Lists the runs of a schedule, the latest fire time first: each with what became of it.
#[utoipa::path(get, path = "/schedules/{name}/runs", tag = "schedules", params(("name" = String, Path), RunParams), responses(
    (status = 200, description = "Runs; `X-Total-Count` tells how many are listed in all.", body = Vec<RunOut>),
    (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
))]
async fn runs(
    State(app): State<App>,
    Path(name): Path<String>,
    Params(params): Params<RunParams>,
    uri: Uri,
) -> Answer<Response> {
    let most = limit(params.limit)?;
    let range = 0..=crate::http::describe::parameters::LAST_MICROSECOND;
    let cursor = |at: i64| {
        let at = Some(at).filter(|at| range.contains(at));
        at.and_then(Time::from_timestamp_micros)
    };
    let before = params.cursor.map(cursor);
    if before.is_some_and(|before| before.is_none()) {
        let message =
            "query parameter cursor: it is not one that this list gave; leave it out to begin anew";
        return Err(ApiError::new(Code::InvalidRequest, message));
    }
    let (runs, total) = app
        .engine
        .schedules()
        .runs(&name, before.flatten(), most)
        .await?;
    let last = runs.last().filter(|_| runs.len() == most);
    let next = last.map(|run| next_address(&uri, &run.fire_time.timestamp_micros().to_string()));
    let items: Vec<RunOut> = runs.iter().map(RunOut::from).collect();
    Ok(Listed::new(items, next, Some(Total::exactly(total))).into_response())
}

/// How many fire times.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct NextParams {
    /// How many: 1 to 100, 5 when nothing is said.
    count: Option<usize>,
}

/// A fire time to come.
#[derive(Debug, Serialize, ToSchema)]
struct NextOut {
    /// In UTC.
    #[schema(value_type = String, format = DateTime)]
    fire_time: Time,
    /// The same as the clocks of the schedule's zone show it.
    #[schema(example = "2026-03-29T03:00:00+02:00")]
    local_time: String,
    /// When the run starts: the jitter added.
    #[schema(value_type = String, format = DateTime)]
    starts_at: Time,
}

/// Shows the next fire times. What is paused has them too, in case that it is resumed.
#[utoipa::path(get, path = "/schedules/{name}/next", tag = "schedules", params(("name" = String, Path), NextParams), responses(
    (status = 200, body = Vec<NextOut>),
    (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
))]
async fn next(
    State(app): State<App>,
    Path(name): Path<String>,
    Params(params): Params<NextParams>,
) -> Answer<Json<Vec<NextOut>>> {
    let count = params.count.unwrap_or(5);
    if !(1..=engine::MAX_NEXT).contains(&count) {
        let most = engine::MAX_NEXT;
        let message = format!("query parameter count: {count} is out of range; it is 1 to {most}");
        return Err(ApiError::new(Code::InvalidRequest, message));
    }
    let next = app.engine.schedules().next(&name, count).await?;
    let shown = next.into_iter().map(|next| NextOut {
        fire_time: next.fire_time,
        local_time: next.local_time,
        starts_at: next.starts_at,
    });
    Ok(Json(shown.collect()))
}
