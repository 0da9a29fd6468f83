//! Everything that happens, as it happens, for dashboards: server-sent events of all processes.

use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use domain::{AgentName, ExecutionId, Status, TopicPattern, TraceId};
use engine::{FeedEvent, FeedWatch, Happened, Note};
use futures::stream;
use http::HeaderMap;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::OwnedSemaphorePermit;
use utoipa::IntoParams;

use crate::http::caller::Caller;
use crate::http::edge::{full, unbuffered};
use crate::http::error::ErrorBody;
use crate::http::params::{Params, execution_id};
use crate::http::{Answer, ApiError, App, Code};

/// What of it, and where to begin.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct FeedParams {
    /// Only what comes after this event id. The `Last-Event-ID` header goes before it.
    after: Option<String>,
    /// Only of this kind: `execution`, `step` or `event`.
    #[serde(rename = "type")]
    #[param(example = "execution")]
    kind: Option<String>,
    /// Only of this agent.
    agent_name: Option<String>,
    /// Only when an execution comes to this status.
    #[param(example = "failed")]
    status: Option<String>,
    /// Only published events with a topic that fits this pattern.
    #[param(example = "orders.#")]
    topic: Option<String>,
    /// Only in this trace.
    trace_id: Option<String>,
    /// Only of this execution.
    execution_id: Option<String>,
}

/// Looks at everything that happens, in whatever process, from now on. Events: `execution` (it came to another status),
/// `step` (one was committed: its place and kind, no words), `event` (one was published: its topic, no data), `gap`
/// (something may have been missed). Each has an `id` to go on from at any process, for five minutes; a quiet stream sends
/// one alone now and then. A key with a list of agents sees what is theirs.
#[utoipa::path(get, path = "/events/stream", tag = "events",
    params(FeedParams, ("Last-Event-ID" = Option<String>, Header)),
    responses(
        (status = 200, description = "Events until the client hangs up.", body = String, content_type = "text/event-stream"),
        (status = 400, body = ErrorBody), (status = 404, body = ErrorBody), (status = 503, body = ErrorBody),
    ))]
pub(super) async fn stream(
    State(app): State<App>,
    caller: Caller,
    Params(params): Params<FeedParams>,
    headers: HeaderMap,
) -> Answer<Response> {
    let filter = Filter::new(&params)?;
    if let Some(agent) = &params.agent_name {
        caller.check(agent)?;
    }
    let last = headers
        .get("last-event-id")
        .and_then(|value| value.to_str().ok());
    let after = last.filter(|id| !id.is_empty()).or(params.after.as_deref());
    let bad = |why| ApiError::new(Code::InvalidRequest, why);
    let place = app
        .streams
        .clone()
        .try_acquire_owned()
        .map_err(|_| full())?;
    let looking = Looking {
        watch: app.engine.look(after).map_err(bad)?,
        heartbeat: app.settings.heartbeat,
        app,
        caller,
        filter,
        is_begun: false,
        _place: place,
    };
    let events = stream::unfold(looking, async |mut looking| {
        let event = looking.next().await?;
        Some((Ok::<_, Infallible>(event), looking))
    });
    Ok(unbuffered(Sse::new(events).into_response()))
}

struct Looking {
    app: App,
    caller: Caller,
    watch: FeedWatch,
    filter: Filter,
    heartbeat: Duration,
    is_begun: bool,
    _place: OwnedSemaphorePermit,
}

impl Looking {
    /// The next event; none when the reader is to hang up, or to come back.
    async fn next(&mut self) -> Option<Event> {
        // From the first moment on, one who is cut off can come back to where it was.
        if !std::mem::replace(&mut self.is_begun, true) {
            return Some(self.place());
        }
        let beat = tokio::time::sleep(self.heartbeat);
        tokio::pin!(beat);
        loop {
            let happened = tokio::select! {
                () = self.app.shutdown.cancelled() => return None,
                () = self.caller.ended() => return None,
                // A place alone is no event to a client, which remembers it all the same: what it is not told is behind it.
                () = &mut beat => return Some(self.place()),
                happened = self.watch.next() => happened,
            };
            match happened {
                FeedEvent::Gap => return Some(self.gap()),
                FeedEvent::Note(note) if self.is_wanted(&note) => return Some(self.note(&note)),
                FeedEvent::Note(_) => {}
            }
        }
    }

