//! Following an execution while it happens: the committed steps from the store, and the words of the running answer
//! from the run itself when it is in this process.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{Epoch, ExecutionId, Seq, Step, StepBody};
use store::Store;
use tokio::sync::{Notify, watch};

/// How many steps are read at once.
const BATCH: usize = 100;
/// How often the store is asked when nothing tells of news: the execution may be in another process.
const POLL: Duration = Duration::from_millis(500);
/// How many bytes of a running answer are kept for those who watch; beyond it they get the whole step at the end.
const MAX_PIECES_BYTES: usize = 1 << 20;

/// Something that a watcher of an execution sees.
#[derive(Debug, Clone, PartialEq)]
pub enum LiveEvent {
    /// A step is committed; pieces of the answer that it holds can be dropped.
    Step(Step),
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
    /// The pieces of the answer so far are void: the model call is made again.
    Supersede {
        /// The try that begins.
        position: Position,
    },
}

/// A place in what a watcher sees, written `seq` for a step and `seq.attempt.n` for a piece of the answer that will
/// become that step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Position {
    /// The step.
    pub seq: Seq,
    /// The try and the number of the piece, from 0; none for the step itself.
    pub piece: Option<(u32, u32)>,
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
            [seq] => Ok(Self {
                seq: Seq::new(*seq),
                piece: None,
            }),
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
    pub const fn position(&self) -> Position {
        match self {
            Self::Step(step) => Position {
                seq: step.seq,
                piece: None,
            },
            Self::Delta { position, .. }
            | Self::ToolCallBegins { position, .. }
            | Self::Supersede { position } => *position,
        }
    }
}

/// The runs of this process that can be watched.
#[derive(Default)]
pub(crate) struct Hub {
    runs: Mutex<HashMap<ExecutionId, Arc<LiveRun>>>,
    changed: Notify,
}

impl Hub {
    pub(crate) fn start(&self, id: ExecutionId, epoch: Epoch, committed: u32) -> Arc<LiveRun> {
        let run = Arc::new(LiveRun::new(epoch, committed));
        self.lock().insert(id, run.clone());
        self.changed.notify_waiters();
        run
    }

    pub(crate) fn end(&self, id: ExecutionId, run: &Arc<LiveRun>) {
        let mut runs = self.lock();
        if runs
            .get(&id)
            .is_some_and(|current| Arc::ptr_eq(current, run))
        {
            runs.remove(&id);
        }
        drop(runs);
        run.version.send_modify(|version| *version += 1);
        self.changed.notify_waiters();
    }

