//! Chat completions: a task for an agent, answered in one piece or while it is written.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use domain::ExecutionId;
use engine::{NewTask, Watch};
use futures::stream::{self, Stream};
use http::{HeaderMap, HeaderName, HeaderValue};
use store::{ExecutionRow, IdempotencyKey};
use tokio::sync::OwnedSemaphorePermit;

use super::OpenAiError;
use super::answer::{ChatOut, Heading, said, usage};
use super::error::EXECUTION_ID;
use super::models::find;
use super::request::ChatIn;
use super::words::{Diverged, Words};
use crate::http::body::JsonBody;
use crate::http::caller::Caller;
use crate::http::edge::{LONGEST_WAIT, Trace, full};
use crate::http::idempotency::idempotency_key;
use crate::http::params::no_execution;
use crate::http::{Answer, ApiError, App, Code};

/// How often in a row reading may fail before an answer is given up.
const MAX_FAILURES: u32 = 5;

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
        ..NewTask::new(agent.definition.name.to_string(), asked.input, trace.id)
    };
    let id = app.engine.submit(task).await?.id;
    let mut response = if let Some(place) = place {
        let row = row(&app, id).await?;
        let words = Words::new(agent.definition.output_schema.is_some());
        let writing = Writing {
            caller,
            watch: app.engine.watch(id, None),
            heading: Heading::new(&row, wants_usage),
            heartbeat: app.settings.heartbeat,
            words,
            stage: Stage::Beginning,
            app,
            id,
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

async fn row(app: &App, id: ExecutionId) -> Answer<ExecutionRow> {
    let row = app.engine.store().execution(id).await?;
    row.ok_or_else(|| no_execution(id))
}

/// Waits until it is over, or for as long as a caller may.
async fn wait(app: &App, id: ExecutionId) -> Answer<()> {
    let mut watch = app.engine.watch(id, None);
    let end = async {
        while watch.next().await?.is_some() {}
        Ok::<_, store::Error>(())
    };
    tokio::select! {
        ended = tokio::time::timeout(LONGEST_WAIT, end) => match ended {
            Ok(ended) => Ok(ended?),
            Err(_) => Ok(()),
        },
        () = app.shutdown.cancelled() => Ok(()),
    }
}

/// An answer that is being written.
struct Writing {
    app: App,
    caller: Caller,
    id: ExecutionId,
    watch: Watch,
    heading: Heading,
    heartbeat: Duration,
    words: Words,
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
        let mut response = Sse::new(self.frames())
            .keep_alive(heartbeat)
            .into_response();
        // Proxies that gather answers before they pass them on would hold the words back.
        let name = HeaderName::from_static("x-accel-buffering");
        response
            .headers_mut()
            .insert(name, HeaderValue::from_static("no"));
        response
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
                match row(&self.app, self.id).await {
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
        let shutdown = self.app.shutdown.clone();
        let mut failures = 0;
        loop {
            let next = tokio::select! {
                () = shutdown.cancelled() => return Err(self.interrupted()),
                () = self.caller.ended() => return Err(self.shut_out()),
                next = self.watch.next() => next,
            };
            match next {
                Ok(Some(event)) => match self.words.hear(&event) {
                    Ok(None) => {}
                    Ok(Some(words)) => return Ok(self.heading.words(&words)),
                    Err(Diverged) => return Err(self.diverged()),
                },
                Ok(None) => return self.last().await,
                Err(error) => {
                    failures += 1;
                    if failures >= MAX_FAILURES {
                        return Err(error.into());
                    }
                    tracing::warn!(%error, failures, "the journal can't be read; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    async fn last(&mut self) -> Answer<String> {
        let said = said(&row(&self.app, self.id).await?)?;
        let Some(words) = self.words.end(&said.text) else {
            return Ok(self.finish(said.finish_reason));
        };
        self.stage = Stage::Finishing(said.finish_reason);
        Ok(self.heading.words(&words))
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

    fn shut_out(&self) -> ApiError {
        self.about(Code::AuthFailed, "the key is not valid any more".to_owned())
    }

    fn interrupted(&self) -> ApiError {
        let message = format!(
            "this process ends; the execution goes on, and GET /tasks/{} tells how it stands",
            self.id
        );
        self.about(Code::DependencyUnavailable, message)
    }

    fn diverged(&self) -> ApiError {
        let message = format!(
            "the model broke off and was asked again, and says something else than what was sent; \
             GET /tasks/{}/result has the answer",
            self.id
        );
        self.about(Code::StateConflict, message)
    }

    fn about(&self, code: Code, message: String) -> ApiError {
        ApiError::new(code, message).with("execution_id", self.id.to_string())
    }
}
