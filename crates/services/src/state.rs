//! StateManager: executions and their journals, for reading; what agents and conversations hold; the cache.

mod conversations;
mod maintenance;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::{Seq, Step};
use http::Uri;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::routes;

use crate::execution::{self, ExecutionOut, ListParams};
use crate::http::caller::Caller;
use crate::http::door::{ADMIN, OPERATE, Owner, READ, Routes};
use crate::http::error::ErrorBody;
use crate::http::page::{Listed, limit, next_address};
use crate::http::params::{Params, execution_id, no_execution};
use crate::http::{Answer, ApiError, App, Code};

/// The longest text of a step that is shown without asking for it, in bytes.
const SHOWN: usize = 64 << 10;

/// The fields of a step that hold what was said, rather than what happened.
const BODIES: [&str; 11] = [
    "reply",
    "structured",
    "violations",
    "content",
    "message",
    "text",
    "arguments",
    "known",
    "result",
    "output",
    "provider_data",
];

/// The routes.
pub(crate) fn routes() -> Routes {
    let an_executions = Owner::Execution("id");
    let an_agents = Owner::Agent("agent");
    Routes::new()
        .with(READ.of(Owner::Handler), routes!(list))
        .with(READ.of(an_executions), routes!(show))
        .with(READ.of(an_executions), routes!(steps))
        .with(READ.of(an_executions), routes!(step))
        .with(OPERATE.of(Owner::Everybody), routes!(clear_cache))
        .with(ADMIN.of(Owner::Everybody), routes!(maintenance::clean_up))
        .with(READ.of(an_agents), routes!(conversations::show))
        .with(
            OPERATE.of(an_agents),
            routes!(
                conversations::replace,
                conversations::change,
                conversations::forget
            ),
        )
        .with(OPERATE.of(an_agents), routes!(conversations::append))
}

/// What was forgotten.
#[derive(Debug, Serialize, ToSchema)]
struct Cleared {
    /// How many copies.
    cleared: u64,
}

/// Forgets all copies of what was read, in the cache that the processes share. They are never out of date; this is for
/// whoever changed the database by hand.
#[utoipa::path(post, path = "/cache/clear", tag = "cache", responses(
    (status = 200, description = "They are forgotten.", body = Cleared),
    (status = 503, description = "The cache can't be reached, and may still have them.", body = ErrorBody),
))]
async fn clear_cache(State(app): State<App>) -> Answer<Json<Cleared>> {
    let Some(cache) = &app.cache else {
        return Ok(Json(Cleared { cleared: 0 }));
    };
    let cleared = cache.clear().await.map_err(|why| {
        let message = format!("the cache can't be reached: {why}");
        ApiError::new(Code::DependencyUnavailable, message)
    })?;
    tracing::info!(cleared, "the cache was cleared");
    Ok(Json(Cleared { cleared }))
}

/// Lists executions, newest first.
#[utoipa::path(get, path = "/executions", tag = "executions", params(ListParams), responses(
    (status = 200, description = "Executions, newest first; `X-Total-Count` tells how many there are.", body = Vec<ExecutionOut>),
    (status = 400, body = ErrorBody),
))]
async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(params): Params<ListParams>,
    uri: Uri,
) -> Answer<Response> {
    execution::list(&app, &caller, &params, &uri).await
}

/// Shows an execution.
#[utoipa::path(get, path = "/executions/{id}", tag = "executions", params(("id" = String, Path)), responses(
    (status = 200, body = ExecutionOut),
    (status = 404, body = ErrorBody),
))]
async fn show(State(app): State<App>, Path(id): Path<String>) -> Answer<Json<ExecutionOut>> {
    let id = execution_id(&id)?;
    let row = app.engine.store().execution(id).await?;
    let row = row.ok_or_else(|| no_execution(id))?;
    Ok(Json(ExecutionOut::new(&row, app.engine.now())))
}

/// Which steps, and how much of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct StepParams {
    /// Only those after this one.
    after: Option<u32>,
    /// How many at most: 1 to 1000, 100 when nothing is said.
    limit: Option<usize>,
    /// Where to go on: from the `Link` header of the answer before.
    cursor: Option<u32>,
    /// `false` for structure, times and tokens alone; `full` for texts over 64 kB too.
    bodies: Option<String>,
}

/// How much of a step is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bodies {
    None,
    Cut,
    Full,
}

