//! How far each process was heard.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use domain::WorkerId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// The most processes of which a place speaks.
const MAX_SOURCES: usize = 256;

/// A process, by the beginning of a hash of its id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(super) struct Source(u64);

impl Source {
    pub(super) fn of(worker: &WorkerId) -> Self {
        let hash = Sha256::digest(worker.as_str().as_bytes());
        let first = hash.iter().take(6);
        Self(first.fold(0, |sum, byte| sum << 8 | u64::from(*byte)))
    }
}

/// A place in everything that happens: the number of the next note of each process. Written as pairs of hexadecimal
/// numbers, `1f03c2a9b0d4.2a-…`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Cursor(BTreeMap<Source, u64>);

impl Cursor {
    pub(super) fn get(&self, source: Source) -> Option<u64> {
        self.0.get(&source).copied()
    }

    pub(super) fn set(&mut self, source: Source, next: u64) {
        self.0.insert(source, next);
    }

    pub(super) fn sources(&self) -> impl Iterator<Item = Source> {
        self.0.keys().copied()
    }

    pub(super) fn keep(&mut self, is_known: impl Fn(Source) -> bool) {
        self.0.retain(|source, _| is_known(*source));
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (number, (source, next)) in self.0.iter().enumerate() {
            let dash = if number == 0 { "" } else { "-" };
            write!(f, "{dash}{:x}.{next:x}", source.0)?;
        }
        Ok(())
    }
}

impl FromStr for Cursor {
    type Err = String;
    fn from_str(s: &str) -> Result<Self, String> {
        let pair = |text: &str| {
            let (source, next) = text.split_once('.')?;
            let number = |text| u64::from_str_radix(text, 16).ok();
            Some((Source(number(source)?), number(next)?))
        };
        let pairs: Option<BTreeMap<_, _>> = s.split('-').take(MAX_SOURCES).map(pair).collect();
        pairs.map(Self).ok_or_else(|| {
            let start: String = s.chars().take(40).collect();
            format!("{start:?} is not an event id of this stream; it looks like 1f03c2a9b0d4.2a")
        })
    }
}
