//! What is known here of one execution that is performed or watched here.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{ExecutionId, Seq, Step};
use store::Store;
use tokio::sync::watch;
use tokio::time::Instant;

use super::LiveEvent;
use super::hub::LiveRun;
use super::pieces::{Mark, Part, Pieces, Taken};
use super::reader::Reader;

/// How many steps are read at once.
const BATCH: usize = 16;
/// How many of the last ones are kept for all who watch: the store is asked once for a thousand of them.
const RECENT: usize = 8;
/// Who was heard that long ago is heard still, if alive: each question is answered, and they are asked more often.
const SILENCE: Duration = Duration::from_secs(5);

/// Where those who watch an execution look.
pub(super) struct Board {
    version: watch::Sender<u64>,
    state: Mutex<State>,
    recent: Mutex<Recent>,
    /// Held by whoever reads the store for all.
    reading: tokio::sync::Mutex<()>,
}

struct State {
    /// Its run in this process.
    run: Option<Arc<LiveRun>>,
    /// What another process says.
    elsewhere: Pieces,
    heard: Option<Instant>,
    watchers: usize,
}

/// The steps that were read last, and when nothing was found after them.
#[derive(Default)]
struct Recent {
    steps: VecDeque<Arc<Step>>,
    nothing: Option<(Seq, Instant)>,
}

/// What a look at a board gives.
pub(super) enum Look {
    /// More of the answer under way.
    Heard(LiveEvent),
    /// There are steps to read.
    Committed,
    /// Nothing; the run is in this process, and tells.
    Here,
    /// Nothing; the run is in another process, which tells.
    Elsewhere,
    /// Nothing, and nobody would tell.
    Silent,
}

impl Board {
    pub(super) fn new() -> Self {
        Self {
            version: watch::Sender::new(0),
            state: Mutex::new(State {
                run: None,
                elsewhere: Pieces::new(Seq::new(0), 0),
                heard: None,
                watchers: 0,
            }),
            recent: Mutex::default(),
            reading: tokio::sync::Mutex::default(),
        }
    }