    fn get(&self, id: ExecutionId) -> Option<Arc<LiveRun>> {
        self.lock().get(&id).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<ExecutionId, Arc<LiveRun>>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a run shows to those who watch.
pub(crate) struct LiveRun {
    now: Mutex<Pieces>,
    version: watch::Sender<u64>,
}

struct Pieces {
    committed: Seq,
    seq: Seq,
    attempt: u32,
    events: Vec<LiveEvent>,
    bytes: usize,
}

impl LiveRun {
    fn new(epoch: Epoch, committed: u32) -> Self {
        // Tries are numbered on from the epoch, so that no two owners use the same number.
        let attempt = epoch.get().saturating_mul(256);
        let now = Pieces {
            committed: Seq::new(committed),
            seq: Seq::new(0),
            attempt,
            events: Vec::new(),
            bytes: 0,
        };
        Self {
            now: Mutex::new(now),
            version: watch::Sender::new(0),
        }
    }

    pub(crate) fn committed(&self, seq: Seq) {
        let mut now = self.lock();
        now.committed = seq;
        now.events.clear();
        now.bytes = 0;
        drop(now);
        self.tell();
    }

    pub(crate) fn model_call_begins(&self, seq: Seq) {
        let mut now = self.lock();
        if now.seq == seq {
            now.attempt = now.attempt.saturating_add(1);
        }
        now.seq = seq;
        now.events.clear();
        now.bytes = 0;
        drop(now);
        self.tell();
    }

    pub(crate) fn text(&self, text: &str) {
        self.piece(text.len(), |position| LiveEvent::Delta {
            position,
            text: text.to_owned(),
        });
    }

    pub(crate) fn tool_call(&self, tool: &str) {
        self.piece(tool.len(), |position| LiveEvent::ToolCallBegins {
            position,
            tool: tool.to_owned(),
        });
    }

    fn piece(&self, bytes: usize, make: impl FnOnce(Position) -> LiveEvent) {
        let mut now = self.lock();
        if now.bytes + bytes > MAX_PIECES_BYTES {
            return;
        }
        let n = u32::try_from(now.events.len()).unwrap_or(u32::MAX);
        let position = Position {
            seq: now.seq,
            piece: Some((now.attempt, n)),
        };
        now.bytes += bytes;
        now.events.push(make(position));
        drop(now);
        self.tell();
    }

    /// The last committed step, and the next piece after `after`.
    fn view(&self, after: Option<Position>) -> (Seq, Option<LiveEvent>) {
        let now = self.lock();
        let same_step = after
            .filter(|position| position.seq == now.seq)
            .and_then(|position| position.piece);
        let next = match same_step {
            Some((attempt, n)) if attempt == now.attempt => now.events.get(n as usize + 1).cloned(),
            Some(_) if now.events.is_empty() => None,
            // Another try: what was heard of the earlier one is void. Position -1 cannot be written, so the number
            // of the supersede event is the highest one, and what follows begins at 0 again.
            Some((_, u32::MAX)) => now.events.first().cloned(),
            Some(_) => {
                let position = Position {
                    seq: now.seq,
                    piece: Some((now.attempt.wrapping_sub(1), u32::MAX)),
                };
                Some(LiveEvent::Supersede { position })
            }
            None => now.events.first().cloned(),
        };
        (now.committed, next)
    }

    fn tell(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    fn lock(&self) -> MutexGuard<'_, Pieces> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A running view of an execution.
pub struct Watch {
    store: Arc<dyn Store>,
    hub: Arc<Hub>,
    id: ExecutionId,
    after: Option<Position>,
    steps: VecDeque<Step>,
    over: bool,
}

impl Watch {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        hub: Arc<Hub>,
        id: ExecutionId,
        after: Option<Position>,
    ) -> Self {
        Self {
            store,
            hub,
            id,
            after,
            steps: VecDeque::new(),
            over: false,
        }
    }

    /// The next event; `None` after the last step. Can be dropped and called again without losing anything.
    ///
    /// # Errors
    /// The store can't be reached; calling again goes on where it was.
    pub async fn next(&mut self) -> Result<Option<LiveEvent>, store::Error> {
        loop {
            if let Some(step) = self.steps.pop_front() {
                self.over = matches!(step.body, StepBody::Finished { .. });
                return Ok(Some(self.seen(LiveEvent::Step(step))));
            }
            if self.over {
                return Ok(None);
            }
            let hub = self.hub.clone();
            let changed = hub.changed.notified();
            match hub.get(self.id) {
                Some(run) => {
                    if let Some(event) = self.piece_of(&run).await? {
                        return Ok(Some(event));
                    }
                }
                None => {
                    self.read().await?;
                    if self.steps.is_empty() {
                        if self.is_over().await? {
                            return Ok(None);
                        }
                        tokio::select! {
                            () = changed => {}
                            () = tokio::time::sleep(POLL) => {}
                        }
                    }
                }
            }
        }
    }

    /// The next piece of a run in this process; `None` after reading steps or waiting.
    async fn piece_of(&mut self, run: &LiveRun) -> Result<Option<LiveEvent>, store::Error> {
        let mut version = run.version.subscribe();
        let (committed, piece) = run.view(self.after);
        if committed > self.last_step() {
            self.read().await?;
            return Ok(None);
        }
        if let Some(piece) = piece {
            return Ok(Some(self.seen(piece)));
        }
        tokio::select! {
            _ = version.changed() => {}
            () = tokio::time::sleep(POLL) => {}
        }
        Ok(None)
    }

    /// Whether nothing can come any more; asked when nothing came, so after the last step was read.
    async fn is_over(&self) -> Result<bool, store::Error> {
        let row = self.store.execution(self.id).await?;
        Ok(row.is_none_or(|row| row.finished_at.is_some() && row.steps <= self.last_step().get()))
    }

    async fn read(&mut self) -> Result<(), store::Error> {
        self.steps = self
            .store
            .steps(self.id, Some(self.last_step()), BATCH)
            .await?
            .into();
        Ok(())
    }

    /// The last step that was seen whole.
    fn last_step(&self) -> Seq {
        match self.after {
            None => Seq::new(0),
            Some(Position { seq, piece: None }) => seq,
            Some(Position {
                seq,
                piece: Some(_),
            }) => Seq::new(seq.get().saturating_sub(1)),
        }
    }

    fn seen(&mut self, event: LiveEvent) -> LiveEvent {
        self.after = Some(event.position());
        event
    }
}
