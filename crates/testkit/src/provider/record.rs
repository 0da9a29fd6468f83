//! What the stand-in remembers of each request.

use std::hash::{DefaultHasher, Hash, Hasher};

use serde::Serialize;
use serde_json::Value;

use super::face::{Arrived, Face};
use super::request::{Request, conversation, turn};
use crate::log::{Entry, Outcome};

/// One request that arrived, and how it ended.
#[derive(Clone, Debug, Serialize)]
pub struct Recorded {
    /// The request.
    #[serde(flatten)]
    pub request: Request,
    /// The HTTP status of the answer, once there is one.
    pub status: Option<u16>,
    /// Why the request was refused as the real provider would refuse it, if it was.
    pub rejected: Option<String>,
    /// How it ended.
    pub outcome: Outcome,
    #[serde(skip)]
    fingerprint: u64,
}

impl Recorded {
    /// Reads the request with this number, which arrived after those of `earlier`.
    pub(super) fn read(number: usize, face: Face, arrived: &Arrived<'_>, earlier: &[Self]) -> Self {
        let raw: Value = arrived.raw.clone();
        let dialect = face.dialect();
        let messages = dialect.messages(&raw);
        let mut hasher = DefaultHasher::new();
        (face, arrived.path, arrived.body).hash(&mut hasher);
        let fingerprint = hasher.finish();
        let before = earlier
            .iter()
            .filter(|entry| entry.fingerprint == fingerprint)
            .count();
        let request = Request {
            number,
            face,
            path: arrived.path.to_owned(),
            model: dialect.model(arrived),
            stream: dialect.wants_stream(arrived),
            conversation: conversation(&messages),
            turn: turn(&messages),
            attempt: before + 1,
            tools: dialect.tools(&raw),
            messages,
            headers: arrived.headers.clone(),
            raw,
        };
        Self {
            request,
            status: None,
            rejected: None,
            outcome: Outcome::Open,
            fingerprint,
        }
    }
}

impl Entry for Recorded {
    fn number(&self) -> usize {
        self.request.number
    }

    fn outcome_mut(&mut self) -> &mut Outcome {
        &mut self.outcome
    }
}
