//! What an agent, an execution and a step *are*, and what happens next.
//!
//! This crate is where a reader learns the system. It does no I/O, knows no clock but the one that is
//! handed to it and draws no random numbers, so every rule in it can be tested in microseconds:
//!
//! - [`Definition`] is an agent as its YAML file says it; [`Definition::problems`] is the whole validation.
//! - [`Execution`] is one piece of work; its [`Step`]s are its journal, the only truth about it.
//! - [`State`] is a journal folded; [`State::apply`] refuses a step that cannot follow.
//! - [`Schedule`] says when an agent works by itself; [`schedule::plan()`] what becomes of each due time.
//! - [`Worker`]s perform executions; [`fleet`] tells who of them is alive and how an agent stands because of it.
//! - [`Team`] is what a coordinator knows of its [`Plan`] and of the agents that carry it out.
//! - [`alert`] tells when somebody is to be told that something is wrong.
//! - [`Restored`] is what a restored backup means for work.
//! - [`span`] is what a trace shows of a journal.
//! - [`delivery`] is what is sent out until it has arrived.
//! - [`access`] tells who may do what: scopes, and the keys that carry them.
//! - [`decide()`] looks at definition, execution and state and names the one [`Action`] to do next.

pub mod access;
pub mod alert;
pub mod budget;
pub mod decide;
pub mod definition;
pub mod delivery;
pub mod event;
pub mod execution;
pub mod fleet;
pub mod id;
pub mod message;
pub mod nearest;
pub mod pin;
pub mod plan;
pub mod prompt;
pub mod pruning;
pub mod quantity;
mod restored;
pub mod retry;
pub mod schedule;
pub mod span;
pub mod state;
pub mod step;
mod subscribers;
pub mod team;
pub mod topic;

pub use access::{ApiKey, KeyHash, KeyId, Scope};
pub use decide::{Action, Facts, ModelRun, ToolRun, decide};
pub use definition::{Definition, Effect, ExecutionMode, Problem};
pub use delivery::{Delivery, DeliveryId, DeliveryState, Matter};
pub use event::Event;
pub use execution::{Execution, Failure, FailureCode, Outcome, Priority, Status};
pub use fleet::{HealthInterval, Pool, Worker};
pub use id::{
    AgentName, ConfigVersion, ConversationId, Epoch, EventId, ExecutionId, PlanStepId,
    ScheduleName, Seq, TraceId, WorkerId,
};
pub use message::{Message, Reply, StopReason, ToolCall};
pub use plan::{Plan, PlanStep};
pub use prompt::{Prompt, Purpose};
pub use pruning::Fit;
pub use quantity::{Money, Tokens, Usage};
pub use restored::Restored;
pub use schedule::Schedule;
pub use span::{Sampling, Span, SpanId, Upstream};
pub use state::{IllegalStep, State};
pub use step::{CallRef, Step, StepBody, ToolOutcome};
pub use subscribers::Subscribers;
pub use team::{Member, Planning, Team};
pub use topic::{Topic, TopicPattern};

/// An instant, in UTC. The only clock that this crate knows is the one it is handed.
pub type Time = chrono::DateTime<chrono::Utc>;

/// A length of time, forwards or backwards.
pub use chrono::TimeDelta;
