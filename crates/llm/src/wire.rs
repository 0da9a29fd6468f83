//! Turns the body of an answer into chunks, as its bytes come.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures::stream;
use reqwest::Response;
use tokio::time::timeout;

use crate::endpoint::Endpoint;
use crate::error::quote;
use crate::failure::{Report, broke_off};
use crate::http::{cut_off, silent, whole_body};
use crate::lines::{Frames, Framing, Uncut};
use crate::{ChatStream, Chunk, Error};

/// The most bytes of one streamed answer. Wire formats take some 300 bytes for a token.
const LARGEST_STREAM: u64 = 256 << 20;
/// How long, and for how many bytes, we wait for a body to end after the answer has: then its connection can
/// serve the next call.
const DRAIN_PATIENCE: Duration = Duration::from_millis(100);
const LARGEST_DRAIN: usize = 64 << 10;

/// Reads the events of one provider's answer.
pub(crate) trait Decode: Send + 'static {
    /// Reads one event, and says what it means.
    fn read(&mut self, event: &[u8], out: &mut VecDeque<Chunk>) -> Result<Progress, Fault>;
    /// The body has ended as a body should: says the rest, or that the answer has no end.
    fn end(&mut self, out: &mut VecDeque<Chunk>) -> Result<(), Fault>;
}

/// Whether more is to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    /// It is.
    More,
    /// The answer is whole.
    Done,
}

/// What an adapter finds wrong with an answer.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The provider reports a failure, which would have had this status had it come first.
    Reported(u16, Report),
    /// It is not what the format allows.
    Garbled(String),
    /// The end mark is missing.
    CutOff,
}

impl Fault {
    /// An event that is no JSON of the expected shape.
    pub(crate) fn unreadable(error: &serde_json::Error, event: &[u8]) -> Self {
        let beginning = String::from_utf8_lossy(event.get(..200).unwrap_or(event));
        Self::Garbled(format!("{error} in {}", quote(&beginning)))
    }
}

/// What is needed to make chunks of a response.
pub(crate) struct Reading<D> {
    /// Whose answer it is.
    pub(crate) endpoint: Endpoint,
    /// The model that was asked.
    pub(crate) model: String,
    /// How the body is cut.
    pub(crate) framing: Framing,
    /// Who reads the pieces.
    pub(crate) decoder: D,
    /// How long the first byte may take.
    pub(crate) patience: Duration,
    /// How long any later byte may take.
    pub(crate) idle: Duration,
}

/// Makes chunks of a response. A server that answers in one piece, though a stream was asked for, is understood.
pub(crate) async fn open<D: Decode>(
    response: Response,
    mut reading: Reading<D>,
) -> Result<ChatStream, Error> {
    let kind = content_type(&response);
    if kind.contains("html") {
        return Err(Error::garbled(format!(
            "{} at {} answered with a web page ({}): is the address right, and is there a proxy in between?",
            reading.endpoint.provider.as_str(),
            reading.endpoint.place(),
            quote(&kind)
        )));
    }
    if reading.framing == Framing::Events && kind.starts_with("application/json") {
        let body = whole_body(&reading.endpoint, response, reading.patience).await?;
        let mut out = VecDeque::new();
        let read = reading.decoder.read(&body, &mut out);
        if read.map_err(|fault| reading.error(fault))? == Progress::More {
            let ended = reading.decoder.end(&mut out);
            ended.map_err(|fault| reading.error(fault))?;
        }
        return Ok(Box::pin(stream::iter(out.into_iter().map(Ok))));
    }
    let body = Body {
        response,
        frames: Frames::new(reading.framing),
        patience: reading.patience,
        received: 0,
        out: VecDeque::new(),
        stage: Stage::Reading,
        reading,
    };
    Ok(Box::pin(stream::unfold(body, |mut body| async move {
        let item = body.next().await?;
        Some((item, body))
    })))
}

fn content_type(response: &Response) -> String {
    let value = response.headers().get(http::header::CONTENT_TYPE);
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_ascii_lowercase()
}

