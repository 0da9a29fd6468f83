//! What a stand-in saw, in order of arrival, and a way to wait for more without polling.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;

/// An append-only list whose changes can be awaited.
#[derive(Debug)]
pub(crate) struct Log<T> {
    entries: Mutex<Vec<T>>,
    changed: watch::Sender<u64>,
}

impl<T> Default for Log<T> {
    fn default() -> Self {
        Self {
            entries: Mutex::default(),
            changed: watch::Sender::default(),
        }
    }
}

impl<T: Clone> Log<T> {
    /// Appends the entry that `make` builds from those before it. Returns what `make` returns beside it.
    pub(crate) fn append<R>(&self, make: impl FnOnce(&[T]) -> (T, R)) -> R {
        let mut entries = self.entries.lock().expect("no holder panics");
        let (entry, result) = make(&entries);
        entries.push(entry);
        drop(entries);
        self.changed.send_modify(|version| *version += 1);
        result
    }

    /// Appends several, that are seen together.
    pub(crate) fn extend(&self, more: impl IntoIterator<Item = T>) {
        let mut entries = self.entries.lock().expect("no holder panics");
        entries.extend(more);
        drop(entries);
        self.changed.send_modify(|version| *version += 1);
    }

    /// Changes the first entry that `which` picks, if it is still there.
    pub(crate) fn amend(&self, which: impl Fn(&T) -> bool, change: impl FnOnce(&mut T)) {
        let mut entries = self.entries.lock().expect("no holder panics");
        if let Some(entry) = entries.iter_mut().find(|entry| which(entry)) {
            change(entry);
        }
        drop(entries);
        self.changed.send_modify(|version| *version += 1);
    }

    /// Copies all entries.
    pub(crate) fn all(&self) -> Vec<T> {
        self.entries.lock().expect("no holder panics").clone()
    }

    /// Returns what `look` makes of the entries.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&[T]) -> R) -> R {
        look(&self.entries.lock().expect("no holder panics"))
    }

    /// Forgets all entries.
    pub(crate) fn clear(&self) {
        self.entries.lock().expect("no holder panics").clear();
        self.changed.send_modify(|version| *version += 1);
    }

    /// Waits until the entries are as `enough` wants them.
    pub(crate) async fn wait_until(&self, enough: impl Fn(&[T]) -> bool) {
        let mut changed = self.changed.subscribe();
        while !self.look(&enough) {
            changed.changed().await.expect("the sender is borrowed");
        }
    }
}

/// How a recorded call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It is still under way, or held at a barrier.
    Open,
    /// The whole answer was handed to the connection.
    Answered,
    /// The stand-in broke it off, as it was told to.
    Cut,
    /// The client went away before the answer was complete.
    Abandoned,
}

/// A log entry that has an outcome.
pub(crate) trait Entry {
    /// The number of the call, unique in its log.
    fn number(&self) -> usize;
    /// Where its outcome is kept.
    fn outcome_mut(&mut self) -> &mut Outcome;
}

/// Writes down how a call ended, also when its handler is simply dropped.
pub(crate) struct Fate<T: Entry + Clone> {
    log: Arc<Log<T>>,
    number: usize,
    outcome: Outcome,
}

impl<T: Entry + Clone> Fate<T> {
    /// Follows the call with this number. Unless told better, its client went away.
    pub(crate) fn of(log: Arc<Log<T>>, number: usize) -> Self {
        Self {
            log,
            number,
            outcome: Outcome::Abandoned,
        }
    }

    /// Settles how the call ended.
    pub(crate) fn settle(mut self, outcome: Outcome) {
        self.note(outcome);
    }

    /// Notes how the call is about to end, for a caller that may not come back.
    pub(crate) fn note(&mut self, outcome: Outcome) {
        self.outcome = outcome;
    }
}

impl<T: Entry + Clone> Drop for Fate<T> {
    fn drop(&mut self) {
        let outcome = self.outcome;
        let number = self.number;
        self.log.amend(
            |entry| entry.number() == number,
            |entry| *entry.outcome_mut() = outcome,
        );
    }
}
