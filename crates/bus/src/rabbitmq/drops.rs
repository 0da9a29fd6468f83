//! How often this process let an event go without a word.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// As many events are remembered, or twice that.
const GENERATION: usize = 10_000;

/// Counts by queue and event id.
///
/// The broker counts returns as well, but not only these: when a connection is lost, everything that waited on it
/// counts as returned, though no consumer ever saw it. An event must not be given up for that.
#[derive(Debug, Default)]
pub(super) struct Drops(Mutex<Generations>);

#[derive(Debug, Default)]
struct Generations {
    young: HashMap<Key, u32>,
    old: HashMap<Key, u32>,
}

type Key = (String, String);

impl Drops {
    /// How often it was let go.
    pub(super) fn of(&self, queue: &str, id: &str) -> u32 {
        let drops = self.lock();
        if drops.young.is_empty() && drops.old.is_empty() {
            return 0;
        }
        let key = (queue.to_owned(), id.to_owned());
        let count = drops.young.get(&key).or_else(|| drops.old.get(&key));
        count.copied().unwrap_or(0)
    }

    /// Counts one more.
    pub(super) fn count(&self, queue: &str, id: &str) {
        let mut drops = self.lock();
        let key = (queue.to_owned(), id.to_owned());
        let before = drops.old.remove(&key).unwrap_or(0);
        *drops.young.entry(key).or_insert(before) += 1;
        if drops.young.len() >= GENERATION {
            drops.old = std::mem::take(&mut drops.young);
        }
    }

    /// Forgets one that was settled.
    pub(super) fn forget(&self, queue: &str, id: &str) {
        let mut drops = self.lock();
        if drops.young.is_empty() && drops.old.is_empty() {
            return;
        }
        let key = (queue.to_owned(), id.to_owned());
        drops.young.remove(&key);
        drops.old.remove(&key);
    }

    fn lock(&self) -> MutexGuard<'_, Generations> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_kept_apart_and_forgotten() {
        let drops = Drops::default();
        drops.count("q", "1");
        drops.count("q", "1");
        drops.count("r", "1");
        assert_eq!(
            (drops.of("q", "1"), drops.of("r", "1"), drops.of("q", "2")),
            (2, 1, 0)
        );
        drops.forget("q", "1");
        assert_eq!((drops.of("q", "1"), drops.of("r", "1")), (0, 1));
    }

    #[test]
    fn a_flood_does_not_grow_it_without_bound() {
        let drops = Drops::default();
        for n in 0..5 * GENERATION {
            drops.count("q", &n.to_string());
            drops.count("q", "again");
        }
        assert_eq!(
            drops.of("q", "again"),
            u32::try_from(5 * GENERATION).unwrap()
        );
        let held = drops.lock();
        assert!(held.young.len() + held.old.len() <= 2 * GENERATION);
    }
}
