//! Writes the body of an answer piece by piece, well or badly.

use std::io;

use axum::body::Body;
use bytes::Bytes;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// The writing end of a body. Dropping it ends the body properly.
pub(crate) struct Pen(mpsc::Sender<io::Result<Bytes>>);

/// The client closed the connection.
pub(crate) struct Gone;

impl Pen {
    /// Makes a pen and the body that it writes.
    pub(crate) fn new() -> (Self, Body) {
        let (sender, receiver) = mpsc::channel(1);
        (
            Self(sender),
            Body::from_stream(ReceiverStream::new(receiver)),
        )
    }

    /// Sends one piece as one chunk of the body.
    pub(crate) async fn put(&self, bytes: Bytes) -> Result<(), Gone> {
        self.0.send(Ok(bytes)).await.map_err(|_| Gone)
    }

    /// Repeats `filler` until `total` bytes are sent, or without end.
    pub(crate) async fn fill(&self, filler: &Bytes, total: Option<u64>) -> Result<(), Gone> {
        let mut left = total.unwrap_or(u64::MAX);
        while left > 0 {
            let length = usize::try_from(left)
                .unwrap_or(usize::MAX)
                .min(filler.len());
            self.put(filler.slice(..length)).await?;
            if total.is_some() {
                left -= length as u64;
            }
        }
        Ok(())
    }

    /// Sends nothing more, but keeps the connection open until the client closes it.
    pub(crate) async fn silence(&self) -> Gone {
        self.0.closed().await;
        Gone
    }

    /// Breaks the connection in the middle of the body.
    pub(crate) async fn cut(self) {
        self.0
            .send(Err(io::ErrorKind::ConnectionAborted.into()))
            .await
            .ok();
    }
}

/// Returns 64 KiB of the letter a, to fill bodies with.
pub(crate) fn filler() -> Bytes {
    Bytes::from(vec![b'a'; 64 << 10])
}
