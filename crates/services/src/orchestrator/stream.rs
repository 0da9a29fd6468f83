//! What happens in an execution, as it happens: server-sent events that go on where a reader stopped.

use std::convert::Infallible;

use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures::stream;
use http::HeaderMap;
use serde::Deserialize;
use utoipa::IntoParams;

use super::following::{Following, Frame};
use crate::http::caller::Caller;
use crate::http::edge::unbuffered;
use crate::http::error::ErrorBody;
use crate::http::params::{Params, execution_id};
use crate::http::{Answer, App};

/// Where to begin.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FollowParams {
    /// Only what comes after this event id. The `Last-Event-ID` header, which browsers send when they come back, goes
    /// before it.
    #[param(example = "7", pattern = r"^[0-9]{1,9}(\.[0-9]{1,9}\.[0-9]{1,9})?$")]
    pub(super) after: Option<String>,
}

/// Follows an execution, in whatever process it is. Events: `step` (a step is committed), `delta` (words of the answer
/// that is being written), `tool_call` (the model begins to write a call), `supersede` (the words so far are void), `gap`
/// (the id to go on from is unknown: all is told from the beginning), `done` (it is over; the last event). Each but `gap`
/// and `done` has an `id` to go on from, at any process.
#[utoipa::path(get, path = "/tasks/{id}/events", tag = "tasks",
    params(("id" = String, Path), FollowParams, ("Last-Event-ID" = Option<String>, Header)),
    responses(
        (status = 200, description = "Events until the execution is over.", body = String, content_type = "text/event-stream"),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody),
    ))]
pub(super) async fn follow(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    Params(params): Params<FollowParams>,
    headers: HeaderMap,
) -> Answer<Response> {
    let id = execution_id(&id)?;
    let last = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok());
    let after = last.filter(|id| !id.is_empty()).or(params.after.as_deref());
    let heartbeat = KeepAlive::new().interval(app.settings.heartbeat);
    let following = Following::begin(app, caller, id, after).await?;
    let events = stream::unfold(following, async |mut following| {
        // Whoever is cut off comes back by itself.
        let frame = following.next().await.ok()?;
        Some((Ok::<_, Infallible>(event(frame)), following))
    });
    let events = Sse::new(events).keep_alive(heartbeat);
    Ok(unbuffered(events.into_response()))
}

fn event(frame: Frame) -> Event {
    // JSON has no line breaks outside its strings' escapes, so one line of data holds it.
    let event = Event::default().event(frame.event).data(frame.data);
    match frame.id {
        Some(id) => event.id(id),
        None => event,
    }
}
