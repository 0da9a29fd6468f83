//! Following an execution while it happens.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use domain::{ExecutionId, Seq, Step};
use store::Store;

/// Something that a watcher of an execution sees.
#[derive(Debug, Clone, PartialEq)]
pub enum LiveEvent {
    /// A step is committed; pieces of the answer that it holds can be dropped.
    Step(Step),
    /// More of the answer that will become step `position.seq`.
    Delta {
        /// Where it belongs.
        position: Position,
        /// The words.
        text: String,
    },
    /// The model begins to write a call of this tool.
    ToolCallBegins {
        /// Where it belongs.
        position: Position,
        /// The tool's name.
        tool: String,
    },
    /// The pieces of the answer so far are void: the model call is made again.
    Supersede {
        /// The try that begins.
        position: Position,
    },
}

/// A place in what a watcher sees, written `seq` for a step and `seq.attempt.n` for a piece of the answer that will
/// become that step. Ordered: a step comes after its pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The step.
    pub seq: Seq,
    /// The try and the number of the piece, from 0; none for the step itself.
    pub piece: Option<(u32, u32)>,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.piece {
            None => write!(f, "{}", self.seq),
            Some((attempt, n)) => write!(f, "{}.{attempt}.{n}", self.seq),
        }
    }
}

impl FromStr for Position {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let bad = || format!("{s:?} is not an event id of this stream; it looks like 7 or 7.0.12");
        let numbers: Vec<u32> = s
            .split('.')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| bad())?;
        match numbers.as_slice() {
            [seq] => Ok(Self {
                seq: Seq::new(*seq),
                piece: None,
            }),
            [seq, attempt, n] => Ok(Self {
                seq: Seq::new(*seq),
                piece: Some((*attempt, *n)),
            }),
            _ => Err(bad()),
        }
    }
}

/// A running view of an execution.
pub struct Watch {
    store: Arc<dyn Store>,
    id: ExecutionId,
    after: Option<Position>,
}

impl Watch {
    pub(crate) fn new(store: Arc<dyn Store>, id: ExecutionId, after: Option<Position>) -> Self {
        Self { store, id, after }
    }

    /// The next event; `None` after the last step.
    ///
    /// # Errors
    /// The store can't be reached; calling again goes on where it was.
    pub async fn next(&mut self) -> Result<Option<LiveEvent>, store::Error> {
        let after = self.after.map(|position| position.seq);
        let Some(step) = self.store.steps(self.id, after, 1).await?.pop() else {
            return Ok(None);
        };
        self.after = Some(Position {
            seq: step.seq,
            piece: None,
        });
        Ok(Some(LiveEvent::Step(step)))
    }
}
