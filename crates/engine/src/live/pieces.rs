//! The answer that is being written, piece by piece.
//!
//! Whose attempt is the higher one is the later owner, or the later try of the same: attempts begin at 256 times the
//! owner's epoch and never go back.

use domain::Seq;
use serde::{Deserialize, Serialize};

use super::{LiveEvent, Position, VOID};

/// How many bytes of memory a running answer takes for those who watch; beyond it they get the whole step at the end.
const MAX_BYTES: usize = 2 << 20;

/// A piece of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Piece {
    /// Words.
    #[serde(rename = "w")]
    Words(String),
    /// The model begins to call this tool.
    #[serde(rename = "t")]
    Tool(String),
}

impl Piece {
    fn bytes(&self) -> usize {
        match self {
            Self::Words(text) | Self::Tool(text) => text.len(),
        }
    }
}

/// How far somebody has heard an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Mark {
    pub(super) seq: Seq,
    pub(super) attempt: u32,
    /// How many pieces.
    pub(super) pieces: u32,
}

/// Pieces that follow one another, on their way to another process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Part {
    pub(super) committed: Seq,
    pub(super) seq: Seq,
    pub(super) attempt: u32,
    /// The number of the first.
    pub(super) from: u32,
    pub(super) pieces: Vec<Piece>,
}

impl Part {
    /// The number of the piece that comes after it.
    pub(super) fn end(&self) -> u32 {
        self.from.saturating_add(number(self.pieces.len()))
    }

    /// About how many bytes it has.
    pub(super) fn size(&self) -> usize {
        let pieces = self.pieces.iter().map(|piece| piece.bytes() + 16);
        100 + pieces.sum::<usize>()
    }
}

/// What became of a part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Taken {
    /// It is what is known now, or was before.
    In,
    /// Something before it is missing.
    Hole,
}

/// What is known of the answer under way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pieces {
    committed: Seq,
    seq: Seq,
    attempt: u32,
    pieces: Vec<Piece>,
    bytes: usize,
}

impl Pieces {
    /// None yet, after `committed`, of an owner whose first attempt this is.
    pub(super) const fn new(committed: Seq, attempt: u32) -> Self {
        Self {
            committed,
            seq: Seq::new(0),
            attempt,
            pieces: Vec::new(),
            bytes: 0,
        }
    }

    /// Whether there are none.
    pub(super) const fn is_empty(&self) -> bool {
        self.pieces.is_empty()
    }

    /// The last committed step, as far as is known.
    pub(super) const fn committed(&self) -> Seq {
        self.committed
    }

    /// A step is committed: what became of the pieces is in the journal.
    pub(super) fn commit(&mut self, seq: Seq) {
        self.committed = seq;
        self.clear();
    }

    /// The answer that will become step `seq` is asked for.
    pub(super) fn begin(&mut self, seq: Seq) {
        if self.seq == seq {
            self.attempt = self.attempt.saturating_add(1);
        }
        self.seq = seq;
        self.clear();
    }

    /// One more. After one for which there was no room there is none for any: what is known has no hole.
    pub(super) fn push(&mut self, piece: Piece) {
        self.bytes = self
            .bytes
            .saturating_add(piece.bytes() + size_of::<Piece>());
        if self.bytes <= MAX_BYTES {
            self.pieces.push(piece);
        }
    }

    fn clear(&mut self) {
        // A long answer's memory is not kept for the next one.
        self.pieces = Vec::new();
        self.bytes = 0;
    }

    /// How far it is known.
    pub(super) fn mark(&self) -> Mark {
        Mark {
            seq: self.seq,
            attempt: self.attempt,
            pieces: number(self.pieces.len()),
        }
    }

    /// What somebody lacks who has heard up to `mark`, about `most` bytes of it.
    pub(super) fn since(&self, mark: Option<Mark>, most: usize) -> Part {
        let same = mark.filter(|mark| (mark.seq, mark.attempt) == (self.seq, self.attempt));
        let from = same.map_or(0, |mark| mark.pieces as usize);
        let from = from.min(self.pieces.len());
        let mut bytes = 0;
        let rest = self.pieces.iter().skip(from);
        let fits = rest.take_while(|piece| {
            let is_first = bytes == 0;
            bytes += piece.bytes() + 16;
            is_first || bytes <= most
        });
        Part {
            committed: self.committed,
            seq: self.seq,
            attempt: self.attempt,
            from: number(from),
            pieces: fits.cloned().collect(),
        }
    }

    /// Takes in what another process says of the same execution.
    pub(super) fn take(&mut self, part: Part) -> Taken {
        self.committed = self.committed.max(part.committed);
        let (theirs, ours) = ((part.attempt, part.seq), (self.attempt, self.seq));
        if theirs > ours {
            self.attempt = part.attempt;
            self.seq = part.seq;
            self.clear();
        }
        if self.seq <= self.committed {
            self.clear();
            return Taken::In;
        }
        if theirs < ours {
            return Taken::In;
        }
        let known = self.pieces.len();
        let Some(new) = known.checked_sub(part.from as usize) else {
            return Taken::Hole;
        };
        for piece in part.pieces.into_iter().skip(new) {
            self.push(piece);
        }
        Taken::In
    }

    /// The next event of this answer for one who is at `after`; `None` when there is none yet, or this answer is not what
    /// comes next.
    pub(super) fn next(&self, after: Option<Position>) -> Option<LiveEvent> {
        let last_step = after.map_or(Seq::new(0), Position::last_step);
        if self.seq != last_step.plus(1) {
            return None;
        }
        match after.and_then(|after| after.piece) {
            Some((_, VOID)) | None => self.event(0),
            // Somebody who has heard of a later owner, elsewhere.
            Some((attempt, _)) if attempt > self.attempt => None,
            Some((attempt, n)) if attempt == self.attempt => self.event(n as usize + 1),
            // What was said before is void as soon as there is something else.
            Some(_) if self.pieces.is_empty() => None,
            Some((attempt, _)) => Some(LiveEvent::Supersede {
                position: Position {
                    seq: self.seq,
                    piece: Some((attempt, VOID)),
                },
            }),
        }
    }

    fn event(&self, n: usize) -> Option<LiveEvent> {
        let position = Position {
            seq: self.seq,
            piece: Some((self.attempt, number(n))),
        };
        Some(match self.pieces.get(n)?.clone() {
            Piece::Words(text) => LiveEvent::Delta { position, text },
            Piece::Tool(tool) => LiveEvent::ToolCallBegins { position, tool },
        })
    }

    /// All words up to a place; `None` when that place is not in this answer.
    pub(super) fn words_up_to(&self, place: Position) -> Option<String> {
        let (attempt, n) = place.piece?;
        if (place.seq, attempt) != (self.seq, self.attempt) {
            return None;
        }
        let heard = self.pieces.get(..=n as usize)?;
        let words = heard.iter().map(|piece| match piece {
            Piece::Words(text) => text.as_str(),
            Piece::Tool(_) => "",
        });
        Some(words.collect())
    }
}

fn number(n: usize) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
