//! What happens in an execution, as it happens: server-sent events that go on where a reader stopped.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use domain::ExecutionId;
use engine::{LiveEvent, Position, Watch};
use futures::stream::{self, Stream};
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::IntoParams;

use crate::execution::ResultOut;
use crate::http::caller::Caller;
use crate::http::edge::full;
use crate::http::error::ErrorBody;
use crate::http::params::{Params, execution_id, no_execution};
use crate::http::{Answer, ApiError, App, Code};

/// How often in a row reading may fail before the stream ends; the reader then comes back by itself.
const MAX_FAILURES: u32 = 5;

/// Where to begin.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FollowParams {
    /// Only what comes after this event id. The `Last-Event-ID` header, which browsers send when they come back, goes
    /// before it.
    #[param(example = "7")]
    after: Option<String>,
}

/// Follows an execution. Events: `step` (a step is committed), `delta` (words of the answer that is being written),
/// `tool_call` (the model begins to write a call), `supersede` (the words so far are void, the call is made again),
/// `done` (it is over; the last event). Each but `done` has an `id` to go on from.
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
    let after = after
        .map(|text| {
            text.parse::<Position>()
                .map_err(|why| ApiError::new(Code::InvalidRequest, why))
        })
        .transpose()?;
    let row = app.engine.store().execution(id).await?;
    let row = row.ok_or_else(|| no_execution(id))?;
    // Nothing comes after the last step: one who has it is told the end at once.
    let has_all = after.is_some_and(|after| after.piece.is_none() && after.seq.get() >= row.steps);
    let place = app
        .streams
        .clone()
        .try_acquire_owned()
        .map_err(|_| full())?;
    let heartbeat = KeepAlive::new().interval(app.settings.heartbeat);
    let following = Following {
        watch: app.engine.watch(id, after),
        app,
        caller,
        id,
        is_over: row.status.is_terminal() && has_all,
        is_done: false,
        _place: place,
    };
    let mut response = Sse::new(following.events())
        .keep_alive(heartbeat)
        .into_response();
    // Proxies that gather answers before they pass them on would hold the words back.
    let name = HeaderName::from_static("x-accel-buffering");
    response
        .headers_mut()
        .insert(name, HeaderValue::from_static("no"));
    Ok(response)
}

struct Following {
    app: App,
    caller: Caller,
    id: ExecutionId,
    watch: Watch,
    is_over: bool,
    is_done: bool,
    _place: OwnedSemaphorePermit,
}

impl Following {
    fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, async |mut following| {
            let event = following.next().await?;
            Some((Ok(event), following))
        })
    }

    /// The next event; none when the reader is to hang up, or to come back.
    async fn next(&mut self) -> Option<Event> {
        if self.is_done {
            return None;
        }
        if self.is_over {
            self.is_done = true;
            return self.done().await;
        }
        let shutdown = self.app.shutdown.clone();
        for failure in 1..=MAX_FAILURES {
            let next = tokio::select! {
                () = shutdown.cancelled() => return None,
                // Whoever comes back with the same key is told why.
                () = self.caller.ended() => return None,
                next = self.watch.next() => next,
            };
            match next {
                Ok(Some(event)) => return Some(render(&event)),
                // The reader comes back by itself, here or where the execution goes on.
                Ok(None) if self.watch.is_cut() => return None,
                Ok(None) => {
                    self.is_done = true;
                    return self.done().await;
                }
                Err(error) => {
                    tracing::warn!(%error, failure, "the journal can't be read; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
        None
    }

    async fn done(&self) -> Option<Event> {
        let row = self.app.engine.store().execution(self.id).await.ok()??;
        let result = ResultOut::new(&row, self.app.engine.now());
        Some(named("done", None, &result))
    }
}

fn render(event: &LiveEvent) -> Event {
    match event {
        LiveEvent::Step(step) => {
            let position = Position {
                seq: step.seq,
                piece: None,
            };
            named("step", Some(position), step)
        }
        LiveEvent::Delta { position, text } => named(
            "delta",
            Some(*position),
            &json!({"seq": position.seq, "text": text}),
        ),
        LiveEvent::ToolCallBegins { position, tool } => named(
            "tool_call",
            Some(*position),
            &json!({"seq": position.seq, "tool": tool}),
        ),
        LiveEvent::Supersede { position } => {
            named("supersede", Some(*position), &json!({"seq": position.seq}))
        }
    }
}

fn named<T: Serialize>(name: &str, id: Option<Position>, data: &T) -> Event {
    // JSON has no line breaks outside its strings' escapes, so one line of data holds it.
    let event = Event::default()
        .event(name)
        .data(serde_json::to_string(data).unwrap_or_default());
    match id {
        Some(position) => event.id(position.to_string()),
        None => event,
    }
}
