//! One who follows an execution over the network: what there is to send next, whatever carries it.

use std::time::Duration;

use domain::ExecutionId;
use engine::{LiveEvent, Position, Watch};
use serde::Serialize;
use serde_json::json;
use store::ExecutionRow;
use tokio::sync::OwnedSemaphorePermit;

use crate::execution::ResultOut;
use crate::http::caller::Caller;
use crate::http::edge::full;
use crate::http::params::no_execution;
use crate::http::{Answer, ApiError, App, Code};

/// How often in a row reading may fail before the stream ends; the reader then comes back by itself.
const MAX_FAILURES: u32 = 5;

/// Something to send.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Frame {
    /// What it is.
    pub(super) event: &'static str,
    /// Where to go on from.
    pub(super) id: Option<String>,
    /// JSON.
    pub(super) data: String,
}

/// Why nothing more is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// Everything was.
    Done,
    /// The process ends: come back.
    Shutdown,
    /// The key was revoked or ran out.
    KeyEnded,
    /// The journal can't be read: come back.
    Unreadable,
}

/// A follower.
pub(super) struct Following {
    app: App,
    caller: Caller,
    id: ExecutionId,
    watch: Watch,
    /// To be sent before anything else.
    first: Option<Frame>,
    is_over: bool,
    is_done: bool,
    _place: OwnedSemaphorePermit,
}

impl Following {
    /// Begins after the event that `after` names, if any.
    ///
    /// # Errors
    /// `after` is not an id of such a stream, there is no such execution, or too many streams are open.
    pub(super) async fn begin(
        app: App,
        caller: Caller,
        id: ExecutionId,
        after: Option<&str>,
    ) -> Answer<Self> {
        let after = after
            .map(|text| {
                text.parse::<Position>()
                    .map_err(|why| ApiError::new(Code::InvalidRequest, why))
            })
            .transpose()?;
        let row = app.engine.store().execution(id).await?;
        let row = row.ok_or_else(|| no_execution(id))?;
        let place = app
            .streams
            .clone()
            .try_acquire_owned()
            .map_err(|_| full())?;
        let gap = after.filter(|after| !is_known(*after, &row));
        let after = after.filter(|_| gap.is_none());
        // Nothing comes after the last step: one who has it is told the end at once.
        let has_all =
            after.is_some_and(|after| after.piece.is_none() && after.seq.get() >= row.steps);
        Ok(Self {
            watch: app.engine.watch(id, after),
            first: gap.map(gap_frame),
            is_over: row.status.is_terminal() && has_all,
            is_done: false,
            app,
            caller,
            id,
            _place: place,
        })
    }

    /// The next thing to send.
    ///
    /// # Errors
    /// There is none, and why.
    pub(super) async fn next(&mut self) -> Result<Frame, End> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        if self.is_done {
            return Err(End::Done);
        }
        if self.is_over {
            return self.done().await;
        }
        let shutdown = self.app.shutdown.clone();
        for failure in 1..=MAX_FAILURES {
            let next = tokio::select! {
                () = shutdown.cancelled() => return Err(End::Shutdown),
                // Whoever comes back with the same key is told why.
                () = self.caller.ended() => return Err(End::KeyEnded),
                next = self.watch.next() => next,
            };
            match next {
                Ok(Some(event)) => return Ok(render(&event)),
                Ok(None) => return self.done().await,
                Err(error) => {
                    tracing::warn!(%error, failure, "the journal can't be read; trying again");
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
        Err(End::Unreadable)
    }

    async fn done(&mut self) -> Result<Frame, End> {
        self.is_over = true;
        let row = self.app.engine.store().execution(self.id).await;
        let row = row.ok().flatten().ok_or(End::Unreadable)?;
        self.is_done = true;
        let result = ResultOut::new(&row, self.app.engine.now());
        Ok(frame("done", None, &result))
    }
}

/// Whether there is such a place in this execution: in a step that is committed, or in the one that comes next.
fn is_known(after: Position, row: &ExecutionRow) -> bool {
    let is_piece = after.piece.is_some() && !row.status.is_terminal();
    after.seq.get() <= row.steps.saturating_add(u32::from(is_piece))
}

fn gap_frame(after: Position) -> Frame {
    let message =
        "this execution has no such event: drop what you hold, it is told from its beginning";
    frame(
        "gap",
        None,
        &json!({"after": after.to_string(), "message": message}),
    )
}

fn render(event: &LiveEvent) -> Frame {
    let position = event.position();
    let seq = position.seq;
    match event {
        LiveEvent::Step(step) => frame("step", Some(position), step.as_ref()),
        LiveEvent::Delta { text, .. } => {
            frame("delta", Some(position), &json!({"seq": seq, "text": text}))
        }
        LiveEvent::ToolCallBegins { tool, .. } => frame(
            "tool_call",
            Some(position),
            &json!({"seq": seq, "tool": tool}),
        ),
        LiveEvent::Supersede { .. } => frame("supersede", Some(position), &json!({"seq": seq})),
    }
}

fn frame<T: Serialize>(event: &'static str, id: Option<Position>, data: &T) -> Frame {
    Frame {
        event,
        id: id.map(|position| position.to_string()),
        data: serde_json::to_string(data).unwrap_or_default(),
    }
}
