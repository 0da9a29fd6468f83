//! Who elsewhere wants to hear what is said here, and what they were told.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{ExecutionId, Seq, WorkerId};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::hub::LiveRun;
use super::pieces::{Mark, Part, Pieces};

/// How long somebody is told who does not ask again.
const INTEREST: Duration = Duration::from_secs(6);
/// How many executions are told of at most, and to how many processes each.
const MAX_EXECUTIONS: usize = 50_000;
const MAX_LISTENERS: usize = 32;
/// About how many bytes of one execution are told at once.
const MOST: usize = 128 << 10;

/// What is told to whom.
#[derive(Default)]
pub(super) struct Telling {
    state: Mutex<State>,
    pub(super) to_tell: Notify,
}

#[derive(Default)]
struct State {
    /// Also of executions that are not performed here, or not yet.
    listeners: HashMap<ExecutionId, Vec<Listener>>,
    /// The runs that have something to tell.
    changed: BTreeMap<ExecutionId, Arc<LiveRun>>,
}

struct Listener {
    who: WorkerId,
    until: Instant,
    heard: Mark,
    committed: Seq,
    /// Is told something, be it that there is nothing new.
    waits: bool,
}

/// What is to be said, by who is to hear it.
pub(super) type Sayings = BTreeMap<WorkerId, Vec<(ExecutionId, Part)>>;

impl Telling {
    /// A run has something to tell, if somebody wants to hear it.
    pub(super) fn changed(&self, run: &Arc<LiveRun>) {
        let mut state = self.lock();
        if state.listeners.contains_key(&run.id()) {
            state.changed.insert(run.id(), run.clone());
            drop(state);
            self.to_tell.notify_one();
        }
    }

    /// Somebody wants to hear of an execution, and has heard so far. Told at once when it is performed here.
    pub(super) fn note(
        &self,
        id: ExecutionId,
        who: &WorkerId,
        heard: Mark,
        run: Option<Arc<LiveRun>>,
    ) {
        let until = Instant::now() + INTEREST;
        let mut state = self.lock();
        if state.listeners.len() >= MAX_EXECUTIONS && !state.listeners.contains_key(&id) {
            return;
        }
        let listeners = state.listeners.entry(id).or_default();
        let has_room = listeners.len() < MAX_LISTENERS;
        match listeners.iter_mut().find(|listener| listener.who == *who) {
            Some(known) => {
                known.until = until;
                known.heard = heard;
                known.waits = true;
            }
            None if has_room => listeners.push(Listener {
                who: who.clone(),
                until,
                heard,
                committed: Seq::new(0),
                waits: true,
            }),
            None => {}
        }
        if let Some(run) = run {
            state.changed.insert(id, run);
            drop(state);
            self.to_tell.notify_one();
        }
    }

    /// What is to be said now. What does not fit, or is not certain, is left for the next time; whether there is such.
    pub(super) fn say(&self) -> (Sayings, bool) {
        let mut sayings = Sayings::new();
        let mut state = self.lock();
        let State { listeners, changed } = &mut *state;
        let now = Instant::now();
        changed.retain(|id, run| {
            // Frozen, it may have been taken over: then its words do not count.
            if run.is_lost() {
                return false;
            }
            let Some(listeners) = listeners.get_mut(id) else {
                return false;
            };
            let is_silent = run.with(Pieces::is_empty);
            if !is_silent && !run.is_certain() {
                return !run.is_ended();
            }
            let mut is_rest = false;
            for listener in listeners.iter_mut().filter(|one| one.until > now) {
                let (part, whole) =
                    run.with(|pieces| (pieces.since(Some(listener.heard), MOST), pieces.mark()));
                is_rest |= Listener::after(&part) != whole;
                if listener.has_news(&part) {
                    listener.hears(&part);
                    let sayings = sayings.entry(listener.who.clone()).or_default();
                    sayings.push((*id, part));
                }
            }
            is_rest
        });
        let is_rest = !changed.is_empty();
        (sayings, is_rest)
    }

    /// Forgets who does not ask any more.
    pub(super) fn forget(&self) {
        let now = Instant::now();
        self.lock().listeners.retain(|_, listeners| {
            listeners.retain(|listener| listener.until > now);
            !listeners.is_empty()
        });
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Listener {
    /// How far it has heard after this.
    fn after(part: &Part) -> Mark {
        Mark {
            seq: part.seq,
            attempt: part.attempt,
            pieces: part.end(),
        }
    }

    fn has_news(&self, part: &Part) -> bool {
        self.waits || part.committed != self.committed || Self::after(part) != self.heard
    }

    fn hears(&mut self, part: &Part) {
        self.heard = Self::after(part);
        self.committed = part.committed;
        self.waits = false;
    }
}