    /// Tells those who watch that there may be something.
    pub(super) fn tell(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    /// Hears when there may be something, from now on.
    pub(super) fn ear(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    pub(super) fn set_run(&self, run: Arc<LiveRun>) {
        self.lock().run = Some(run);
        self.tell();
    }

    /// Its run ended. Whether the board is of no more use.
    pub(super) fn end_run(&self, run: &Arc<LiveRun>) -> bool {
        let mut state = self.lock();
        if state.run.as_ref().is_some_and(|it| Arc::ptr_eq(it, run)) {
            state.run = None;
        }
        let is_over = state.is_over();
        drop(state);
        self.tell();
        is_over
    }

    /// One more watches. Whether others are to be asked.
    pub(super) fn enter(&self) -> bool {
        let mut state = self.lock();
        state.watchers += 1;
        state.watchers == 1 && state.run().is_none()
    }

    /// One less. Whether the board is of no more use.
    pub(super) fn leave(&self) -> bool {
        let mut state = self.lock();
        state.watchers = state.watchers.saturating_sub(1);
        state.is_over()
    }

    /// The run of this process that owns the execution, for all it knows.
    pub(super) fn run(&self) -> Option<Arc<LiveRun>> {
        self.lock().run()
    }

    /// How far it was heard elsewhere, when that is of interest.
    pub(super) fn wants(&self) -> Option<Mark> {
        let state = self.lock();
        let is_wanted = state.watchers > 0 && state.run().is_none();
        is_wanted.then(|| state.elsewhere.mark())
    }

    /// Takes in what another process says.
    pub(super) fn take(&self, part: Part) -> Taken {
        let mut state = self.lock();
        state.heard = Some(Instant::now());
        let before = (state.elsewhere.committed(), state.elsewhere.mark());
        let taken = state.elsewhere.take(part);
        let is_new = before != (state.elsewhere.committed(), state.elsewhere.mark());
        drop(state);
        if is_new {
            self.tell();
        }
        taken
    }

    /// What there is for a reader.
    pub(super) fn look(&self, reader: &mut Reader) -> Look {
        let state = self.lock();
        let Some(run) = state.run() else {
            let is_heard = state.heard.is_some_and(|at| at.elapsed() < SILENCE);
            let otherwise = if is_heard {
                Look::Elsewhere
            } else {
                Look::Silent
            };
            return look(&state.elsewhere, reader, true).unwrap_or(otherwise);
        };
        drop(state);
        // Words of a run that may have been taken over wait until it is known that they count.
        let is_certain = run.is_certain();
        run.with(|pieces| look(pieces, reader, is_certain))
            .unwrap_or(Look::Here)
    }

    /// The steps after `after`: from the store, once for all who ask at the same time.
    ///
    /// # Errors
    /// The store can't be reached.
    pub(super) async fn steps(
        &self,
        store: &dyn Store,
        id: ExecutionId,
        after: Seq,
    ) -> store::Result<Vec<Arc<Step>>> {
        let found = self.recent().after(after);
        if !found.is_empty() {
            return Ok(found);
        }
        let asked = Instant::now();
        let _alone = self.reading.lock().await;
        if let Some(known) = self.recent().since(asked, after) {
            return Ok(known);
        }
        let began = Instant::now();
        let steps = store.steps(id, Some(after), BATCH).await?;
        let steps: Vec<_> = steps.into_iter().map(Arc::new).collect();
        let mut recent = self.recent();
        recent.nothing = steps.is_empty().then_some((after, began));
        recent.keep(&steps);
        Ok(steps)
    }

    /// Whether somebody watches.
    pub(super) fn is_watched(&self) -> bool {
        self.lock().watchers > 0
    }

    /// Keeps steps that were committed here, so that those who watch need not read them.
    pub(super) fn keep(&self, steps: &[Arc<Step>]) {
        self.recent().keep(steps);
    }

    fn recent(&self) -> MutexGuard<'_, Recent> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn look(pieces: &Pieces, reader: &mut Reader, is_certain: bool) -> Option<Look> {
    if pieces.committed() > reader.last_step() {
        return Some(Look::Committed);
    }
    let event = is_certain.then(|| reader.hear(pieces)).flatten();
    event.map(Look::Heard)
}

impl State {
    fn run(&self) -> Option<Arc<LiveRun>> {
        self.run.clone().filter(|run| !run.is_lost())
    }

    fn is_over(&self) -> bool {
        self.run.is_none() && self.watchers == 0
    }
}

impl Recent {
    /// What somebody else found who looked after `asked`: steps, or that there are none.
    fn since(&self, asked: Instant, after: Seq) -> Option<Vec<Arc<Step>>> {
        let found = self.after(after);
        let is_none = |(of, at): (Seq, Instant)| of == after && at >= asked;
        (!found.is_empty() || self.nothing.is_some_and(is_none)).then_some(found)
    }

    fn after(&self, after: Seq) -> Vec<Arc<Step>> {
        // Only without a hole.
        let first = self.steps.front().map(|step| step.seq);
        if first.is_none_or(|first| first > after.plus(1)) {
            return Vec::new();
        }
        let later = self.steps.iter().filter(|step| step.seq > after);
        later.cloned().collect()
    }

    /// Keeps the end of them; one who reads what is long past changes nothing.
    fn keep(&mut self, steps: &[Arc<Step>]) {
        for step in steps {
            match self.steps.back() {
                Some(last) if step.seq <= last.seq => continue,
                Some(last) if step.seq > last.seq.plus(1) => self.steps.clear(),
                _ => {}
            }
            self.steps.push_back(step.clone());
            if self.steps.len() > RECENT {
                self.steps.pop_front();
            }
        }
    }
}
