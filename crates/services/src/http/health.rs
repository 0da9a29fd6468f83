//! Whether the process is alive, and whether it can work.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;
use utoipa_axum::routes;

use super::App;
use super::door::{OPEN, Owner, READ, Routes};
use crate::slack::Slack;

/// How long a dependency may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

pub(crate) fn routes() -> Routes {
    Routes::new()
        .with(OPEN, routes!(live))
        .with(OPEN, routes!(ready))
        .with(READ.of(Owner::Nobody), routes!(health))
}

/// The process is alive.
#[derive(Debug, Serialize, ToSchema)]
struct Alive {
    /// `alive`.
    status: &'static str,
}

/// Whether the process can work.
#[derive(Debug, Serialize, ToSchema)]
struct Ready {
    /// `ready` or `not_ready`.
    status: &'static str,
    /// What it needs.
    dependencies: Dependencies,
    /// What fails, in words; empty when nothing does.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    failing: Vec<String>,
    /// What is missed and not needed, in words; empty when nothing is.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    degraded: Vec<String>,
}

/// What the process needs: each is `ok`, `degraded`, `unavailable`, or `not_used` by this part.
#[derive(Debug, Serialize, ToSchema)]
struct Dependencies {
    /// Where journals are.
    database: &'static str,
    /// What makes reading fast; losing it is never fatal.
    cache: &'static str,
    /// Where hints come from.
    message_queue: &'static str,
    /// Slack, where it is served: `ok`, `degraded`, or `not_configured`; losing it is never fatal.
    #[serde(skip_serializing_if = "Option::is_none")]
    slack: Option<&'static str>,
}

/// Everything about the health of the process.
#[derive(Debug, Serialize, ToSchema)]
struct Health {
    /// `healthy` or `unhealthy`.
    status: &'static str,
    /// That it is alive.
    live: Alive,
    /// Whether it can work.
    ready: Ready,
    /// The version of the program.
    version: String,
    /// How long it runs, in seconds.
    uptime_seconds: u64,
    /// How many executions it performs now.
    active_executions: usize,
    /// How many it can.
    capacity: usize,
    /// How many agents it knows.
    agents: usize,
}

/// Tells that the process is alive, whatever else is the matter.
#[utoipa::path(get, path = "/health/live", tag = "health", responses((status = 200, body = Alive)))]
async fn live() -> Json<Alive> {
    Json(Alive { status: "alive" })
}

/// Tells whether the process can work, and what fails if not.
#[utoipa::path(get, path = "/health/ready", tag = "health", responses(
    (status = 200, description = "It can.", body = Ready),
    (status = 503, description = "It can't; the failing dependency is named.", body = Ready),
))]
async fn ready(State(app): State<App>) -> Response {
    let ready = check(&app).await;
    (status_of(&ready), Json(ready)).into_response()
}

/// Tells everything about the health of the process.
#[utoipa::path(get, path = "/health", tag = "health", responses(
    (status = 200, description = "It can work.", body = Health),
    (status = 503, description = "It can't.", body = Health),
))]
async fn health(State(app): State<App>) -> Response {
    let ready = check(&app).await;
    let status = status_of(&ready);
    let (active_executions, capacity) = app.engine.load();
    let health = Health {
        status: if status.is_success() {
            "healthy"
        } else {
            "unhealthy"
        },
        live: Alive { status: "alive" },
        ready,
        version: app.settings.version.clone(),
        uptime_seconds: app.started.elapsed().as_secs(),
        active_executions,
        capacity,
        agents: app.engine.agents().all().len(),
    };
    (status, Json(health)).into_response()
}

fn status_of(ready: &Ready) -> StatusCode {
    if ready.status == "ready" {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    }
}

async fn check(app: &App) -> Ready {
    let store = tokio::time::timeout(PATIENCE, app.engine.store().check());
    let bus = async {
        let check = tokio::time::timeout(PATIENCE, app.engine.bus().check());
        match app.settings.uses_message_queue {
            true => Some(check.await),
            false => None,
        }
    };
    let (store, bus) = tokio::join!(store, bus);
    let mut failing = Vec::new();
    let database = verdict(
        "database",
        store.map_err(|_| None).and_then(|r| r.map_err(Some)),
        &mut failing,
    );
    let message_queue = bus.map_or("not_used", |bus| {
        let bus = bus.map_err(|_| None).and_then(|r| r.map_err(Some));
        verdict("message_queue", bus, &mut failing)
    });
    // Whoever lost it has logged it; to the store's answers it changes nothing.
    let missed = app.cache.as_ref().and_then(|cache| cache.health().err());
    let slack = app.slack.as_ref().map(Slack::health);
    let slacks = slack.as_ref().and_then(|(_, trouble)| trouble.as_ref());
    // Said while the listeners still answer, so that whoever shares out requests goes elsewhere in time.
    if app.engine.is_stopping() || app.shutdown.is_cancelled() {
        failing.push("the process is shutting down".to_owned());
    }
    Ready {
        status: if failing.is_empty() {
            "ready"
        } else {
            "not_ready"
        },
        dependencies: Dependencies {
            database,
            cache: if missed.is_none() { "ok" } else { "degraded" },
            message_queue,
            slack: slack.as_ref().map(|(word, _)| *word),
        },
        failing,
        degraded: missed
            .map(|why| format!("cache: {why}"))
            .into_iter()
            .chain(slacks.map(|why| format!("slack: {why}")))
            .collect(),
    }
}

fn verdict<E: std::error::Error>(
    name: &str,
    result: Result<(), Option<E>>,
    failing: &mut Vec<String>,
) -> &'static str {
    match result {
        Ok(()) => "ok",
        Err(cause) => {
            // The cause may name hosts and files: it goes to the log, not to the caller.
            let cause =
                cause.map_or_else(|| "no answer in time".to_owned(), |error| error.to_string());
            tracing::warn!(dependency = name, cause, "a dependency fails");
            failing.push(format!("{name} does not answer; see the log"));
            "unavailable"
        }
    }
}
