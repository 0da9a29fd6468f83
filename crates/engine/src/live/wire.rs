//! What processes say to one another about running answers, by whispers on the bus.

use domain::{ExecutionId, WorkerId};
use serde::{Deserialize, Serialize};

use super::pieces::{Mark, Part};

/// Where those listen who perform executions.
pub(super) const ASKS: &str = "live.asks";

/// Where one process listens.
pub(super) fn channel_of(worker: &WorkerId) -> String {
    format!("live.to.{worker}")
}

/// A whisper.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Whisper {
    /// Somebody watches these executions, and has heard so far.
    Ask {
        by: WorkerId,
        executions: Vec<(ExecutionId, Mark)>,
    },
    /// What these executions say.
    Tell(Vec<(ExecutionId, Part)>),
}

impl Whisper {
    pub(super) fn write(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// `None` for what a later version says.
    pub(super) fn read(words: &[u8]) -> Option<Self> {
        serde_json::from_slice(words).ok()
    }
}
