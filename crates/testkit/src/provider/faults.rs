//! How an answer travels: slowly, in odd pieces, broken, or not at all.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use tokio::time::sleep;

use super::answer::ProviderError;
use crate::barrier::{Barrier, Ticket};
use crate::log::{Entry, Fate, Outcome};
use crate::pen::{Gone, Pen, filler};
use crate::server::Link;

/// How an answer travels.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delivery {
    /// Milliseconds before the first byte, the status line included.
    pub first_byte_ms: u64,
    /// Milliseconds before each chunk of the body.
    pub chunk_ms: u64,
    /// Characters of text or arguments in one event of a stream.
    pub piece_chars: usize,
    /// Bytes in one chunk of the body. By default one chunk is one event.
    pub chunk_bytes: Option<usize>,
    /// What goes wrong.
    pub fault: Option<Fault>,
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            first_byte_ms: 0,
            chunk_ms: 0,
            piece_chars: 8,
            chunk_bytes: None,
            fault: None,
        }
    }
}

/// What goes wrong with an answer on its way. `after` counts chunks that are sent before.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", deny_unknown_fields)]
pub enum Fault {
    /// Resets the connection before any byte of the answer.
    Reset,
    /// Takes the request and never answers, not even with a status.
    NeverAnswer,
    /// Breaks the connection in mid-body. By default just before the finish marker.
    Cut {
        /// Chunks sent before.
        after: Option<usize>,
    },
    /// Ends the body properly, but too early. By default just before the finish marker.
    EndEarly {
        /// Chunks sent before.
        after: Option<usize>,
    },
    /// Ends the body properly in the middle of its last event.
    HalfEvent,
    /// Falls silent and keeps the connection open.
    Silence {
        /// Chunks sent before. By default half of them.
        after: Option<usize>,
    },
    /// Sends bytes that are neither UTF-8 nor an event, then goes on.
    Garbage {
        /// Chunks sent before. By default half of them.
        after: Option<usize>,
    },
    /// Reports an error in mid-stream, in the provider's shape, and ends.
    ErrorEvent {
        /// Chunks sent before. By default half of them.
        after: Option<usize>,
        /// The error.
        error: ProviderError,
    },
    /// Repeats a piece of the answer for ever.
    Endless,
    /// Sends one event of this many bytes, 1 GiB by default.
    Huge {
        /// The size of the body.
        bytes: Option<u64>,
    },
}

/// The bytes of an answer, cut into events.
pub(super) struct Frames {
    /// The events up to the last piece of content.
    pub(super) content: Vec<Bytes>,
    /// The events that say that the answer is complete.
    pub(super) finish: Vec<Bytes>,
    /// An event that can be repeated for ever.
    pub(super) more: Bytes,
    /// How an event begins whose end is not in sight.
    pub(super) opening: Bytes,
}

impl Frames {
    /// Makes the frames of an answer that is one JSON text.
    pub(super) fn whole(text: String) -> Self {
        let mut content = Bytes::from(text);
        let finish = content.split_off(content.len() / 2);
        Self {
            content: vec![content],
            finish: vec![finish],
            more: filler(),
            opening: "{\"padding\":\"".into(),
        }
    }
}

/// One answer on its way to the client.
pub(super) struct Transport<T: Entry + Clone> {
    /// Where holds in mid-stream are placed.
    pub(super) barrier: Barrier,
    /// Describes the request to them.
    pub(super) ticket: Ticket,
    /// The connection.
    pub(super) link: Link,
    /// Learns how it ends.
    pub(super) fate: Fate<T>,
}

impl<T: Entry + Clone + Send + Sync + 'static> Transport<T> {
    /// Waits before the first byte. Does not return when the answer shall never begin.
    pub(super) async fn before(&mut self, delivery: &Delivery) {
        sleep(Duration::from_millis(delivery.first_byte_ms)).await;
        match &delivery.fault {
            Some(Fault::Reset) => {
                self.fate.note(Outcome::Cut);
                self.link.sever().await
            }
            Some(Fault::NeverAnswer) => std::future::pending().await,
            _ => {}
        }
    }

    /// Sends `frames` in the background. `error` writes an error as an event.
    pub(super) fn send(
        self,
        frames: Frames,
        delivery: Delivery,
        error: impl Fn(&ProviderError) -> Bytes + Send + 'static,
    ) -> Body {
        let (pen, body) = Pen::new();
        tokio::spawn(async move {
            let plan = Plan::new(frames, &delivery, error);
            let Self {
                barrier,
                ticket,
                fate,
                ..
            } = self;
            match plan.write(pen, delivery.chunk_ms, &barrier, &ticket).await {
                Ok(outcome) => fate.settle(outcome),
                Err(Gone) => fate.settle(Outcome::Abandoned),
            }
        });
        body
    }
}

