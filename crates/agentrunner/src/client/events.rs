//! Following an execution over server-sent events: steps and pieces of answers, without gap across reconnections.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use domain::{ExecutionId, Step};
use engine::{LiveEvent, Position};
use eventsource_stream::{Event, Eventsource};
use futures::{Stream, StreamExt};
use reqwest::Method;
use serde_json::Value;

use super::{Client, Refused, read};

/// How often in a row a broken stream is taken up again.
const MAX_TRIES: u32 = 8;
type Frames = Pin<Box<dyn Stream<Item = anyhow::Result<Event>> + Send>>;

/// A running view of an execution on a server.
pub(crate) struct Events {
    client: Client,
    id: ExecutionId,
    frames: Option<Frames>,
    last_id: String,
    tries: u32,
    is_over: bool,
}

impl Events {
    pub(super) fn new(client: Client, id: ExecutionId) -> Self {
        Self {
            client,
            id,
            frames: None,
            last_id: String::new(),
            tries: 0,
            is_over: false,
        }
    }

    /// The next event; `None` after the last step.
    ///
    /// # Errors
    /// The server can't be reached any more, however often it was tried, or refuses.
    pub(crate) async fn next(&mut self) -> anyhow::Result<Option<LiveEvent>> {
        while !self.is_over {
            let Some(frames) = &mut self.frames else {
                match connect(&self.client, self.id, &self.last_id).await {
                    Ok(frames) => self.frames = Some(frames),
                    Err(error) if self.tries > 0 && !is_final(&error) => {
                        self.lost(Some(error)).await?
                    }
                    Err(error) => return Err(error),
                }
                continue;
            };
            match frames.next().await {
                Some(Ok(frame)) => {
                    self.tries = 0;
                    if !frame.id.is_empty() {
                        self.last_id.clone_from(&frame.id);
                    }
                    if let Some(event) = parse(&frame)? {
                        self.is_over = matches!(&event, LiveEvent::Step(step) if is_last(step));
                        return Ok(Some(event));
                    }
                }
                Some(Err(error)) => self.lost(Some(error)).await?,
                None => self.lost(None).await?,
            }
        }
        Ok(None)
    }

    /// The stream broke, or ended early because the server shuts down: it is taken up where it was.
    async fn lost(&mut self, error: Option<anyhow::Error>) -> anyhow::Result<()> {
        self.frames = None;
        self.tries += 1;
        if self.tries > MAX_TRIES {
            let error = error.unwrap_or_else(|| anyhow::anyhow!("the stream ended early"));
            return Err(error.context(format!("following {}", self.id)));
        }
        tokio::time::sleep(Duration::from_millis(100 << self.tries.min(5))).await;
        Ok(())
    }
}

/// Whether coming back would be answered the same.
fn is_final(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<Refused>();
    refused.is_some_and(|refused| refused.status.is_client_error())
}

fn is_last(step: &Step) -> bool {
    matches!(step.body, domain::StepBody::Finished { .. })
}

async fn connect(client: &Client, id: ExecutionId, last_id: &str) -> anyhow::Result<Frames> {
    let path = format!("{}/tasks/{id}/events", client.base);
    let request = client.http.request(Method::GET, path);
    let mut request = client.shown(request).header("accept", "text/event-stream");
    if !last_id.is_empty() {
        request = request.header("last-event-id", last_id);
    }
    let response = client.send(request).await?;
    if !response.status().is_success() {
        return Err(read(response)
            .await
            .err()
            .unwrap_or_else(|| anyhow::anyhow!("no stream")));
    }
    let frames = response.bytes_stream().eventsource();
    Ok(Box::pin(
        frames.map(|frame| frame.context("the stream of events broke")),
    ))
}

/// What a frame says; `None` for frames of kinds that a later server may add.
fn parse(frame: &Event) -> anyhow::Result<Option<LiveEvent>> {
    let data = || -> anyhow::Result<Value> {
        serde_json::from_str(&frame.data).context("the server sent an event that is not JSON")
    };
    let position = || frame.id.parse::<Position>().map_err(anyhow::Error::msg);
    let text = |data: &Value, name: &str| {
        data.get(name)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    Ok(Some(match frame.event.as_str() {
        "step" => LiveEvent::Step(Arc::new(
            serde_json::from_str(&frame.data)
                .context("the server sent a step that can't be read")?,
        )),
        "delta" => LiveEvent::Delta {
            position: position()?,
            text: text(&data()?, "text"),
        },
        "tool_call" => LiveEvent::ToolCallBegins {
            position: position()?,
            tool: text(&data()?, "tool"),
        },
        "supersede" => LiveEvent::Supersede {
            position: position()?,
        },
        _ => return Ok(None),
    }))
}
