//! A journal folded into what it amounts to. [`State::apply`] is the only way that a state changes.

mod apply;
mod branch;
mod coordination;

use crate::Time;
use crate::definition::Effect;
use crate::execution::{Execution, Origin, Outcome, Seam, Status, Totals};
use crate::id::{AgentName, Epoch, ExecutionId, Seq};
use crate::message::{Message, StopReason, ToolCall};
use crate::retry::ModelErrorClass;
use crate::step::{CallRef, CallTarget, Question, Step, ToolOutcome};
use crate::team::Team;

/// Where an execution stands.
#[derive(Debug, Clone, PartialEq)]
pub struct State {
    /// What the model sees next time, oldest first; the system prompt is not in it.
    pub transcript: Vec<Message>,
    /// What it is at.
    pub turn: Turn,
    /// What it consumed itself.
    pub totals: Totals,
    /// What those consumed that worked for it and are done.
    pub delegated: Totals,
    /// How often an answer was sent back because it did not meet the schema.
    pub repairs: u32,
    /// Which message of the transcript the execution is about: those before it were said before.
    pub own: usize,
    /// How often a summary of the oldest messages was asked for.
    pub summaries: u32,
    /// Whether the first message is a digest that this execution had made.
    pub has_new_digest: bool,
    /// A summary could not be had: older messages are left out instead.
    pub summary_failed: bool,
    /// How many bytes of messages the model is shown at most, since it could not read more.
    pub ceiling: Option<u64>,
    /// How often it could not.
    pub squeezes: u32,
    /// A coordinator's team, once it is known.
    pub team: Option<Box<Team>>,
    /// The position of the next step.
    pub next_seq: Seq,
    /// Where its journal goes from another execution's steps to its own, and where that one's did before.
    seams: Vec<Seam>,
}

/// What an execution is at.
#[derive(Debug, Clone, PartialEq)]
pub enum Turn {
    /// It is the model's turn.
    Model(ModelTurn),
    /// Tools are to be called.
    Tools(Vec<Call>),
    /// The model gave its answer.
    Answered {
        /// The words.
        output: String,
        /// The same as JSON, when there is a schema.
        structured: Option<serde_json::Value>,
        /// Why it stopped.
        stop: StopReason,
        /// Where it does not meet the schema.
        violations: Vec<String>,
    },
    /// It is over.
    Done(Outcome),
}

/// How far the model's turn is.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ModelTurn {
    /// Which of the configured models: 0 is the first choice.
    pub choice: usize,
    /// How many tries of it have failed.
    pub attempt: u32,
    /// Nothing is tried before.
    pub not_before: Option<Time>,
    /// What the last try failed with.
    pub last_failure: Option<(ModelErrorClass, String)>,
}

/// A tool call of the current turn.
#[derive(Debug, Clone, PartialEq)]
pub struct Call {
    /// Which.
    pub call: CallRef,
    /// What the model wrote.
    pub wish: ToolCall,
    /// What that refers to.
    pub target: CallTarget,
    /// How far it is.
    pub progress: Progress,
    /// Whether a person put other arguments in the place of the model's.
    pub is_edited: bool,
    /// The answer of the agent that it was handed over to, with how that one stopped.
    pub handed_over: Option<(Option<serde_json::Value>, StopReason)>,
}

/// How far a tool call is.
#[derive(Debug, Clone, PartialEq)]
pub enum Progress {
    /// The model wants it.
    Proposed,
    /// A person was asked about it.
    Asked {
        /// The step that asked.
        request: Seq,
        /// What.
        question: Question,
        /// When it is too late to answer.
        until: Time,
    },
    /// A person allowed it; `key` is that of an earlier try that is to be repeated.
    Allowed {
        /// The key to send again.
        key: Option<String>,
    },
    /// It may be under way, or may have happened.
    Intended {
        /// The epoch in which it was begun.
        epoch: Epoch,
        /// The key sent with it.
        key: String,
        /// A person said that it is to be made, whatever happened before.
        by_word: bool,
    },
    /// It was called, and nobody knows whether it happened.
    Unknown {
        /// The key sent with it.
        key: String,
        /// How often that was the result.
        times: u32,
        /// What is known.
        known: String,
    },
    /// Another agent does it.
    Delegated {
        /// The execution.
        child: ExecutionId,
        /// Whose.
        agent: AgentName,
    },
    /// It is settled.
    Settled(ToolOutcome),
}

