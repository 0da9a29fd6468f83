//! What the verbs of a store are asked with, and what they answer; lists are in `lists.rs`.

use std::time::Duration;

use domain::decide::Cancel;
use domain::execution::Totals;
use domain::step::Answer;
use domain::step::Question;
use domain::{
    AgentName, ConfigVersion, ConversationId, Definition, Epoch, Event, Execution, ExecutionId,
    ExecutionMode, Message, Outcome, Seq, Status, Step, Time, WorkerId,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// An execution to accept.
#[derive(Debug, Clone)]
pub struct Submission {
    /// What is to be done.
    pub execution: Execution,
    /// Makes repeating the request harmless.
    pub idempotency: Option<IdempotencyKey>,
    /// Events that go out with it.
    pub events: Vec<Event>,
    /// What becomes of it when its conversation is at an earlier one.
    pub when_busy: WhenBusy,
}

/// What becomes of an execution whose conversation has an unfinished one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenBusy {
    /// It waits for its turn: it is not due before every earlier one of its conversation is over, or its deadline has
    /// come.
    Queue {
        /// How many may wait at most; one more is [`Submitted::Full`].
        most: u32,
    },
    /// It is not accepted: [`Submitted::Busy`].
    Refuse,
}

impl WhenBusy {
    /// How many executions may wait for their turn in one conversation.
    pub const MOST: u32 = 1000;
}

impl Default for WhenBusy {
    fn default() -> Self {
        Self::Queue { most: Self::MOST }
    }
}

/// A caller's key and a hash of the body that it came with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdempotencyKey {
    /// The key.
    pub key: String,
    /// The hash.
    pub body_hash: String,
}

/// What came of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Submitted {
    /// It is accepted.
    New,
    /// It had been accepted before, as this one.
    Existing(ExecutionId),
    /// The idempotency key belongs to another body.
    KeyMismatch,
    /// It is refused: the execution whose steps it is to share is gone, or has fewer.
    NoOrigin,
    /// It is refused: its conversation is at this one, and [`WhenBusy::Refuse`] was asked for.
    Busy(ExecutionId),
    /// It is refused: as many as may wait for their turn in its conversation.
    Full {
        /// How many.
        waiting: u32,
    },
}

/// Who wants how much work.
#[derive(Debug, Clone)]
pub struct Claim {
    /// Who.
    pub worker: WorkerId,
    /// The time.
    pub now: Time,
    /// How long the lease lasts.
    pub lease: Duration,
    /// How many at most.
    pub limit: usize,
    /// Only this one, if it is due: a hint from the bus.
    pub only: Option<ExecutionId>,
    /// Of which modes.
    pub modes: Vec<ExecutionMode>,
    /// Not of these agents: they are at their limit of concurrency.
    pub without: Vec<AgentName>,
}

/// An execution under lease.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// What is to be done.
    pub execution: Execution,
    /// The epoch to write with.
    pub epoch: Epoch,
    /// The journal so far.
    pub steps: Vec<Step>,
    /// How often in a row a lease on it ran out without a step being committed.
    pub crashes: u32,
    /// What has come for it.
    pub waiting: Waiting,
    /// Whether an earlier one of its conversation is not over: then it is claimed because its deadline has come, and must
    /// not begin.
    pub waits_turn: bool,
}

/// What has come for an execution.
#[derive(Debug, Clone, Default)]
pub struct Waiting {
    /// How many wake-ups it has had; see [`Then::Park`].
    pub wakes: u64,
    /// Somebody wants it to end.
    pub cancel: Option<Cancel>,
    /// Answers that are not in the journal yet.
    pub inputs: Vec<PendingInput>,
    /// Children that ended (all of them, also those that are in the journal).
    pub children: Vec<EndedChild>,
}

/// A child that ended.
#[derive(Debug, Clone, PartialEq)]
pub struct EndedChild {
    /// Which.
    pub id: ExecutionId,
    /// How.
    pub outcome: Outcome,
    /// What it consumed, with all that it had others do.
    pub totals: Totals,
}

/// A person's answer, not yet in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PendingInput {
    /// The step that asked.
    pub request: Seq,
    /// What they said.
    pub answer: Answer,
    /// Who.
    pub by: String,
}

/// Leases to extend.
#[derive(Debug, Clone)]
pub struct Renewal {
    /// Whose.
    pub worker: WorkerId,
    /// Which, with the epoch of each.
    pub leases: Vec<(ExecutionId, Epoch)>,
    /// The time.
    pub now: Time,
    /// Until when.
    pub until: Time,
}

