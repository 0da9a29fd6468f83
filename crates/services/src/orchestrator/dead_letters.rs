//! Events that could not be delivered or processed.

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::Time;
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use store::{DeadLetter, Page};
use utoipa::{IntoParams, ToSchema};

use crate::http::error::ErrorBody;
use crate::http::page::{Listed, MAX_LIMIT, cursor, next_address, page};
use crate::http::params::Params;
use crate::http::{Answer, ApiError, App, Code};

/// An event that was given up.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct DeadLetterOut {
    /// Its own id.
    id: String,
    /// The queue that it was for.
    queue: String,
    /// What the event is about.
    topic: String,
    /// The event's id.
    event_id: String,
    /// Why it was given up.
    reason: String,
    /// How often it was tried.
    attempts: u32,
    /// When it was given up.
    #[schema(value_type = String, format = DateTime)]
    at: Time,
    /// The trace that the event belongs to.
    trace_id: String,
    /// The event's facts.
    #[schema(value_type = Value)]
    data: Value,
}

impl From<DeadLetter> for DeadLetterOut {
    fn from(letter: DeadLetter) -> Self {
        Self {
            id: letter.id,
            queue: letter.queue,
            topic: letter.event.topic.to_string(),
            event_id: letter.event.id.to_string(),
            reason: letter.reason,
            attempts: letter.attempts,
            at: letter.at,
            trace_id: letter.event.trace_id.to_string(),
            data: letter.event.data,
        }
    }
}

/// Which part of the list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// How many at most: 1 to 1000, 100 when nothing is said.
    limit: Option<usize>,
    /// Where to go on: from the `Link` header of the answer before.
    cursor: Option<String>,
}

/// Lists events that were given up, newest first.
#[utoipa::path(get, path = "/dead-letters", tag = "events", params(ListParams), responses(
    (status = 200, body = Vec<DeadLetterOut>),
    (status = 400, body = ErrorBody),
))]
pub(super) async fn list(
    State(app): State<App>,
    Params(params): Params<ListParams>,
    uri: Uri,
) -> Answer<Response> {
    let page = page(params.limit, params.cursor.as_deref())?;
    let limit = page.limit;
    let letters = app.engine.store().dead_letters(page).await?;
    let last = letters.last().filter(|_| letters.len() == limit);
    let next = last.map(|letter| next_address(&uri, &cursor(letter.at, &letter.id)));
    let items: Vec<DeadLetterOut> = letters.into_iter().map(Into::into).collect();
    Ok(Listed::new(items, next, None).into_response())
}

/// Shows an event that was given up.
#[utoipa::path(get, path = "/dead-letters/{id}", tag = "events", params(("id" = String, Path)), responses(
    (status = 200, body = DeadLetterOut),
    (status = 404, body = ErrorBody),
))]
pub(super) async fn show(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Answer<Json<DeadLetterOut>> {
    let letter = find(&app, &id).await?.ok_or_else(|| no_letter(&id))?;
    Ok(Json(letter.into()))
}

/// How many events are on their way again.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ReplayedOut {
    /// How many.
    replayed: usize,
}

/// Sends all events that were given up out again, the oldest first, and forgets that they were. One that is given up
/// again meanwhile is left for the next time.
#[utoipa::path(post, path = "/dead-letters/replay", tag = "events", responses(
    (status = 202, description = "They are on their way.", body = ReplayedOut),
))]
pub(super) async fn replay_all(State(app): State<App>) -> Answer<(StatusCode, Json<ReplayedOut>)> {
    let store = app.engine.store();
    let mut letters = Vec::new();
    let mut after = None;
    loop {
        let page = Page {
            limit: MAX_LIMIT,
            after,
        };
        let more = store.dead_letters(page).await?;
        after = more.last().map(|letter| (letter.at, letter.id.clone()));
        let is_last = more.len() < MAX_LIMIT;
        letters.extend(more);
        if is_last {
            break;
        }
    }
    let replayed = letters.len();
    for letter in letters.into_iter().rev() {
        // Out first, as for one.
        app.engine.publish(letter.event).await?;
        store.remove_dead_letter(&letter.id).await?;
    }
    Ok((StatusCode::ACCEPTED, Json(ReplayedOut { replayed })))
}

/// Forgets an event that was given up.
#[utoipa::path(delete, path = "/dead-letters/{id}", tag = "events", params(("id" = String, Path)), responses(
    (status = 204, description = "It is forgotten."),
    (status = 404, body = ErrorBody),
))]
pub(super) async fn remove(State(app): State<App>, Path(id): Path<String>) -> Answer<StatusCode> {
    if app.engine.store().remove_dead_letter(&id).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(no_letter(&id))
    }
}

/// Sends an event that was given up out again, and forgets that it was. An agent that has acted on it does not act
/// again.
#[utoipa::path(post, path = "/dead-letters/{id}/replay", tag = "events", params(("id" = String, Path)), responses(
    (status = 202, description = "It is on its way.", body = DeadLetterOut),
    (status = 404, body = ErrorBody),
))]
pub(super) async fn replay(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Answer<(StatusCode, Json<DeadLetterOut>)> {
    let letter = find(&app, &id).await?.ok_or_else(|| no_letter(&id))?;
    // Out first: a crash between the two replays it twice, which is harmless; the other order would lose it.
    app.engine.publish(letter.event.clone()).await?;
    app.engine.store().remove_dead_letter(&id).await?;
    Ok((StatusCode::ACCEPTED, Json(letter.into())))
}

async fn find(app: &App, id: &str) -> Answer<Option<DeadLetter>> {
    let mut after = None;
    loop {
        let page = Page {
            limit: MAX_LIMIT,
            after,
        };
        let letters = app.engine.store().dead_letters(page).await?;
        let is_last = letters.len() < MAX_LIMIT;
        after = letters.last().map(|letter| (letter.at, letter.id.clone()));
        let found = letters.into_iter().find(|letter| letter.id == id);
        if found.is_some() || is_last {
            return Ok(found);
        }
    }
}

fn no_letter(id: &str) -> ApiError {
    let shown: String = id.chars().take(80).collect();
    let message = format!("there is no dead letter {shown:?}; GET /dead-letters lists them");
    ApiError::new(Code::NotFound, message)
}
