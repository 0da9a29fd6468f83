//! What lists are asked for, and what their rows hold.

use domain::decide::Cancel;
use domain::definition::Provider;
use domain::execution::Totals;
use domain::{
    AgentName, ConversationId, Epoch, Event, Execution, ExecutionId, Money, Outcome, Seq, Status,
    Time, TraceId, Usage, WorkerId,
};
use serde::{Deserialize, Serialize};

/// Which questions.
#[derive(Debug, Clone)]
pub struct InboxFilter {
    /// Of these agents; of any when empty.
    pub agents: Vec<AgentName>,
    /// Of one execution.
    pub execution: Option<ExecutionId>,
    /// Of one kind: the word of [`Question::kind`].
    pub kind: Option<String>,
    /// Only what can still be answered at this time.
    pub now: Time,
    /// Only those after this one.
    pub after: Option<(ExecutionId, Seq)>,
    /// How many at most.
    pub limit: usize,
}

/// A question that waits for a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenRequest {
    /// Whose.
    pub id: ExecutionId,
    /// The agent's.
    pub agent: AgentName,
    /// The step that asks.
    pub request: Seq,
}

/// An event that could not be delivered or processed.
#[derive(Debug, Clone, PartialEq)]
pub struct DeadLetter {
    /// Its own id.
    pub id: String,
    /// The queue that it was for.
    pub queue: String,
    /// The event.
    pub event: Event,
    /// Why.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it was given up.
    pub at: Time,
}

/// One execution as it stands.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExecutionRow {
    /// What was asked.
    pub execution: Execution,
    /// How it stands.
    pub status: Status,
    /// Why, in words, where there is something to say.
    pub status_reason: Option<String>,
    /// Who has the lease.
    pub worker: Option<WorkerId>,
    /// When that one was last heard of.
    pub heartbeat_at: Option<Time>,
    /// The epoch of the last lease.
    pub epoch: Epoch,
    /// When it may next be claimed; none when it is over.
    pub due_at: Option<Time>,
    /// When it was first begun.
    pub started_at: Option<Time>,
    /// When it ended.
    pub finished_at: Option<Time>,
    /// What it consumed.
    pub totals: Totals,
    /// The number of its steps.
    pub steps: u32,
    /// How it ended.
    pub outcome: Option<Outcome>,
    /// Whether its end was asked for.
    pub cancel: Option<Cancel>,
    /// Consecutive lost leases.
    pub crashes: u32,
}

/// Which executions.
#[derive(Debug, Clone, Default)]
pub struct ExecutionFilter {
    /// Of one agent.
    pub agent: Option<AgentName>,
    /// In one of these states; any when empty.
    pub status: Vec<Status>,
    /// Of one trace.
    pub trace_id: Option<TraceId>,
    /// Of one conversation.
    pub conversation: Option<ConversationId>,
    /// Children of one execution.
    pub parent: Option<ExecutionId>,
    /// Accepted at or after.
    pub created_after: Option<Time>,
    /// Accepted before.
    pub created_before: Option<Time>,
}

/// Which part of a list.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// How many at most.
    pub limit: usize,
    /// Only what comes after the row with this position (`created_at`, id) in the list's order.
    pub after: Option<(Time, String)>,
}

/// How many rows of a list are counted one by one: who leafs through more does not need to know.
pub const COUNTED_AT_MOST: u64 = 1_000;

/// How many rows a list has in all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Total {
    /// So many, or so many at least.
    pub count: u64,
    /// Whether there are no more.
    pub is_exact: bool,
}

impl Total {
    /// Just so many.
    pub const fn exactly(count: u64) -> Self {
        Self {
            count,
            is_exact: true,
        }
    }

    /// What a count says that stopped beyond [`COUNTED_AT_MOST`].
    pub(crate) const fn counted(count: u64) -> Self {
        if count > COUNTED_AT_MOST {
            return Self {
                count: COUNTED_AT_MOST,
                is_exact: false,
            };
        }
        Self::exactly(count)
    }

    /// Of two lists that have nothing in common.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            is_exact: self.is_exact && other.is_exact,
        }
    }
}

/// Counts of an agent's executions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentStats {
    /// Whose.
    pub agent: AgentName,
    /// Unfinished and leased or waiting.
    pub active: u64,
    /// Not begun.
    pub queued: u64,
    /// All.
    pub total: u64,
    /// Ended with an answer.
    pub completed: u64,
    /// Ended otherwise, cancellations aside.
    pub failed: u64,
}

/// Which usage.
#[derive(Debug, Clone, Default)]
pub struct UsageFilter {
    /// Of one agent.
    pub agent: Option<AgentName>,
    /// From this UTC day on, `YYYY-MM-DD`.
    pub from_day: Option<String>,
    /// To this UTC day, included.
    pub to_day: Option<String>,
}

/// Tokens and cost of an agent with a model on a UTC day.
#[derive(Debug, Clone, PartialEq)]
pub struct UsageRow {
    /// Whose.
    pub agent: AgentName,
    /// With whose model.
    pub provider: Provider,
    /// Which.
    pub model: String,
    /// `YYYY-MM-DD`.
    pub day: String,
    /// Answers of the model.
    pub model_calls: u64,
    /// Tool calls begun.
    pub tool_calls: u64,
    /// Tokens.
    pub usage: Usage,
    /// Dollars.
    pub cost_usd: Money,
}

#[cfg(test)]
mod tests {
    use super::{COUNTED_AT_MOST, Total};

    #[test]
    fn a_count_that_stopped_says_so() {
        assert_eq!(
            Total::counted(COUNTED_AT_MOST),
            Total::exactly(COUNTED_AT_MOST)
        );
        let more = Total::counted(COUNTED_AT_MOST + 1);
        assert_eq!((more.count, more.is_exact), (COUNTED_AT_MOST, false));
        let both = Total::exactly(3).and(more);
        assert_eq!((both.count, both.is_exact), (COUNTED_AT_MOST + 3, false));
    }
}