/// News for the owner of a lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// The lease is another's.
    Lost(ExecutionId),
    /// It was woken: [`crate::Store::waiting`] tells by what.
    Woken {
        /// Which.
        id: ExecutionId,
        /// How many wake-ups it has had.
        wakes: u64,
    },
}

/// Steps to commit, and what follows from them.
#[derive(Debug, Clone)]
pub struct Append {
    /// Whose journal.
    pub id: ExecutionId,
    /// The epoch of the lease.
    pub epoch: Epoch,
    /// The time.
    pub now: Time,
    /// The steps; may be empty.
    pub steps: Vec<Step>,
    /// The totals after them.
    pub totals: Totals,
    /// Events that go out with them.
    pub events: Vec<Event>,
    /// Executions that they start.
    pub children: Vec<Submission>,
    /// What becomes of the lease.
    pub then: Then,
}

/// What becomes of a lease after an append.
#[derive(Debug, Clone)]
pub enum Then {
    /// It is kept.
    Continue,
    /// It is given up until something comes or a time is reached. If there were more wake-ups than `wakes_seen`,
    /// the execution is due at once: nothing that came in the meantime is slept over.
    Park {
        /// `running` or `waiting_for_input`.
        status: Status,
        /// Why, in words.
        reason: String,
        /// When it is due at the latest.
        until: Time,
        /// The wake-ups that the owner has taken into account.
        wakes_seen: u64,
    },
    /// It is given back to whoever claims next.
    HandBack,
    /// It is over: the outcome, the conversation's new messages, the parent's wake-up and the events in one
    /// transaction.
    Finish {
        /// How.
        outcome: Outcome,
        /// What is added to the conversation, if it belongs to one.
        messages: Vec<Message>,
        /// What takes the place of older messages there.
        digest: Option<Box<Digest>>,
    },
}

/// A message that takes the place of the oldest ones of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Digest {
    /// What says in short what they said.
    pub message: Message,
    /// How many of the latest messages before this execution's own stay as they are.
    pub keep: u32,
}

/// What came of an append.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Appended {
    /// It is durable.
    Applied,
    /// It is durable, and the execution was woken since it was claimed: who goes on should look at what came first. Said
    /// by stores that several processes share; in one process, whoever brings something tells the run itself.
    Woken {
        /// How many wake-ups it has had.
        wakes: u64,
    },
    /// The epoch is not the current one; nothing was changed.
    LostLease,
}

/// What came of asking for the end of an execution.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelAnswer {
    /// It will end (or, when nobody had begun it, has).
    Accepted,
    /// It had ended before, like this.
    AlreadyOver(Status),
    /// There is no such execution.
    NotFound,
}

/// A person's answer to give.
#[derive(Debug, Clone)]
pub struct NewInput {
    /// To which execution.
    pub id: ExecutionId,
    /// To which request; the only open one when `None`.
    pub request: Option<Seq>,
    /// What they say.
    pub answer: Answer,
    /// Who.
    pub by: String,
    /// The time.
    pub now: Time,
}

/// What came of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InputAnswer {
    /// It is taken.
    Accepted {
        /// The request that it answers.
        request: Seq,
    },
    /// Another was first.
    AlreadyAnswered {
        /// The first.
        first: PendingInput,
    },
    /// It does not fit the question.
    DoesNotFit(Question),
    /// Several requests are open: say which.
    Ambiguous(Vec<Seq>),
    /// Nothing is asked (any more).
    NothingAsked(Status),
    /// There is no such execution.
    NotFound,
}

/// What is no longer kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cleanup {
    /// What was over before this.
    pub before: Time,
    /// Only to be counted.
    pub dry_run: bool,
}

/// What came of a clean-up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Cleaned {
    /// How many executions went, or would go, with all that belongs to them.
    pub executions: u64,
    /// How many conversations went, or would go, in which nothing was said or kept since, with their messages.
    pub conversations: u64,
    /// How many dead letters went, or would go.
    pub dead_letters: u64,
    /// The months that went whole, as `YYYY-MM`; their executions are counted above.
    pub months: Vec<String>,
    /// Whether a call deletes so much only, and there is more.
    pub has_more: bool,
}

/// How a relay takes events.
#[derive(Debug, Clone, Copy)]
pub struct OutboxClaim {
    /// The time.
    pub now: Time,
    /// How long they are its own.
    pub lease: Duration,
    /// How many at most.
    pub limit: usize,
}

/// An event on its way out.
#[derive(Debug, Clone)]
pub struct OutboxEntry {
    /// For [`crate::Store::outbox_done`].
    pub id: i64,
    /// The event.
    pub event: Event,
}

