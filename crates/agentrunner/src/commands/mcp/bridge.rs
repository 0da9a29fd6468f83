//! Between a client on standard input and output and a server's `/mcp`: messages are passed on as they are, each request by
//! itself, so that a slow one holds up no other.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use eventsource_stream::Eventsource as _;
use futures::StreamExt as _;
use reqwest::{Response, StatusCode};
use serde_json::Value;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::codec::{FramedRead, LinesCodec, LinesCodecError};
use tokio_util::sync::CancellationToken;

use super::wire::{self, Agreed};
use crate::client::Client;

/// The longest message of the client, in bytes: what a server takes by default, and some room.
const MAX_LINE: usize = 6 << 20;
/// How long answers that are on their way are waited for when the client has said its last word.
const GRACE: Duration = Duration::from_secs(1);
/// JSON-RPC's words for a message that can't be read, and for one that can't be passed on.
const NO_MESSAGE: i32 = -32700;
const NOT_PASSED: i32 = -32000;

struct Bridge {
    client: Client,
    out: mpsc::Sender<Value>,
    agreed: Mutex<Agreed>,
    /// The requests that have no answer yet, by their ids.
    open: Mutex<HashMap<String, CancellationToken>>,
}

/// Passes messages on until the client ends its input, or reads no more.
pub(super) async fn run(client: &Client) -> anyhow::Result<()> {
    let (out, answers) = mpsc::channel(64);
    let bridge = Arc::new(Bridge {
        client: client.clone(),
        out,
        agreed: Mutex::default(),
        open: Mutex::default(),
    });
    let mut writing = tokio::spawn(write(answers));
    let reading = read(bridge);
    tokio::select! {
        read = reading => read?,
        written = &mut writing => return written.context("writing to standard output")?,
    }
    writing.await.context("writing to standard output")?
}

async fn read(bridge: Arc<Bridge>) -> anyhow::Result<()> {
    let codec = LinesCodec::new_with_max_length(MAX_LINE);
    let mut lines = FramedRead::new(tokio::io::stdin(), codec);
    let mut passing = JoinSet::new();
    while let Some(line) = lines.next().await {
        let line = match line {
            Ok(line) if line.trim().is_empty() => continue,
            Ok(line) => line,
            Err(LinesCodecError::MaxLineLengthExceeded) => {
                let why = format!("the message is longer than {MAX_LINE} bytes");
                bridge.refuse(&Value::Null, NO_MESSAGE, &why).await;
                continue;
            }
            Err(LinesCodecError::Io(error)) => {
                return Err(error).context("reading standard input");
            }
        };
        match serde_json::from_str::<Value>(&line) {
            Err(error) => {
                let why = format!("the message is not JSON: {error}");
                bridge.refuse(&Value::Null, NO_MESSAGE, &why).await;
            }
            // What was agreed on counts for all that come after.
            Ok(message) if wire::method(&message) == Some("initialize") => {
                bridge.pass(message).await;
            }
            Ok(message) => {
                let bridge = bridge.clone();
                passing.spawn(async move { bridge.pass(message).await });
            }
        }
        while passing.try_join_next().is_some() {}
    }
    let rest = async { while passing.join_next().await.is_some() {} };
    drop(tokio::time::timeout(GRACE, rest).await);
    passing.shutdown().await;
    Ok(())
}

async fn write(mut answers: mpsc::Receiver<Value>) -> anyhow::Result<()> {
    let mut out = tokio::io::stdout();
    while let Some(message) = answers.recv().await {
        // JSON in one line: line breaks stand in strings alone, escaped.
        out.write_all(format!("{message}\n").as_bytes()).await?;
        out.flush().await?;
    }
    Ok(())
}

