//! The part of the control API that all stand-ins share: holds, for tests in another process.

use std::time::Duration;

use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::barrier::{Barrier, Filter};

/// Routes `/_control/hold`, `/_control/release` and `/_control/held`.
pub(crate) fn routes(barrier: Barrier) -> Router {
    Router::new()
        .route("/_control/hold", post(hold))
        .route("/_control/release", post(release))
        .route("/_control/held", get(held))
        .with_state(barrier)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct HoldRequest {
    #[serde(default)]
    filter: Filter,
    limit: Option<usize>,
}

async fn hold(State(barrier): State<Barrier>, Json(request): Json<HoldRequest>) -> Json<Value> {
    Json(json!({ "id": barrier.place_unowned(request.filter, request.limit) }))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReleaseRequest {
    id: Option<u64>,
}

async fn release(
    State(barrier): State<Barrier>,
    request: Option<Json<ReleaseRequest>>,
) -> Json<Value> {
    let id = request.and_then(|Json(request)| request.id);
    Json(json!({ "released": barrier.release(id) }))
}

/// How many to wait for (`n`, default 1), and how long at most (`wait`, milliseconds, default 0).
#[derive(Clone, Copy, Deserialize)]
pub(crate) struct Patience {
    n: Option<usize>,
    wait: Option<u64>,
}

impl Patience {
    pub(crate) fn count(self) -> usize {
        self.n.unwrap_or(1)
    }

    /// Waits for `event`, but not longer than the caller has patience. Tells whether it came.
    pub(crate) async fn wait(self, event: impl Future<Output = ()>) -> bool {
        let most = Duration::from_millis(self.wait.unwrap_or(0));
        tokio::time::timeout(most, event).await.is_ok()
    }
}

/// Answers 200 as soon as `n` calls are held, or 408 with the number that are.
async fn held(
    State(barrier): State<Barrier>,
    Query(patience): Query<Patience>,
) -> (StatusCode, Json<Value>) {
    let reached = patience.wait(barrier.wait_held(patience.count())).await;
    let status = if reached {
        StatusCode::OK
    } else {
        StatusCode::REQUEST_TIMEOUT
    };
    (status, Json(json!({ "held": barrier.held() })))
}
