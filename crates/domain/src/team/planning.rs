//! What the journal says about a collaboration, beside what it says of every execution.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Terms;
use crate::id::{AgentName, PlanStepId};
use crate::plan::Plan;
use crate::step::CallRef;

/// What happened to the plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "what", rename_all = "snake_case")]
pub enum Planning {
    /// It is known who may take part, and on which terms.
    Team {
        /// Who.
        members: Vec<Member>,
        /// The terms.
        terms: Terms,
    },
    /// An answer is of no use; its author is told why.
    Refused {
        /// Why.
        problems: Vec<String>,
    },
    /// There is a plan that can be carried out.
    Made {
        /// The plan.
        plan: Plan,
        /// The person who wrote it; the planner when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
    },
    /// The coordinator has looked at results.
    Reviewed {
        /// What it thinks of each.
        verdicts: Vec<Verdict>,
    },
    /// A step could not begin.
    NotStarted {
        /// Which.
        call: CallRef,
        /// Why.
        why: String,
    },
    /// A step that failed is to be done once more.
    Retried {
        /// Which.
        step: PlanStepId,
        /// What went wrong.
        why: String,
    },
    /// A step that failed is left out: the others are enough.
    Dropped {
        /// Which.
        step: PlanStepId,
        /// What went wrong.
        why: String,
    },
    /// The rest is to be planned anew; results that stand are kept.
    Replanned {
        /// Why.
        why: String,
    },
    /// The judge has chosen among answers.
    Judged {
        /// The steps whose answers hold.
        chosen: Vec<PlanStepId>,
        /// Why these.
        reason: String,
    },
}

/// An agent that may be given work.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Member {
    /// Its name.
    pub agent: AgentName,
    /// What it does, in a sentence, as its definition says.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub description: String,
}

/// What the coordinator thinks of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Verdict {
    /// Of which step.
    pub step: PlanStepId,
    /// What becomes of it.
    pub verdict: VerdictKind,
    /// What is wrong with it, for whoever does it again.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub feedback: String,
}

/// What becomes of a result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum VerdictKind {
    /// It stands.
    Accept,
    /// Its agent does it again.
    Retry,
    /// It is given up, and the rest is planned anew.
    Replan,
}
