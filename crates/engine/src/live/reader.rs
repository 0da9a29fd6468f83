//! Where a reader is, and what it holds of an answer that is not committed yet.

use std::sync::Arc;

use domain::{Seq, Step, StepBody};
use sha2::{Digest, Sha256};

use super::pieces::Pieces;
use super::{LiveEvent, Position, VOID};

/// One who reads: each thing once, whoever tells it.
#[derive(Debug, Clone, Default)]
pub(super) struct Reader {
    after: Option<Position>,
    held: Held,
}

/// What a reader holds of the answer under way: not the words, of which a thousand readers would keep a thousand copies,
/// but enough to tell whether they are the beginning of what was committed.
#[derive(Debug, Clone)]
enum Held {
    /// So many bytes, which add up to this.
    Words { bytes: usize, sum: Sha256 },
    /// Words that were heard elsewhere.
    Unknown,
}

impl Default for Held {
    fn default() -> Self {
        Self::Words {
            bytes: 0,
            sum: Sha256::new(),
        }
    }
}

impl Reader {
    /// One who comes from elsewhere, and was there.
    pub(super) fn new(after: Option<Position>) -> Self {
        let holds_words = |after: Position| matches!(after.piece, Some((_, n)) if n != VOID);
        let held = match after {
            Some(after) if holds_words(after) => Held::Unknown,
            _ => Held::default(),
        };
        Self { after, held }
    }

    /// The last step that the reader has whole.
    pub(super) fn last_step(&self) -> Seq {
        self.after.map_or(Seq::new(0), Position::last_step)
    }

    /// What the reader is told next of the answer under way.
    pub(super) fn hear(&mut self, pieces: &Pieces) -> Option<LiveEvent> {
        let event = pieces.next(self.after)?;
        if let (Held::Unknown, Some(after)) = (&self.held, self.after)
            && let Some(words) = pieces.words_up_to(after)
        {
            self.held = Held::default();
            self.held.hear(&words);
        }
        match &event {
            LiveEvent::Delta { text, .. } => self.held.hear(text),
            LiveEvent::Supersede { .. } => self.held = Held::default(),
            LiveEvent::ToolCallBegins { .. } | LiveEvent::Step(_) => {}
        }
        self.after = Some(event.position());
        Some(event)
    }

    /// What the reader is told because of a committed step: first, when it holds something else, that this is void. Then
    /// it is to be told again of the step.
    pub(super) fn read(&mut self, step: &Arc<Step>) -> LiveEvent {
        if let Some(Position {
            seq,
            piece: Some((attempt, _)),
        }) = self.after
            && seq == step.seq
            && !self.held.begins(step)
        {
            self.held = Held::default();
            let position = Position {
                seq,
                piece: Some((attempt, VOID)),
            };
            self.after = Some(position);
            return LiveEvent::Supersede { position };
        }
        self.held = Held::default();
        self.after = Some(Position::of_step(step.seq));
        LiveEvent::Step(step.clone())
    }
}

impl Held {
    fn hear(&mut self, words: &str) {
        if let Self::Words { bytes, sum } = self {
            *bytes += words.len();
            sum.update(words.as_bytes());
        }
    }

    /// Whether this is the beginning of what the step says, so that whoever holds it has nothing to drop.
    fn begins(&self, step: &Step) -> bool {
        let said = match &step.body {
            StepBody::ModelCall(call) if call.purpose.is_said() => call.reply.text.as_str(),
            _ => "",
        };
        match self {
            Self::Words { bytes: 0, .. } => true,
            Self::Words { bytes, sum } => {
                let beginning = said.as_bytes().get(..*bytes);
                beginning
                    .is_some_and(|beginning| Sha256::digest(beginning) == sum.clone().finalize())
            }
            Self::Unknown => false,
        }
    }
}
