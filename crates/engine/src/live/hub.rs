//! The executions that are performed or watched in this process.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::{ExecutionId, Seq, Step};
use tokio::sync::Notify;

use super::board::Board;
use super::pieces::{Mark, Part, Piece, Pieces, Taken};
use super::telling::Telling;
use crate::leases::Lease;

/// All boards of this process.
#[derive(Default)]
pub(crate) struct Hub {
    boards: Mutex<HashMap<ExecutionId, Arc<Board>>>,
    /// Who elsewhere wants to hear what is said here.
    pub(super) telling: Arc<Telling>,
    /// What others are to be asked for at once.
    unheard: Mutex<BTreeSet<ExecutionId>>,
    pub(super) to_ask: Notify,
}

impl Hub {
    /// A run begins here.
    pub(crate) fn start(&self, id: ExecutionId, lease: Arc<Lease>) -> Arc<LiveRun> {
        let mut boards = self.boards();
        let board = boards.entry(id).or_insert_with(|| Arc::new(Board::new()));
        let run = Arc::new(LiveRun::new(id, lease, board.clone(), self.telling.clone()));
        board.set_run(run.clone());
        drop(boards);
        self.telling.changed(&run);
        run
    }

    /// It ended here.
    pub(crate) fn end(&self, id: ExecutionId, run: &Arc<LiveRun>) {
        run.ended.store(true, Ordering::Release);
        let mut boards = self.boards();
        if run.board.end_run(run)
            && boards
                .get(&id)
                .is_some_and(|it| Arc::ptr_eq(it, &run.board))
        {
            boards.remove(&id);
        }
        let is_watched = boards.contains_key(&id);
        drop(boards);
        if is_watched {
            self.ask(id);
        }
    }

    /// The board of an execution, for one who watches it.
    pub(super) fn enter(self: &Arc<Self>, id: ExecutionId) -> Seat {
        let mut boards = self.boards();
        let board = boards.entry(id).or_insert_with(|| Arc::new(Board::new()));
        let board = board.clone();
        let is_unheard = board.enter();
        drop(boards);
        if is_unheard {
            self.ask(id);
        }
        Seat {
            hub: self.clone(),
            id,
            board,
        }
    }

    /// The run of an execution here.
    pub(super) fn run(&self, id: ExecutionId) -> Option<Arc<LiveRun>> {
        self.boards().get(&id)?.run()
    }

    /// Takes in what another process says of an execution. When something before it is missing, it is asked again.
    pub(super) fn hear(&self, id: ExecutionId, part: Part) {
        let board = self.boards().get(&id).cloned();
        if let Some(board) = board
            && board.take(part) == Taken::Hole
        {
            self.ask(id);
        }
    }

    /// What others are to be asked for: what was not asked for yet, or all that is watched.
    pub(super) fn wanted(&self, all: bool) -> Vec<(ExecutionId, Mark)> {
        let unheard = std::mem::take(&mut *self.unheard());
        let boards = self.boards();
        let wants = |(id, board): (&ExecutionId, &Arc<Board>)| Some((*id, board.wants()?));
        if all {
            return boards.iter().filter_map(wants).collect();
        }
        let asked = unheard.iter().filter_map(|id| boards.get_key_value(id));
        asked.filter_map(wants).collect()
    }

    fn ask(&self, id: ExecutionId) {
        self.unheard().insert(id);
        self.to_ask.notify_one();
    }

    fn boards(&self) -> MutexGuard<'_, HashMap<ExecutionId, Arc<Board>>> {
        self.boards.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unheard(&self) -> MutexGuard<'_, BTreeSet<ExecutionId>> {
        self.unheard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A watcher's place at a board; the board is there for as long as somebody has one.
pub(super) struct Seat {
    hub: Arc<Hub>,
    id: ExecutionId,
    pub(super) board: Arc<Board>,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut boards = self.hub.boards();
        if self.board.leave() {
            boards.remove(&self.id);
        }
    }
}

/// What a run shows to those who watch.
pub(crate) struct LiveRun {
    id: ExecutionId,
    lease: Arc<Lease>,
    now: Mutex<Pieces>,
    board: Arc<Board>,
    telling: Arc<Telling>,
    ended: AtomicBool,
}

impl LiveRun {
    fn new(id: ExecutionId, lease: Arc<Lease>, board: Arc<Board>, telling: Arc<Telling>) -> Self {
        // Tries are numbered on from the epoch, so that no two owners use the same number.
        let attempt = lease.epoch().get().saturating_mul(256);
        let now = Pieces::new(Seq::new(lease.last_committed()), attempt);
        Self {
            id,
            lease,
            now: Mutex::new(now),
            board,
            telling,
            ended: AtomicBool::new(false),
        }
    }

    /// Whether somebody in this process watches.
    pub(crate) fn is_watched(&self) -> bool {
        self.board.is_watched()
    }

    /// Steps up to this one are committed; these are the last of them, when somebody watches.
    pub(crate) fn committed(self: &Arc<Self>, seq: Seq, steps: &[Arc<Step>]) {
        self.board.keep(steps);
        self.change(|now| now.commit(seq));
    }

    pub(crate) fn model_call_begins(self: &Arc<Self>, seq: Seq) {
        self.change(|now| now.begin(seq));
    }

    pub(crate) fn text(self: &Arc<Self>, text: &str) {
        self.change(|now| now.push(Piece::Words(text.to_owned())));
    }

    pub(crate) fn tool_call(self: &Arc<Self>, tool: &str) {
        self.change(|now| now.push(Piece::Tool(tool.to_owned())));
    }

    pub(super) fn id(&self) -> ExecutionId {
        self.id
    }

    /// Whether nobody else can have the execution.
    pub(super) fn is_certain(&self) -> bool {
        self.lease.is_certain()
    }

    /// Whether another has it.
    pub(super) fn is_lost(&self) -> bool {
        self.lease.is_lost()
    }

    /// Whether nothing more is to be heard of it.
    pub(super) fn is_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(super) fn with<T>(&self, look: impl FnOnce(&Pieces) -> T) -> T {
        look(&self.now.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change(self: &Arc<Self>, how: impl FnOnce(&mut Pieces)) {
        how(&mut self.now.lock().unwrap_or_else(PoisonError::into_inner));
        self.board.tell();
        self.telling.changed(self);
    }
}
