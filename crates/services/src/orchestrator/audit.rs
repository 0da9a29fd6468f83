//! The audit log: what is in its table.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use domain::{Time, TraceId};
use http::Uri;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use store::{AuditFilter, AuditRow};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::execution::invalid;
use crate::http::describe::parameters::OUTCOMES;
use crate::http::error::ErrorBody;
use crate::http::page::{Listed, cursor, next_address, page};
use crate::http::params::Params;
use crate::http::{Answer, App};

/// Who did something.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct WhoOut {
    /// key, bootstrap, anybody, unknown, agent or file.
    #[schema(example = "key")]
    kind: String,
    /// The key's id; never the key.
    #[serde(default)]
    id: Option<String>,
    /// Its name.
    #[schema(example = "ops")]
    name: String,
}

/// Something that was done, or refused.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
struct ActOut {
    /// The chain of the process that wrote it.
    #[serde(default)]
    #[schema(value_type = String, format = Uuid)]
    chain: Uuid,
    /// Its place in the chain.
    seq: u64,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    at: Time,
    /// By whom.
    who: WhoOut,
    /// From which address.
    #[serde(default)]
    from: Option<String>,
    /// Method and route of the request, or what was done without one.
    #[schema(example = "POST /tasks/{id}/input")]
    action: String,
    /// The address of the thing.
    target: String,
    /// done, refused, denied or failed.
    #[schema(example = "done")]
    outcome: String,
    /// The status of the answer, of a request.
    #[serde(default)]
    status: Option<u16>,
    /// The code of the error, if there was one.
    #[serde(default)]
    code: Option<String>,
    /// The request's trace.
    trace_id: String,
    /// What the address does not say.
    #[serde(default)]
    #[schema(value_type = Object)]
    details: Map<String, Value>,
}

impl ActOut {
    fn new(row: AuditRow) -> Self {
        match serde_json::from_str::<Self>(&row.line) {
            Ok(act) => Self {
                chain: row.chain,
                ..act
            },
            // Somebody changed it. What is left is shown; `audit verify` tells what is wrong.
            Err(_) => Self {
                chain: row.chain,
                seq: row.seq,
                at: row.at,
                who: WhoOut {
                    kind: "unknown".to_owned(),
                    id: None,
                    name: row.who,
                },
                from: None,
                action: row.action,
                target: row.target,
                outcome: row.outcome,
                status: None,
                code: None,
                trace_id: row.trace_id,
                details: Map::from_iter([("is_damaged".to_owned(), Value::Bool(true))]),
            },
        }
    }
}

/// Which acts; all of them when nothing is said.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct AuditParams {
    /// By whom: the name of a key, of an agent, `bootstrap`, `api` (nobody has to show a key), or `unknown`.
    who: Option<String>,
    /// A part of what was done, such as `DELETE` or `/keys`.
    action: Option<String>,
    /// done, refused, denied or failed.
    outcome: Option<String>,
    /// Of this trace.
    trace_id: Option<String>,
    /// At this time (RFC 3339) or later.
    #[param(value_type = Option<String>, format = DateTime)]
    since: Option<Time>,
    /// Before this time (RFC 3339).
    #[param(value_type = Option<String>, format = DateTime)]
    until: Option<Time>,
    /// How many at most: 1 to 1000, 100 when nothing is said.
    limit: Option<usize>,
    /// Where to go on: from the `Link` header of the answer before.
    cursor: Option<String>,
}

/// Lists what was done and refused, newest first: the table of the audit log, of all processes.
#[utoipa::path(get, path = "/audit", tag = "audit", params(AuditParams), responses(
    (status = 200, body = Vec<ActOut>),
    (status = 400, body = ErrorBody),
))]
pub(super) async fn list(
    State(app): State<App>,
    Params(params): Params<AuditParams>,
    uri: Uri,
) -> Answer<Response> {
    let page = page(params.limit, params.cursor.as_deref())?;
    let limit = page.limit;
    if let Some(outcome) = &params.outcome
        && !OUTCOMES.contains(&outcome.as_str())
    {
        let words = OUTCOMES.join(", ");
        let why = format!("{outcome:?} is not how an act ends; it is one of {words}");
        return Err(invalid("outcome", &why));
    }
    let trace = params.trace_id.as_deref().map(str::parse::<TraceId>);
    let trace = trace
        .transpose()
        .map_err(|why| invalid("trace_id", &why.to_string()))?;
    let filter = AuditFilter {
        who: params.who,
        action: params.action,
        outcome: params.outcome,
        trace_id: trace.map(|trace| trace.to_string()),
        since: params.since,
        until: params.until,
        page,
    };
    let rows = app.engine.store().audit_rows(filter).await?;
    let last = rows.last().filter(|_| rows.len() == limit);
    let next = last.map(|row| {
        let (at, id) = row.place();
        next_address(&uri, &cursor(at, &id))
    });
    let items: Vec<ActOut> = rows.into_iter().map(ActOut::new).collect();
    Ok(Listed::new(items, next, None).into_response())
}