impl Bodies {
    fn read(text: Option<&str>) -> Answer<Self> {
        match text {
            None | Some("true" | "cut") => Ok(Self::Cut),
            Some("false" | "none") => Ok(Self::None),
            Some("full") => Ok(Self::Full),
            Some(_) => {
                let message = "query parameter bodies: it is true, false or full";
                Err(ApiError::new(Code::InvalidRequest, message))
            }
        }
    }
}

/// Shows the journal of an execution: what happened, step by step.
#[utoipa::path(get, path = "/executions/{id}/steps", tag = "executions", params(("id" = String, Path), StepParams), responses(
    (status = 200, description = "Steps, oldest first: `seq`, `at`, `kind` and what belongs to the kind.", body = Vec<Object>),
    (status = 400, body = ErrorBody), (status = 404, body = ErrorBody),
))]
async fn steps(
    State(app): State<App>,
    Path(id): Path<String>,
    Params(params): Params<StepParams>,
    uri: Uri,
) -> Answer<Response> {
    let id = execution_id(&id)?;
    let bodies = Bodies::read(params.bodies.as_deref())?;
    let limit = limit(params.limit)?;
    let store = app.engine.store();
    let row = store.execution(id).await?.ok_or_else(|| no_execution(id))?;
    let after = params.cursor.or(params.after).map(Seq::new);
    let steps = store.steps(id, after, limit).await?;
    let last = steps.last().filter(|_| steps.len() == limit);
    let next = last.map(|step| next_address(&uri, &step.seq.to_string()));
    let items: Vec<Value> = steps.iter().map(|step| shown(step, bodies)).collect();
    Ok(Listed::new(items, next, Some(store::Total::exactly(row.steps.into()))).into_response())
}

/// Shows one step whole.
#[utoipa::path(get, path = "/executions/{id}/steps/{seq}", tag = "executions",
    params(("id" = String, Path), ("seq" = u32, Path)),
    responses((status = 200, body = Object), (status = 404, body = ErrorBody)))]
async fn step(
    State(app): State<App>,
    Path((id, seq)): Path<(String, String)>,
) -> Answer<Json<Value>> {
    let id = execution_id(&id)?;
    let store = app.engine.store();
    store.execution(id).await?.ok_or_else(|| no_execution(id))?;
    let wanted: Option<u32> = seq.parse().ok().filter(|seq| *seq > 0);
    let step = match wanted {
        Some(wanted) => store.steps(id, Some(Seq::new(wanted - 1)), 1).await?.pop(),
        None => None,
    };
    let step = step.filter(|step| Some(step.seq.get()) == wanted);
    step.map(|step| Json(shown(&step, Bodies::Full)))
        .ok_or_else(|| {
            let shown: String = seq.chars().take(20).collect();
            ApiError::new(
                Code::NotFound,
                format!("execution {id} has no step {shown:?}"),
            )
        })
}

fn shown(step: &Step, bodies: Bodies) -> Value {
    let mut value = serde_json::to_value(step).unwrap_or_default();
    match bodies {
        Bodies::Full => {}
        Bodies::None => strip(&mut value),
        Bodies::Cut => {
            if cut(&mut value)
                && let Value::Object(fields) = &mut value
            {
                fields.insert("truncated".to_owned(), Value::Bool(true));
            }
        }
    }
    value
}

fn strip(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|name, _| !BODIES.contains(&name.as_str()));
            fields.values_mut().for_each(strip);
        }
        Value::Array(items) => items.iter_mut().for_each(strip),
        _ => {}
    }
}

/// Cuts long texts; tells whether there were any.
fn cut(value: &mut Value) -> bool {
    match value {
        Value::String(text) if text.len() > SHOWN => {
            let end = text.floor_char_boundary(SHOWN);
            text.truncate(end);
            text.push('…');
            true
        }
        Value::Object(fields) => fields
            .values_mut()
            .fold(false, |any, field| cut(field) | any),
        Value::Array(items) => items.iter_mut().fold(false, |any, item| cut(item) | any),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let mut value = json!({"a": {"b": ["é".repeat(SHOWN)]}, "c": "short"});
        assert!(cut(&mut value));
        let text = value["a"]["b"][0].as_str().unwrap();
        assert!(text.len() <= SHOWN + 3 && text.ends_with("é…"));
        assert!(!cut(&mut json!({"c": "short"})));
    }

    #[test]
    fn without_bodies_the_structure_stays() {
        let mut value = json!({"seq": 1, "kind": "tool_result", "outcome": {"outcome": "succeeded", "content": "secret"}});
        strip(&mut value);
        assert_eq!(
            value,
            json!({"seq": 1, "kind": "tool_result", "outcome": {"outcome": "succeeded"}})
        );
    }
}
