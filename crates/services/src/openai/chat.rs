//! Chat completions: a task for an agent, answered in one piece or while it is written.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use engine::NewTask;
use futures::stream::{self, Stream};
use http::{HeaderMap, HeaderValue};
use store::IdempotencyKey;
use tokio::sync::OwnedSemaphorePermit;

use super::OpenAiError;
use super::answer::{ChatOut, Heading, said, usage};
use super::error::EXECUTION_ID;
use super::models::find;
use super::request::ChatIn;
use super::telling::{Telling, Told, row, wait};
use super::words::Words;
use crate::http::body::JsonBody;
use crate::http::caller::Caller;
use crate::http::edge::{full, unbuffered};
use crate::http::idempotency::idempotency_key;
use crate::http::trace::Trace;
use crate::http::{Answer, App};

/// Gives an agent a task and answers what it says. The execution goes on when the client hangs up, and is named in the
/// header `X-Execution-Id`. With `stream`, words come as they are written: what an agent says before it calls tools, too.
#[utoipa::path(post, path = "/v1/chat/completions", tag = "openai",
    params(
        ("X-Conversation-Id" = Option<String>, Header, description = "The conversation, kept here: only the last message is taken."),
        ("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request harmless."),
    ),
    request_body = ChatIn,
    responses(
        (status = 200, description = "The answer; with `stream`, frames of it.", content(
            (ChatOut = "application/json"), (String = "text/event-stream"))),
        (status = 400, body = OpenAiError), (status = 404, body = OpenAiError), (status = 409, body = OpenAiError),
    ))]
pub(super) async fn complete(
    State(app): State<App>,
    caller: Caller,
    trace: Trace,
    headers: HeaderMap,
    body: JsonBody<ChatIn>,
) -> Answer<Response> {
    caller.check(&body.value.model)?;
    let agent = find(&app, &body.value.model)?;
    caller.note("agent", agent.definition.name.to_string());
    let (streams, wants_usage) = (body.value.streams(), body.value.wants_usage());
    let asked = body.value.read(&agent.definition, &headers)?;
    let key = idempotency_key(&headers)?;
    // Before the task is taken in: who is refused has begun nothing. The edge holds a place for who waits.
    let place = if streams {
        Some(
            app.streams
                .clone()
                .try_acquire_owned()
                .map_err(|_| full())?,
        )
    } else {
        None
    };
    let task = NewTask {
        history: asked.history,
        conversation: asked.conversation,
        metadata: asked.metadata,
        idempotency: key.map(|key| IdempotencyKey {
            key,
            body_hash: body.hash,
        }),
        upstream: Some(trace.upstream()),
        ..NewTask::new(agent.definition.name.to_string(), asked.input, trace.id)
    };
    let id = app.engine.submit(task).await?.id;
    let mut response = if let Some(place) = place {
        let row = row(&app, id).await?;
        let words = Words::new(agent.definition.output_schema.is_some());
        let writing = Writing {
            heading: Heading::new(&row, wants_usage),
            heartbeat: app.settings.heartbeat,
            telling: Telling::new(app, caller, &row, words),
            stage: Stage::Beginning,
            _place: place,
        };
        writing.response()
    } else {
        wait(&app, id).await?;
        let row = row(&app, id).await?;
        Json(ChatOut::new(&row, &said(&row)?)).into_response()
    };
    if let Ok(id) = HeaderValue::try_from(id.to_string()) {
        response.headers_mut().insert(EXECUTION_ID, id);
    }
    Ok(response)
}

/// An answer that is being written.
struct Writing {
    telling: Telling,
    heading: Heading,
    heartbeat: Duration,
    stage: Stage,
    _place: OwnedSemaphorePermit,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Beginning,
    Writing,
    /// The last words were sent: why they end comes next.
    Finishing(&'static str),
    Counting,
    Closing,
    Over,
}

impl Writing {
    fn response(self) -> Response {
        let heartbeat = KeepAlive::new().interval(self.heartbeat);
        let frames = Sse::new(self.frames()).keep_alive(heartbeat);
        unbuffered(frames.into_response())
    }

    fn frames(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, async |mut writing| {
            let frame = writing.next().await?;
            Some((Ok(Event::default().data(frame)), writing))
        })
    }

    async fn next(&mut self) -> Option<String> {
        match self.stage {
            Stage::Beginning => {
                self.stage = Stage::Writing;
                Some(self.heading.begin())
            }
            Stage::Writing => match self.more().await {
                Ok(words) => Some(words),
                Err(error) => {
                    self.stage = Stage::Over;
                    serde_json::to_string(&OpenAiError::new(&error)).ok()
                }
            },
            Stage::Finishing(reason) => Some(self.finish(reason)),
            Stage::Counting => {
                self.stage = Stage::Closing;
                match row(&self.telling.app, self.telling.id).await {
                    Ok(row) => Some(self.heading.usage(usage(&row))),
                    Err(error) => serde_json::to_string(&OpenAiError::new(&error)).ok(),
                }
            }
            Stage::Closing => {
                self.stage = Stage::Over;
                Some("[DONE]".to_owned())
            }
            Stage::Over => None,
        }
    }

    /// The next words, or the frame that ends them.
    async fn more(&mut self) -> Answer<String> {
        match self.telling.next().await? {
            Told::Words(words) => Ok(self.heading.words(&words)),
            Told::End(None, said, _) => Ok(self.finish(said.finish_reason)),
            Told::End(Some(words), said, _) => {
                self.stage = Stage::Finishing(said.finish_reason);
                Ok(self.heading.words(&words))
            }
        }
    }

    /// Ends the words.
    fn finish(&mut self, reason: &str) -> String {
        self.stage = if self.heading.with_usage {
            Stage::Counting
        } else {
            Stage::Closing
        };
        self.heading.finish(reason)
    }
}
