//! Everything that happens, for whoever looks at all of it: a copy in memory of the last minutes, in every process.
//!
//! Each process numbers what it notes. While somebody looks, wherever, all processes whisper their notes to all, and each
//! keeps them for a while, so that a reader goes on at any of them: a place is how far each process was heard. A number
//! that is missing is a gap, and told. Nothing here is durable; what happened is in journals.
//!
//! - [`ring`] keeps notes, and tells a reader what is next. Pure.
//! - [`cursor`] is a reader's place.
//! - [`spread`] carries notes between processes.

mod cursor;
mod ring;
mod spread;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use domain::{AgentName, Event, EventId, Execution, ExecutionId, Seq, Status, Step, StepBody};
use domain::{Time, Topic, TraceId, WorkerId};
use serde::{Deserialize, Serialize};
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use self::cursor::{Cursor, Source};
use self::ring::{Reader, Ring, Told};

pub(crate) use spread::start;

/// How long others are told of what happens here who do not ask again.
const INTEREST: Duration = Duration::from_secs(6);
/// How long the others are asked after the last reader left: who comes back soon missed nothing.
const LINGER: Duration = Duration::from_secs(60);
/// How many notes wait to be told to others.
const WAITING: usize = 4096;

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Note {
    /// When, by the clock of the process that noted it.
    pub at: Time,
    /// Whose, when it is an agent's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent_name: Option<AgentName>,
    /// In which execution.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub execution_id: Option<ExecutionId>,
    /// In which trace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trace_id: Option<TraceId>,
    /// What.
    #[serde(flatten)]
    pub what: Happened,
}

/// What happened. Structure, not words: those are in journals.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Happened {
    /// An execution is in another state.
    Execution {
        /// Which.
        status: Status,
    },
    /// A step was committed.
    Step {
        /// Its place.
        seq: Seq,
        /// Its kind.
        kind: String,
        /// The tool that it is about.
        #[serde(skip_serializing_if = "Option::is_none")]
        tool: Option<String>,
    },
    /// An event was published.
    Event {
        /// Its id.
        event_id: EventId,
        /// Its topic.
        topic: Topic,
        /// Who says so.
        source: String,
    },
}

/// What a reader of everything is told.
#[derive(Debug, Clone, PartialEq)]
pub enum FeedEvent {
    /// Something happened.
    Note(Arc<Note>),
    /// Something may have been missed.
    Gap,
}

/// What this process knows of what happens everywhere.
pub(crate) struct Feed {
    me: Source,
    state: Mutex<State>,
    version: watch::Sender<u64>,
    to_tell: Notify,
    to_ask: Notify,
}

struct State {
    ring: Ring,
    /// The number of this process's next note.
    next: u64,
    /// Until when others want to hear of it.
    wanted: Option<Instant>,
    readers: usize,
    /// When the last reader left.
    left: Option<Instant>,
    /// What the others were not told yet.
    waiting: Vec<Numbered>,
    /// Whether somebody asked how far this process has come.
    is_asked: bool,
}

/// A note with its place in what its process notes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Numbered {
    n: u64,
    note: Arc<Note>,
}

impl State {
    /// Whether somebody looks here, or did a moment ago.
    fn looks(&self) -> bool {
        self.readers > 0 || self.left.is_some_and(|at| at.elapsed() < LINGER)
    }

    fn is_wanted(&self) -> bool {
        self.wanted.is_some_and(|until| Instant::now() < until)
    }
}

impl Feed {
    pub(crate) fn new(worker: &WorkerId) -> Self {
        Self {
            me: Source::of(worker),
            state: Mutex::new(State {
                ring: Ring::default(),
                next: 0,
                wanted: None,
                readers: 0,
                left: None,
                waiting: Vec::new(),
                is_asked: false,
            }),
            version: watch::Sender::new(0),
            to_tell: Notify::new(),
            to_ask: Notify::new(),
        }
    }