impl<D> Reading<D> {
    fn error(&self, fault: Fault) -> Error {
        match fault {
            Fault::Reported(status, report) => {
                broke_off(&self.endpoint, &self.model, status, &report)
            }
            Fault::CutOff => cut_off(&self.endpoint),
            Fault::Garbled(reason) => Error::garbled(format!(
                "{} at {} sent what is no answer: {}",
                self.endpoint.provider.as_str(),
                self.endpoint.place(),
                self.endpoint.without_key(&reason)
            )),
        }
    }
}

/// A body under way. Dropping it closes the connection, unless the body has been read to its end.
struct Body<D> {
    response: Response,
    frames: Frames,
    reading: Reading<D>,
    patience: Duration,
    received: u64,
    out: VecDeque<Chunk>,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Reading,
    /// The answer is whole, the body perhaps not at its end.
    Whole,
    Over,
}

impl<D: Decode> Body<D> {
    async fn next(&mut self) -> Option<Result<Chunk, Error>> {
        loop {
            if let Some(chunk) = self.out.pop_front() {
                return Some(Ok(chunk));
            }
            match self.stage {
                Stage::Over => return None,
                Stage::Whole => {
                    self.drain().await;
                    self.stage = Stage::Over;
                }
                Stage::Reading => {
                    if let Err(error) = self.advance().await {
                        self.stage = Stage::Over;
                        self.out.clear();
                        return Some(Err(error));
                    }
                }
            }
        }
    }

    /// Reads one event, or more bytes.
    async fn advance(&mut self) -> Result<(), Error> {
        let event = self.frames.next();
        if let Some(event) = event.map_err(|uncut| self.uncut(&uncut))? {
            let read = self.reading.decoder.read(&event, &mut self.out);
            if read.map_err(|fault| self.reading.error(fault))? == Progress::Done {
                self.stage = Stage::Whole;
            }
            return Ok(());
        }
        let endpoint = &self.reading.endpoint;
        let read = timeout(self.patience, self.response.chunk()).await;
        let bytes = read
            .map_err(|_| silent(endpoint, self.patience))?
            .map_err(|error| cut_off(endpoint).because(error.without_url()))?;
        self.patience = self.reading.idle;
        match bytes {
            Some(bytes) => self.take(&bytes),
            None => self.end(),
        }
    }

    fn take(&mut self, bytes: &Bytes) -> Result<(), Error> {
        self.received += bytes.len() as u64;
        if self.received > LARGEST_STREAM {
            return Err(self.uncut(&Uncut::TooLong));
        }
        self.frames.push(bytes);
        Ok(())
    }

    /// The body has ended. A last event that is cut short makes the answer cut short.
    fn end(&mut self) -> Result<(), Error> {
        self.stage = Stage::Over;
        let rest = self.frames.rest();
        let rest = rest.map_err(|uncut| self.uncut(&uncut))?;
        if let Some(event) = rest {
            match self.reading.decoder.read(&event, &mut self.out) {
                Ok(Progress::Done) => return Ok(()),
                Ok(Progress::More) => {}
                Err(Fault::Garbled(_)) => return Err(self.reading.error(Fault::CutOff)),
                Err(fault) => return Err(self.reading.error(fault)),
            }
        }
        let ended = self.reading.decoder.end(&mut self.out);
        ended.map_err(|fault| self.reading.error(fault))
    }

    async fn drain(&mut self) {
        let rest = async {
            let mut left = LARGEST_DRAIN;
            while let Ok(Some(bytes)) = self.response.chunk().await {
                left = left.saturating_sub(bytes.len());
                if left == 0 {
                    break;
                }
            }
        };
        // Whether it ends in time or not: the answer is whole, and only the connection's future depends on it.
        drop(timeout(DRAIN_PATIENCE, rest).await);
    }

    fn uncut(&self, uncut: &Uncut) -> Error {
        #[cfg(feature = "bedrock")]
        if *uncut == Uncut::NoFrame {
            let reason = "bytes that are no frame".to_owned();
            return self.reading.error(Fault::Garbled(reason));
        }
        debug_assert_eq!(*uncut, Uncut::TooLong);
        Error::garbled(format!(
            "{} at {} sends more than any answer has",
            self.reading.endpoint.provider.as_str(),
            self.reading.endpoint.place()
        ))
    }
}
