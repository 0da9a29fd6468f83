//! Following an execution while it happens: the committed steps from the store, and the words of the running answer from
//! the run itself, in whatever process it is.
//!
//! - [`pieces`] is the answer that is being written, as far as it is known, and what a reader is told of it. Pure.
//! - [`reader`] is where a reader is, and what it holds of that answer, so that it is told what to drop. Pure.
//! - [`board`] is where the two meet for one execution; [`hub`] has the boards of this process.
//! - [`watch`] reads one board, and the journal, for one reader.
//! - [`telling`] knows who elsewhere wants to hear what is said here; [`exchange`] asks and tells, in the form that
//!   [`wire`] gives it.

mod board;
mod exchange;
mod hub;
mod pieces;
mod reader;
mod telling;
mod watch;
mod wire;

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use domain::{Seq, Step};

pub(crate) use exchange::start;
pub(crate) use hub::{Hub, LiveRun};
pub use watch::Watch;

/// Something that a watcher of an execution sees.
#[derive(Debug, Clone, PartialEq)]
pub enum LiveEvent {
    /// A step is committed. Words that were heard before of the answer that it holds are its beginning.
    Step(Arc<Step>),
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
    /// What was heard so far of the answer that was to become step `position.seq` is void.
    Supersede {
        /// The end of what is void.
        position: Position,
    },
}

/// A place in what a watcher sees, written `seq` for a step and `seq.attempt.n` for a piece of the answer that will
/// become that step. It means the same in every process: attempts are numbered on from the owner's epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The step.
    pub seq: Seq,
    /// The try and the number of the piece, from 0; none for the step itself.
    pub piece: Option<(u32, u32)>,
}

/// The number of what stands behind all pieces of a try: that they are void.
const VOID: u32 = u32::MAX;

impl Position {
    /// The place of a whole step.
    pub const fn of_step(seq: Seq) -> Self {
        Self { seq, piece: None }
    }

    /// The last step that somebody who is here has whole.
    fn last_step(self) -> Seq {
        match self.piece {
            None => self.seq,
            Some(_) => Seq::new(self.seq.get().saturating_sub(1)),
        }
    }
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
            [seq] => Ok(Self::of_step(Seq::new(*seq))),
            [seq, attempt, n] => Ok(Self {
                seq: Seq::new(*seq),
                piece: Some((*attempt, *n)),
            }),
            _ => Err(bad()),
        }
    }
}

impl LiveEvent {
    /// Its place, to resume after.
    pub fn position(&self) -> Position {
        match self {
            Self::Step(step) => Position::of_step(step.seq),
            Self::Delta { position, .. }
            | Self::ToolCallBegins { position, .. }
            | Self::Supersede { position } => *position,
        }
    }
}

#[cfg(test)]
mod tests;