impl Bridge {
    /// Passes a message on, and back what is answered. A request is always answered, unless its client cancels it.
    async fn pass(&self, message: Value) {
        let cancelled = match wire::method(&message) {
            Some("notifications/cancelled") => message.pointer("/params/requestId"),
            _ => None,
        };
        let cancelled = cancelled.map(ToString::to_string);
        let Some(id) = wire::request_id(&message).cloned() else {
            if let Err(error) = self.tell(&message, None).await {
                tracing::warn!(error = %format!("{error:#}"), "a notification was not passed on");
            }
            // The server was told, or hears it now: nobody listens to the answer any more.
            let token = cancelled.and_then(|id| self.open().remove(&id));
            if let Some(token) = token {
                token.cancel();
            }
            return;
        };
        let token = CancellationToken::new();
        self.open().insert(id.to_string(), token.clone());
        let told = token
            .run_until_cancelled(self.tell(&message, Some(&id)))
            .await;
        self.open().remove(&id.to_string());
        if let Some(Err(error)) = told {
            self.refuse(&id, NOT_PASSED, &format!("{error:#}")).await;
        }
    }

    /// Sends a message and passes on what comes back.
    async fn tell(&self, message: &Value, id: Option<&Value>) -> anyhow::Result<()> {
        let mut response = self.send(message).await?;
        if response.status() == StatusCode::NOT_FOUND && self.begin_anew(message).await? {
            response = self.send(message).await?;
        }
        if wire::method(message) == Some("initialize") {
            let session = response.headers().get(wire::SESSION);
            let session = session.and_then(|name| name.to_str().ok());
            let mut agreed = self.agreed();
            agreed.session = session.map(str::to_owned);
            agreed.hello = Some(message.clone());
        }
        let kind = response.headers().get("content-type");
        let is_stream = kind.is_some_and(|kind| kind.as_bytes().starts_with(b"text/event-stream"));
        if !is_stream {
            return match self.client.message_of(response).await? {
                Value::Null => Ok(()),
                answer => self.hand_over(answer).await,
            };
        }
        let mut events = response.bytes_stream().eventsource();
        let mut is_answered = false;
        while let Some(event) = events.next().await {
            let event = event.context("the answer broke off; what was asked for may go on")?;
            if event.data.is_empty() {
                continue;
            }
            let answer: Value = serde_json::from_str(&event.data)
                .context("the server sent a message that is not JSON")?;
            is_answered |= id.is_some_and(|id| wire::answers(&answer, id));
            self.hand_over(answer).await?;
        }
        let is_over = is_answered || id.is_none();
        anyhow::ensure!(
            is_over,
            "the server ended its answer early; what was asked for may go on"
        );
        Ok(())
    }

    async fn send(&self, message: &Value) -> anyhow::Result<Response> {
        let headers = wire::headers(message, &self.agreed());
        self.client.post_message("/mcp", headers, message).await
    }

    /// Begins another session when the one that a message showed is over, say because the server was started anew.
    async fn begin_anew(&self, message: &Value) -> anyhow::Result<bool> {
        let agreed = self.agreed().clone();
        let Some(hello) = agreed.hello.filter(|_| agreed.session.is_some()) else {
            return Ok(false);
        };
        if !wire::headers(message, &self.agreed()).contains_key(wire::SESSION) {
            return Ok(false);
        }
        let response = self.send(&hello).await?;
        let session = response.headers().get(wire::SESSION);
        let session = session
            .and_then(|name| name.to_str().ok())
            .map(str::to_owned);
        self.client.message_of(response).await?;
        self.agreed().session = session;
        Ok(true)
    }

    async fn hand_over(&self, answer: Value) -> anyhow::Result<()> {
        if let Some(version) = answer.pointer("/result/protocolVersion") {
            self.agreed().version = version.as_str().map(str::to_owned);
        }
        let sent = self.out.send(answer).await;
        sent.context("the client reads no more")
    }

    async fn refuse(&self, id: &Value, code: i32, why: &str) {
        // Nobody reads any more: the end of the output ends the command.
        drop(self.out.send(wire::refusal(id, code, why)).await);
    }

    fn agreed(&self) -> MutexGuard<'_, Agreed> {
        self.agreed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
