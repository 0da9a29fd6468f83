//! The notes of the last minutes, and who reads them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::Note;
use super::cursor::{Cursor, Source};

/// How many notes are kept, and for how long.
const KEPT: (usize, Duration) = (8192, Duration::from_secs(300));
/// When a process that was not heard of is forgotten: no note of it is kept any more.
const FORGOTTEN: Duration = Duration::from_secs(600);
/// What was heard of so long ago may have gone on unheard: nobody listened.
const SILENCE: Duration = Duration::from_secs(6);

/// Notes in the order in which they came here.
#[derive(Default)]
pub(super) struct Ring {
    notes: VecDeque<Kept>,
    /// The place of the first.
    first: u64,
    /// How far each process has come.
    heard: BTreeMap<Source, Reached>,
}

struct Kept {
    source: Source,
    n: u64,
    at: Instant,
    note: Arc<Note>,
}

struct Reached {
    next: u64,
    at: Instant,
}

impl Ring {
    /// One more; one that came before is passed over.
    pub(super) fn add(&mut self, source: Source, n: u64, note: Arc<Note>) {
        let at = Instant::now();
        let reached = self.heard.entry(source).or_insert(Reached { next: 0, at });
        if n < reached.next {
            return;
        }
        *reached = Reached { next: n + 1, at };
        self.notes.push_back(Kept {
            source,
            n,
            at,
            note,
        });
        let is_old = |kept: &Kept| at.duration_since(kept.at) > KEPT.1;
        while self.notes.len() > KEPT.0 || self.notes.front().is_some_and(is_old) {
            self.notes.pop_front();
            self.first += 1;
        }
    }

    /// A process says how far it has come. What of that did not come here is lost.
    pub(super) fn reached(&mut self, source: Source, next: u64) {
        let at = Instant::now();
        let reached = self.heard.entry(source).or_insert(Reached { next, at });
        reached.next = reached.next.max(next);
        reached.at = at;
        self.heard
            .retain(|_, reached| at.duration_since(reached.at) < FORGOTTEN);
    }

    fn end(&self) -> u64 {
        self.first + self.notes.len() as u64
    }

    fn get(&self, at: u64) -> Option<&Kept> {
        let index = at.checked_sub(self.first)?;
        self.notes.get(usize::try_from(index).ok()?)
    }
}

/// What a reader is told.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Told {
    Note(Arc<Note>),
    /// Something may be missing here.
    Gap,
}

/// One who reads a ring.
pub(super) struct Reader {
    at: u64,
    cursor: Cursor,
    /// Whether it began here, and has missed nothing of processes that it meets.
    is_fresh: bool,
    is_gap: bool,
}

impl Reader {
    /// From a place on, or from now.
    pub(super) fn new(ring: &Ring, after: Option<Cursor>) -> Self {
        let Some(cursor) = after else {
            let mut cursor = Cursor::default();
            for (source, reached) in &ring.heard {
                if reached.at.elapsed() < SILENCE {
                    cursor.set(*source, reached.next);
                }
            }
            return Self {
                at: ring.end(),
                cursor,
                is_fresh: true,
                is_gap: false,
            };
        };
        // Of whom nothing is known here, nobody can say what was missed.
        let is_gap = cursor
            .sources()
            .any(|source| !ring.heard.contains_key(&source));
        Self {
            at: ring.first,
            cursor,
            is_fresh: false,
            is_gap,
        }
    }

    /// What is next, if anything is.
    pub(super) fn next(&mut self, ring: &Ring) -> Option<Told> {
        if std::mem::take(&mut self.is_gap) {
            self.cursor.keep(|source| ring.heard.contains_key(&source));
            return Some(Told::Gap);
        }
        // Who was too slow finds what is missing by its number.
        self.at = self.at.max(ring.first);
        while let Some(kept) = ring.get(self.at) {
            let otherwise = if self.is_fresh { kept.n } else { 0 };
            let expected = self.cursor.get(kept.source).unwrap_or(otherwise);
            if kept.n > expected {
                self.cursor.set(kept.source, kept.n);
                return Some(Told::Gap);
            }
            self.at += 1;
            if kept.n == expected {
                self.cursor.set(kept.source, kept.n + 1);
                return Some(Told::Note(kept.note.clone()));
            }
        }
        self.lost(ring).then_some(Told::Gap)
    }

    /// Whether something happened that did not come here.
    fn lost(&mut self, ring: &Ring) -> bool {
        let mut is_lost = false;
        for (source, reached) in &ring.heard {
            let known = self.cursor.get(*source);
            if known.is_none() && reached.at.elapsed() >= SILENCE {
                continue;
            }
            let otherwise = if self.is_fresh { reached.next } else { 0 };
            let expected = known.unwrap_or(otherwise);
            is_lost |= expected < reached.next;
            self.cursor.set(*source, expected.max(reached.next));
        }
        is_lost
    }

    /// Where it is.
    pub(super) fn cursor(&self) -> &Cursor {
        &self.cursor
    }
}