/// A version of a definition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfigRecord {
    /// The definition, references to secrets unexpanded.
    pub definition: Definition,
    /// Its content hash.
    pub version: ConfigVersion,
    /// The text that it was read from.
    pub source: String,
    /// The file, relative to the configuration folder.
    pub path: String,
    /// When it was loaded first.
    pub loaded_at: Time,
}

/// A version of a definition, in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigSummary {
    /// Its content hash.
    pub version: ConfigVersion,
    /// When it was loaded first.
    pub loaded_at: Time,
    /// Whether new executions begin with it.
    pub is_current: bool,
}

/// A value for a team's shared state.
#[derive(Debug, Clone)]
pub struct SharedWrite {
    /// Whose state: the coordinator's execution.
    pub team: ExecutionId,
    /// Under which key.
    pub key: String,
    /// What.
    pub value: Value,
    /// Only if this is the version; 0 when there is to be nothing yet.
    pub expected: Option<u64>,
    /// Who writes.
    pub by: ExecutionId,
    /// Tells a repeated write from a new one.
    pub idempotency_key: String,
    /// The time.
    pub now: Time,
}

impl SharedWrite {
    /// How many writes one team may make.
    pub const MOST: u64 = 10_000;

    /// Why it is not written to a key that is at `version`, in a state that was written to so often.
    pub fn refusal(&self, version: u64, writes: u64) -> Option<SharedAnswer> {
        if self.expected.is_some_and(|expected| expected != version) {
            return Some(SharedAnswer::Conflict { version });
        }
        (writes >= Self::MOST).then_some(SharedAnswer::Full)
    }
}

/// What came of a write to a team's shared state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SharedAnswer {
    /// It is durable.
    Written {
        /// As this version, from 1.
        version: u64,
    },
    /// It is not the version that was expected.
    Conflict {
        /// It is this one.
        version: u64,
    },
    /// There were as many writes as there may be: [`SharedWrite::MOST`].
    Full,
    /// The coordinator is over, or there is none.
    Over,
}

/// A value of a team's shared state.
#[derive(Debug, Clone, PartialEq)]
pub struct SharedValue {
    /// Under which key.
    pub key: String,
    /// Its version, from 1.
    pub version: u64,
    /// What.
    pub value: Value,
    /// Who wrote it.
    pub by: ExecutionId,
}

/// What is kept under the name of a conversation, or of an agent: a caller's own state, and the messages.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentState {
    /// A caller's own.
    pub state_data: Value,
    /// A caller's own.
    pub metadata: Value,
    /// The latest messages, oldest first.
    pub messages: Vec<Message>,
    /// Counts changes of any of these, from 1; 0 when there was none.
    pub version: u64,
    /// When it was first written.
    pub created_at: Time,
    /// When it was last written, or an execution of it accepted.
    pub updated_at: Time,
    /// The execution that has the turn.
    pub turn: Option<ExecutionId>,
}

/// A change of what is kept under the name of a conversation, or of an agent.
#[derive(Debug, Clone)]
pub struct StateChange {
    /// Whose.
    pub agent: AgentName,
    /// Which; the agent's own when `None`.
    pub conversation: Option<ConversationId>,
    /// Only if this is the version; 0 when there is to be nothing yet.
    pub expected: Option<u64>,
    /// The time.
    pub now: Time,
    /// What.
    pub change: Change,
}

/// What is changed.
#[derive(Debug, Clone)]
pub enum Change {
    /// These take the place of what is there; what is `None` stays.
    Write {
        /// A caller's own state.
        state_data: Option<Value>,
        /// A caller's own notes.
        metadata: Option<Value>,
        /// All messages.
        messages: Option<Vec<Message>>,
    },
    /// Messages are added.
    Append {
        /// Which.
        messages: Vec<Message>,
        /// Only so many of the latest stay.
        keep: Option<u32>,
    },
    /// Everything goes.
    Remove,
}

impl Change {
    /// Whether it changes messages: while an execution has the turn, they are its own.
    pub(crate) const fn is_about_messages(&self) -> bool {
        !matches!(self, Self::Write { messages: None, .. })
    }
}

/// What came of a change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateChanged {
    /// It is durable.
    Done {
        /// The version that it made; 0 when nothing is there any more.
        version: u64,
    },
    /// It is not the version that was expected.
    Conflict {
        /// It is this one.
        version: u64,
    },
    /// This execution has the turn: the messages are its own.
    Busy(ExecutionId),
}