/// A step that cannot follow.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("step {seq} ({kind}) can't follow: {why}")]
pub struct IllegalStep {
    /// Its position.
    pub seq: Seq,
    /// Its kind.
    pub kind: &'static str,
    /// Why not.
    pub why: String,
}

impl Call {
    /// What is known of the call's effect, when it is a tool's.
    pub const fn effect(&self) -> Option<Effect> {
        match &self.target {
            CallTarget::Tool { effect, .. } => Some(*effect),
            CallTarget::Agent { .. } | CallTarget::Person | CallTarget::Refused { .. } => None,
        }
    }

    /// Whether nothing more comes of it.
    pub const fn is_settled(&self) -> bool {
        matches!(self.progress, Progress::Settled(_))
    }
}

impl State {
    /// Before the first step.
    pub fn new(execution: &Execution) -> Self {
        let mut transcript = execution.history.clone();
        transcript.push(Message::User {
            text: execution.prompt(),
        });
        let origin = execution.origin.as_ref();
        let mut state = Self {
            own: transcript.len() - 1,
            transcript,
            summaries: 0,
            has_new_digest: false,
            summary_failed: false,
            ceiling: None,
            squeezes: 0,
            turn: Turn::Model(ModelTurn::default()),
            totals: Totals::default(),
            delegated: Totals::default(),
            repairs: 0,
            team: None,
            next_seq: Seq::FIRST,
            seams: origin.map(Origin::all_seams).unwrap_or_default(),
        };
        state.branch_off(0);
        state
    }

    /// The state that a journal amounts to.
    ///
    /// # Errors
    /// The first step that cannot follow: the journal was tampered with, or written by a newer version.
    pub fn replay<'a>(
        execution: &Execution,
        steps: impl IntoIterator<Item = &'a Step>,
    ) -> Result<Self, IllegalStep> {
        let mut state = Self::new(execution);
        for step in steps {
            state.apply(step)?;
        }
        Ok(state)
    }

    /// What it consumed and had others consume: what its limits are compared with.
    pub fn spent(&self) -> Totals {
        let mut spent = self.totals;
        spent += self.delegated;
        spent
    }

    /// The status that every face shows for a begun execution in this state.
    pub fn status(&self) -> Status {
        match &self.turn {
            Turn::Done(outcome) => outcome.status(),
            Turn::Tools(calls)
                if calls
                    .iter()
                    .any(|c| matches!(c.progress, Progress::Asked { .. }))
                    && calls.iter().all(|c| {
                        matches!(c.progress, Progress::Asked { .. } | Progress::Settled(_))
                    }) =>
            {
                Status::WaitingForInput
            }
            Turn::Model(_)
                if self
                    .team
                    .as_ref()
                    .is_some_and(|team| team.waits_for_person()) =>
            {
                Status::WaitingForInput
            }
            Turn::Tools(_) | Turn::Model(_) | Turn::Answered { .. } => Status::Running,
        }
    }

    /// The executions under way that it had do something, with the calls that they are made under.
    pub fn children(&self) -> Vec<(CallRef, ExecutionId)> {
        if let Some(team) = &self.team {
            return team.running().collect();
        }
        let running = self.calls().iter().filter_map(|call| match &call.progress {
            Progress::Delegated { child, .. } => Some((call.call, *child)),
            _ => None,
        });
        running.collect()
    }

    /// The calls of the current turn; none when it is not the tools' turn.
    pub fn calls(&self) -> &[Call] {
        match &self.turn {
            Turn::Tools(calls) => calls,
            Turn::Model(_) | Turn::Answered { .. } | Turn::Done(_) => &[],
        }
    }

    /// The requests that wait for a person.
    pub fn open_requests(&self) -> impl Iterator<Item = (Seq, &Question, Time)> {
        let of_calls = self.calls().iter().filter_map(|call| match &call.progress {
            Progress::Asked {
                request,
                question,
                until,
            } => Some((*request, question, *until)),
            _ => None,
        });
        let of_team = self.team.as_ref().and_then(|team| team.open_request());
        of_calls.chain(of_team)
    }
}