    fn is_wanted(&self, note: &Note) -> bool {
        let is_covered = match (&note.agent_name, self.caller.agents()) {
            (_, None) => true,
            (Some(agent), Some(agents)) => agents.contains(agent),
            (None, Some(_)) => false,
        };
        is_covered && self.filter.takes(note)
    }

    fn note(&self, note: &Note) -> Event {
        let name = match note.what {
            Happened::Execution { .. } => "execution",
            Happened::Step { .. } => "step",
            Happened::Event { .. } => "event",
        };
        let data = serde_json::to_string(note).unwrap_or_default();
        self.place().event(name).data(data)
    }

    fn gap(&self) -> Event {
        let message = "something may have been missed: ask for what you show anew";
        let data = json!({ "message": message }).to_string();
        self.place().event("gap").data(data)
    }

    fn place(&self) -> Event {
        Event::default().id(self.watch.place())
    }
}

/// What of everything is wanted.
#[derive(Debug, Default)]
struct Filter {
    kind: Option<Kind>,
    agent: Option<AgentName>,
    status: Option<Status>,
    topic: Option<TopicPattern>,
    trace: Option<TraceId>,
    execution: Option<ExecutionId>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Execution,
    Step,
    Event,
}

impl Filter {
    fn new(params: &FeedParams) -> Answer<Self> {
        let kind = params.kind.as_deref().map(|text| match text {
            "execution" => Ok(Kind::Execution),
            "step" => Ok(Kind::Step),
            "event" => Ok(Kind::Event),
            _ => Err(bad("type", "it is execution, step or event")),
        });
        let status = parsed("status", params.status.as_deref())?;
        let topic = parsed("topic", params.topic.as_deref())?;
        Ok(Self {
            kind: kind.transpose()?,
            agent: parsed("agent_name", params.agent_name.as_deref())?,
            status,
            topic,
            trace: parsed("trace_id", params.trace_id.as_deref())?,
            execution: params
                .execution_id
                .as_deref()
                .map(execution_id)
                .transpose()?,
        })
    }

    fn takes(&self, note: &Note) -> bool {
        let (kind, is_status, is_topic) = match &note.what {
            Happened::Execution { status } => (
                Kind::Execution,
                self.status.is_none_or(|wanted| wanted == *status),
                self.topic.is_none(),
            ),
            Happened::Step { .. } => (Kind::Step, self.status.is_none(), self.topic.is_none()),
            Happened::Event { topic, .. } => (
                Kind::Event,
                self.status.is_none(),
                self.topic
                    .as_ref()
                    .is_none_or(|wanted| wanted.matches(topic)),
            ),
        };
        is_status
            && is_topic
            && self.kind.is_none_or(|wanted| wanted == kind)
            && is_or_any(&self.agent, &note.agent_name)
            && is_or_any(&self.trace, &note.trace_id)
            && is_or_any(&self.execution, &note.execution_id)
    }
}

fn is_or_any<T: PartialEq>(wanted: &Option<T>, there: &Option<T>) -> bool {
    wanted.is_none() || wanted == there
}

fn parsed<T: std::str::FromStr<Err: std::fmt::Display>>(
    name: &str,
    text: Option<&str>,
) -> Answer<Option<T>> {
    text.map(|text| text.parse::<T>().map_err(|why| bad(name, &why.to_string())))
        .transpose()
}

fn bad(name: &str, why: &str) -> ApiError {
    ApiError::new(Code::InvalidRequest, format!("the parameter {name}: {why}"))
}