/// What is written, and what comes after.
struct Plan {
    chunks: Vec<Bytes>,
    then: Then,
}

enum Then {
    End,
    EndEarly,
    Cut,
    Silence,
    Fill { with: Bytes, total: Option<u64> },
}

impl Plan {
    fn new(frames: Frames, delivery: &Delivery, error: impl Fn(&ProviderError) -> Bytes) -> Self {
        let Frames {
            content,
            finish,
            more,
            opening,
        } = frames;
        let marker = rechunk(content.clone(), delivery.chunk_bytes).len();
        let mut chunks = rechunk(
            content.into_iter().chain(finish).collect(),
            delivery.chunk_bytes,
        );
        let half = marker.div_ceil(2);
        let keep = |chunks: &mut Vec<Bytes>, after: Option<usize>, default: usize| {
            chunks.truncate(after.unwrap_or(default));
        };
        let then = match &delivery.fault {
            None | Some(Fault::Reset | Fault::NeverAnswer) => Then::End,
            Some(Fault::Cut { after }) => {
                keep(&mut chunks, *after, marker);
                Then::Cut
            }
            Some(Fault::EndEarly { after }) => {
                keep(&mut chunks, *after, marker);
                Then::EndEarly
            }
            Some(Fault::HalfEvent) => {
                keep(&mut chunks, None, marker.max(1));
                if let Some(last) = chunks.last_mut() {
                    last.truncate(last.len() / 2);
                }
                Then::EndEarly
            }
            Some(Fault::Silence { after }) => {
                keep(&mut chunks, *after, half);
                Then::Silence
            }
            Some(Fault::Garbage { after }) => {
                let at = after.unwrap_or(half).min(chunks.len());
                chunks.insert(at, Bytes::from_static(GARBAGE));
                Then::End
            }
            Some(Fault::ErrorEvent { after, error: what }) => {
                keep(&mut chunks, *after, half);
                chunks.push(error(what));
                Then::End
            }
            Some(Fault::Endless) => {
                keep(&mut chunks, None, marker);
                Then::Fill {
                    with: more,
                    total: None,
                }
            }
            Some(Fault::Huge { bytes }) => {
                chunks = vec![opening];
                Then::Fill {
                    with: filler(),
                    total: Some(bytes.unwrap_or(1 << 30)),
                }
            }
        };
        Self { chunks, then }
    }

    async fn write(
        self,
        pen: Pen,
        chunk_ms: u64,
        barrier: &Barrier,
        ticket: &Ticket,
    ) -> Result<Outcome, Gone> {
        let half = self.chunks.len().div_ceil(2);
        for (index, chunk) in self.chunks.into_iter().enumerate() {
            if index == half {
                tokio::select! {
                    () = barrier.pass(ticket) => {}
                    gone = pen.silence() => return Err(gone),
                }
            }
            if chunk_ms > 0 {
                sleep(Duration::from_millis(chunk_ms)).await;
            }
            pen.put(chunk).await?;
        }
        match self.then {
            Then::End => return Ok(Outcome::Answered),
            Then::EndEarly => {}
            Then::Cut => pen.cut().await,
            Then::Silence => return Err(pen.silence().await),
            Then::Fill { with, total } => pen.fill(&with, total).await?,
        }
        Ok(Outcome::Cut)
    }
}

/// Not UTF-8, with a NUL, a lone `data:` and line ends of both kinds.
const GARBAGE: &[u8] = b"\xff\xfe\x00\x80garbage\r\n\r\ndata: {not json\n\n\xf0\x9f\n\n";

/// Cuts frames anew into chunks of `size` bytes, if a size is given.
fn rechunk(frames: Vec<Bytes>, size: Option<usize>) -> Vec<Bytes> {
    let Some(size) = size else { return frames };
    let mut all: BytesMut = frames
        .iter()
        .flat_map(|frame| frame.iter().copied())
        .collect();
    let mut chunks = Vec::new();
    while !all.is_empty() {
        chunks.push(all.split_to(size.clamp(1, all.len())).freeze());
    }
    chunks
}