    /// Notes what happened to an execution. `make` is called only when somebody looks.
    pub(crate) fn of(
        &self,
        execution: &Execution,
        at: Time,
        count: usize,
        make: impl FnOnce() -> Vec<Happened>,
    ) {
        self.note(count, || {
            let note = |what| Note {
                at,
                agent_name: Some(execution.agent.clone()),
                execution_id: Some(execution.id),
                trace_id: Some(execution.trace_id.clone()),
                what,
            };
            make().into_iter().map(note).collect()
        });
    }

    /// Notes an event that went out.
    pub(crate) fn event(&self, event: &Event) {
        self.note(1, || {
            let text = |name: &str| event.data.get(name).and_then(serde_json::Value::as_str);
            // What others publish may name any agent.
            let is_own = domain::event::topics::is_own(&event.topic);
            let own = |name| text(name).filter(|_| is_own);
            vec![Note {
                at: event.time,
                agent_name: own("agent_name").and_then(|name| name.parse().ok()),
                execution_id: own("execution_id").and_then(|id| id.parse().ok()),
                trace_id: Some(event.trace_id.clone()),
                what: Happened::Event {
                    event_id: event.id.clone(),
                    topic: event.topic.clone(),
                    source: event.source.clone(),
                },
            }]
        });
    }

    /// Takes a number for each, whether anybody looks or not: so one who comes back knows what was missed.
    fn note(&self, count: usize, make: impl FnOnce() -> Vec<Note>) {
        let mut state = self.lock();
        let first = state.next;
        state.next += count as u64;
        let (looks, is_wanted) = (state.looks(), state.is_wanted());
        if !looks && !is_wanted {
            return;
        }
        for (n, note) in (first..state.next).zip(make()) {
            let note = Arc::new(note);
            state.ring.add(self.me, n, note.clone());
            if is_wanted && state.waiting.len() < WAITING {
                state.waiting.push(Numbered { n, note });
            }
        }
        drop(state);
        self.tell();
        if is_wanted {
            self.to_tell.notify_one();
        }
    }

    /// One more looks, from a place on, or from now.
    pub(crate) fn look(self: &Arc<Self>, after: Option<Cursor>) -> FeedWatch {
        let mut state = self.lock();
        state.readers += 1;
        let next = state.next;
        state.ring.reached(self.me, next);
        let reader = Reader::new(&state.ring, after);
        drop(state);
        self.to_ask.notify_one();
        FeedWatch {
            feed: self.clone(),
            reader,
        }
    }

    fn tell(&self) {
        self.version.send_modify(|version| *version += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reader of everything.
pub struct FeedWatch {
    feed: Arc<Feed>,
    reader: Reader,
}

impl FeedWatch {
    /// What happens next. Can be dropped and called again without losing anything.
    pub async fn next(&mut self) -> FeedEvent {
        let mut version = self.feed.version.subscribe();
        loop {
            version.mark_unchanged();
            let told = self.reader.next(&self.feed.lock().ring);
            match told {
                Some(Told::Note(note)) => return FeedEvent::Note(note),
                Some(Told::Gap) => return FeedEvent::Gap,
                // The sender lives as long as the feed.
                None => drop(version.changed().await),
            }
        }
    }

    /// Where it is now, to go on after, at any process.
    pub fn place(&self) -> String {
        self.reader.cursor().to_string()
    }
}

impl Drop for FeedWatch {
    fn drop(&mut self) {
        let mut state = self.feed.lock();
        state.readers = state.readers.saturating_sub(1);
        state.left = Some(Instant::now());
    }
}

/// What there is to say of a step.
pub(crate) fn of_step(step: &Step) -> Happened {
    let tool = match &step.body {
        StepBody::ToolIntent(intent) => Some(intent.tool.clone()),
        _ => None,
    };
    Happened::Step {
        seq: step.seq,
        kind: step.body.kind().to_owned(),
        tool,
    }
}
