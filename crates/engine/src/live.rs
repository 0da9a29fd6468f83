//! Following an execution while it happens: the committed steps from the store, and the words of the running answer
//! from the run itself when it is in this process.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{ExecutionId, Seq, Step, StepBody};
use store::Store;
use tokio::sync::{Notify, watch};

use crate::leases::Lease;

/// How many steps are read at once.
const BATCH: usize = 100;
/// How often the store is asked when nothing tells of news, as it is for an execution in another process: often after
/// a step, for the next one may be near, and ever less often while nothing comes.
const POLL: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(500));
/// At which of the looks that find nothing it is asked whether anything can come: its end is a step as well, so only
/// who has all steps, or watches what is gone, would wait for nothing.
const ASK_EVERY: u32 = 16;
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
    pub(crate) fn start(&self, id: ExecutionId, lease: Arc<Lease>) -> Arc<LiveRun> {
        let run = Arc::new(LiveRun::new(lease));
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
    lease: Arc<Lease>,
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
    fn new(lease: Arc<Lease>) -> Self {
        // Tries are numbered on from the epoch, so that no two owners use the same number.
        let attempt = lease.epoch().get().saturating_mul(256);
        let now = Pieces {
            committed: Seq::new(lease.last_committed()),
            seq: Seq::new(0),
            attempt,
            events: Vec::new(),
            bytes: 0,
        };
        Self {
            lease,
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

/// How long to wait after so many looks that found nothing.
fn pause(idle: u32) -> Duration {
    POLL.0.saturating_mul(1 << idle.min(8)).min(POLL.1)
}

/// A running view of an execution.
pub struct Watch {
    store: Arc<dyn Store>,
    hub: Arc<Hub>,
    id: ExecutionId,
    after: Option<Position>,
    steps: VecDeque<Step>,
    over: bool,
    /// The run whose words were given last.
    heard: Option<Arc<LiveRun>>,
    cut: bool,
    /// How many looks into the store in a row have found nothing.
    idle: u32,
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
            heard: None,
            cut: false,
            idle: 0,
        }
    }

    /// Whether it ended because the run that it listened to lost its lease: what that one says counts no more. Where the
    /// execution goes on, nobody here knows; [`Watch::resume`] reads on in the journal, wherever that is.
    pub const fn is_cut(&self) -> bool {
        self.cut
    }

    /// Goes on after it was cut; tells whether it was.
    pub fn resume(&mut self) -> bool {
        self.heard = None;
        std::mem::take(&mut self.cut)
    }

    /// The next event; `None` after the last step, or when it is cut ([`Watch::is_cut`]). Can be dropped and called again without losing anything.
    ///
    /// # Errors
    /// The store can't be reached; calling again goes on where it was.
    pub async fn next(&mut self) -> Result<Option<LiveEvent>, store::Error> {
        loop {
            if let Some(step) = self.steps.pop_front() {
                self.over = matches!(step.body, StepBody::Finished { .. });
                return Ok(Some(self.seen(LiveEvent::Step(step))));
            }
            self.cut |= self.heard.as_ref().is_some_and(|run| run.lease.is_lost());
            if self.over || self.cut {
                return Ok(None);
            }
            let hub = self.hub.clone();
            let changed = hub.changed.notified();
            match hub.get(self.id) {
                Some(run) => {
                    self.heard = Some(run.clone());
                    if let Some(event) = self.piece_of(&run).await? {
                        return Ok(Some(event));
                    }
                }
                None => {
                    self.heard = None;
                    self.read().await?;
                    if !self.steps.is_empty() {
                        self.idle = 0;
                        continue;
                    }
                    if self.idle.is_multiple_of(ASK_EVERY) && self.is_over().await? {
                        return Ok(None);
                    }
                    tokio::select! {
                        () = changed => {}
                        () = tokio::time::sleep(pause(self.idle)) => {}
                    }
                    self.idle = self.idle.saturating_add(1);
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
        // Words of a run that may have been taken over wait until it is known that they count.
        if let Some(piece) = piece.filter(|_| run.lease.is_certain()) {
            return Ok(Some(self.seen(piece)));
        }
        tokio::select! {
            _ = version.changed() => {}
            () = tokio::time::sleep(POLL.1) => {}
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
