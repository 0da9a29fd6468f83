//! Who would perform what a schedule starts.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use domain::Pool;
use domain::fleet::pools;
use http::Uri;
use serde::Deserialize;
use utoipa::IntoParams;

use crate::http::error::ErrorBody;
use crate::http::page::Listed;
use crate::http::params::Params;
use crate::http::{Answer, ApiError, App, Code};
use crate::worker::WorkerOut;

/// Which workers; all that are known when nothing is said.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Of one pool: autonomous-agent-pool, collaborative-agent-pool, continuous-agent-runner or up.
    pool: Option<String>,
    /// alive or lost.
    status: Option<String>,
    /// How many at most: 1 to 1000, 100 when nothing is said.
    #[param(minimum = 1, maximum = 1000)]
    limit: Option<usize>,
    /// Where to go on: from the `Link` header of the answer before.
    cursor: Option<String>,
}

impl ListParams {
    fn pool(&self) -> Answer<Option<Pool>> {
        let pool = self.pool.as_deref().map(str::parse);
        pool.transpose().map_err(|_| {
            let known = Pool::PARTS.map(Pool::as_str).join(", ");
            let message = format!("query parameter pool: it is {known} or up");
            ApiError::new(Code::InvalidRequest, message)
        })
    }

    fn is_alive(&self) -> Answer<Option<bool>> {
        match self.status.as_deref() {
            None => Ok(None),
            Some("alive") => Ok(Some(true)),
            Some("lost") => Ok(Some(false)),
            Some(_) => {
                let message = "query parameter status: it is alive or lost";
                Err(ApiError::new(Code::InvalidRequest, message))
            }
        }
    }
}

/// Lists the workers of all processes, by id: one that was lost is shown for a while.
#[utoipa::path(get, path = "/workers", tag = "workers", params(ListParams), responses(
    (status = 200, description = "Workers by id.", body = Vec<WorkerOut>),
    (status = 400, body = ErrorBody),
))]
pub(super) async fn list(
    State(app): State<App>,
    Params(params): Params<ListParams>,
    uri: Uri,
) -> Answer<Response> {
    let (pool, is_alive) = (params.pool()?, params.is_alive()?);
    let workers = app.engine.workers().await?;
    let interval = app.engine.registration().interval;
    let pools = pools(workers, &[], app.engine.now(), interval).into_iter();
    let wanted = pools.filter(|stats| pool.is_none_or(|pool| pool == stats.pool));
    let mut found: Vec<WorkerOut> = wanted
        .flat_map(|stats| stats.workers)
        .filter(|worker| is_alive.is_none_or(|wanted| wanted == worker.is_alive))
        .map(WorkerOut::from)
        .collect();
    found.sort_by(|a, b| a.id.cmp(&b.id));
    let cursor = params.cursor.as_deref();
    let listed = Listed::of_all(found, |worker| &worker.id, params.limit, cursor, &uri)?;
    Ok(listed.into_response())
}
