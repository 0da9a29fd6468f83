//! What the verbs about schedules are asked with, and what they answer.

use domain::{
    AgentName, ExecutionId, Schedule, ScheduleName, Status, Time,
    schedule::{Act, SkipReason},
};

use crate::Submission;

/// A schedule as it is kept.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleRecord {
    /// What it says.
    pub schedule: Schedule,
    /// Who may change it.
    pub managed_by: ManagedBy,
    /// Somebody has stopped it, whatever its definition says.
    pub is_paused: bool,
    /// Up to which fire time everything is done with.
    pub cursor: Time,
    /// When it is next to be looked at; none when nothing is to come, or it is not active.
    pub next_due: Option<Time>,
    /// Counts its changes, from 1.
    pub version: u64,
    /// When it was made.
    pub created_at: Time,
    /// When its definition or state was last changed by somebody.
    pub updated_at: Time,
}

impl ScheduleRecord {
    /// Whether it runs by itself: enabled, and not paused.
    pub const fn is_active(&self) -> bool {
        self.schedule.enabled && !self.is_paused
    }
}

/// Who may change a schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ManagedBy {
    /// The API.
    Api,
    /// The agent's file, relative to the folder of agents.
    File(String),
}

/// Which schedules.
#[derive(Debug, Clone, Default)]
pub struct ScheduleFilter {
    /// Of one agent.
    pub agent: Option<AgentName>,
    /// Only active ones, or only others.
    pub is_active: Option<bool>,
    /// Only those of files, or only those of the API.
    pub is_of_file: Option<bool>,
    /// Only names after this one.
    pub after: Option<ScheduleName>,
    /// How many at most.
    pub limit: usize,
}

/// A schedule with its latest run.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleRow {
    /// The schedule.
    pub record: ScheduleRecord,
    /// The run of the latest fire time.
    pub last_run: Option<ScheduleRun>,
}

/// What is to be looked at.
#[derive(Debug, Clone, Default)]
pub struct DueSchedules {
    /// Schedules that are due, whose waiting run can begin, or that are ahead of the clock.
    pub due: Vec<DueSchedule>,
    /// When the next one is due.
    pub next_due: Option<Time>,
    /// Whether runs wait for the one before, of schedules that are at work.
    pub runs_wait: bool,
}

/// A schedule to be looked at.
#[derive(Debug, Clone)]
pub struct DueSchedule {
    /// The schedule.
    pub record: ScheduleRecord,
    /// Its runs that wait, or were not over when it was last looked at; in order.
    pub open: Vec<OpenRun>,
}

/// A run that is not known to be over.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenRun {
    /// Which.
    pub fire_time: Time,
    /// Its execution; none while it waits.
    pub execution: Option<ExecutionId>,
    /// The execution is over by now.
    pub is_over: bool,
}

/// What a look at a schedule has come to.
#[derive(Debug, Clone)]
pub struct Firing {
    /// Which.
    pub name: ScheduleName,
    /// As it was seen: if it has been changed since, nothing is done.
    pub version: u64,
    /// Up to which fire time everything is done with then.
    pub cursor: Time,
    /// When it is next to be looked at.
    pub next_due: Option<Time>,
    /// Fire times and what becomes of them. One that has a row keeps it, and starts nothing.
    pub runs: Vec<NewRun>,
    /// Waiting runs and what becomes of them.
    pub waited: Vec<NewRun>,
    /// Runs that are over.
    pub over: Vec<Time>,
    /// The time.
    pub now: Time,
    /// Rows of older fire times may be forgotten.
    pub forget_before: Time,
}

/// A fire time and what becomes of it.
#[derive(Debug, Clone)]
pub struct NewRun {
    /// Which.
    pub fire_time: Time,
    /// Why it is a fire time.
    pub kind: RunKind,
    /// What becomes of it.
    pub fate: Fate,
}

/// Why a moment is a fire time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunKind {
    /// The schedule says so.
    Schedule,
    /// A person said so.
    Manual,
}

impl RunKind {
    /// The word in API and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Schedule => "schedule",
            Self::Manual => "manual",
        }
    }
}

impl std::str::FromStr for RunKind {
    type Err = String;
    fn from_str(word: &str) -> Result<Self, String> {
        [Self::Schedule, Self::Manual]
            .into_iter()
            .find(|kind| kind.as_str() == word)
            .ok_or_else(|| format!("{word:?} is no kind of run"))
    }
}

/// What becomes of a fire time: an [`Act`] with what it takes.
#[derive(Debug, Clone)]
pub enum Fate {
    /// Its execution is accepted, in the same transaction.
    Start(Box<Submission>),
    /// It waits.
    Wait,
    /// It is left out.
    Skip(SkipReason),
}

impl Fate {
    /// The same without what it takes.
    pub fn act(&self) -> Act {
        match self {
            Self::Start(_) => Act::Start,
            Self::Wait => Act::Wait,
            Self::Skip(reason) => Act::Skip(reason.clone()),
        }
    }

    pub(crate) fn state(&self) -> RunState {
        match self {
            Self::Start(_) => RunState::Started,
            Self::Wait => RunState::Waiting,
            Self::Skip(_) => RunState::Skipped,
        }
    }
}

/// What has become of a firing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fired {
    /// Another was first; nothing was done.
    Raced,
    /// It is durable; these runs have started, with these executions.
    Done(Vec<(Time, ExecutionId)>),
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunState {
    /// It has an execution.
    Started,
    /// It waits for the one before.
    Waiting,
    /// It was left out.
    Skipped,
}

impl RunState {
    /// The word in API and tables.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Waiting => "waiting",
            Self::Skipped => "skipped",
        }
    }
}

impl std::str::FromStr for RunState {
    type Err = String;
    fn from_str(word: &str) -> Result<Self, String> {
        [Self::Started, Self::Waiting, Self::Skipped]
            .into_iter()
            .find(|state| state.as_str() == word)
            .ok_or_else(|| format!("{word:?} is no state of a run"))
    }
}

/// A fire time and what became of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ScheduleRun {
    /// Which.
    pub fire_time: Time,
    /// Why it is a fire time.
    pub kind: RunKind,
    /// How far its run is.
    pub state: RunState,
    /// The execution.
    pub execution: Option<ExecutionId>,
    /// Why it was left out, in a word.
    pub reason: Option<String>,
    /// And in a sentence.
    pub detail: Option<String>,
    /// When it was acted on.
    pub noticed_at: Time,
    /// How the execution stands; none when there is none, or it was deleted.
    pub status: Option<Status>,
    /// Why, in words, where there is something to say.
    pub status_reason: Option<String>,
    /// When the execution was first begun.
    pub started_at: Option<Time>,
    /// When it ended.
    pub finished_at: Option<Time>,
}
