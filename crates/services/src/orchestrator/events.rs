//! Events from outside.

use axum::Json;
use axum::extract::State;
use domain::event::topics;
use domain::{Event, EventId, Topic};
use http::{HeaderMap, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;
use uuid::Uuid;

use crate::http::body::{JsonBody, Payload};
use crate::http::caller::Caller;
use crate::http::error::ErrorBody;
use crate::http::idempotency::idempotency_key;
use crate::http::trace::Trace;
use crate::http::{Answer, ApiError, App, Code};

/// Something that happened.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct EventIn {
    /// What it is about: words joined by dots.
    #[schema(example = "orders.created")]
    topic: String,
    /// The facts.
    #[serde(default)]
    #[schema(value_type = Value)]
    data: Value,
    /// Unique to the happening: each agent acts on it once, however often it is sent. The `Idempotency-Key` when it is
    /// left out, else a new one.
    #[serde(default)]
    event_id: Option<String>,
}

impl Payload for EventIn {}

/// A taken event.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventOut {
    /// Its id.
    event_id: String,
    /// What it is about.
    topic: String,
    /// The trace that it belongs to.
    trace_id: String,
}

/// Publishes an event. When this answers, it is durable and goes out to every agent that subscribes to its topic.
#[utoipa::path(post, path = "/events", tag = "events",
    params(("Idempotency-Key" = Option<String>, Header, description = "The event's id, when the body has none.")),
    request_body = EventIn,
    responses(
        (status = 202, body = EventOut),
        (status = 400, body = ErrorBody), (status = 403, description = "The topic is reserved.", body = ErrorBody),
        (status = 503, body = ErrorBody),
    ))]
pub(super) async fn publish(
    State(app): State<App>,
    caller: Caller,
    trace: Trace,
    headers: HeaderMap,
    body: JsonBody<EventIn>,
) -> Answer<(StatusCode, Json<EventOut>)> {
    let given = body.value;
    let topic: Topic = given.topic.parse().map_err(|why| invalid("topic", &why))?;
    if topics::is_own(&topic) {
        let message = format!("topic: {topic} is AgentRunner's own; publish to a topic of yours");
        return Err(ApiError::new(Code::Forbidden, message));
    }
    let key = idempotency_key(&headers)?;
    let id = given.event_id.or(key);
    let id = id.unwrap_or_else(|| Uuid::now_v7().to_string());
    let id: EventId = id.parse().map_err(|why| invalid("event_id", &why))?;
    let out = EventOut {
        event_id: id.to_string(),
        topic: topic.to_string(),
        trace_id: trace.id.to_string(),
    };
    caller.note("topic", out.topic.as_str());
    let event = Event {
        id,
        topic,
        source: "/events".to_owned(),
        time: app.engine.now(),
        trace_id: trace.id,
        hops: 0,
        data: given.data,
    };
    check_subscribers(&app, &caller, &event)?;
    app.engine.publish(event).await?;
    Ok((StatusCode::ACCEPTED, Json(out)))
}

/// An event gives work to whoever subscribes to it: a caller who is limited to agents wakes no others.
fn check_subscribers(app: &App, caller: &Caller, event: &Event) -> Answer<()> {
    let subscribers = app.engine.agents().started_by(event);
    if subscribers
        .iter()
        .all(|agent| caller.covers(&agent.definition.name))
    {
        return Ok(());
    }
    let message = format!(
        "topic: agents act on {} to which the key is not limited; publish to another topic, or use another key",
        event.topic
    );
    Err(ApiError::new(Code::Forbidden, message))
}

fn invalid(field: &str, why: &dyn std::fmt::Display) -> ApiError {
    let why = why.to_string();
    ApiError::new(Code::InvalidRequest, format!("{field}: {why}")).with_field(field, &why, "")
}
