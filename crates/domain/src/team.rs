//! A coordinator's execution: the plan, who is at which step of it, and what is said about it.
//!
//! The team is a part of the execution's [`crate::State`] and changes by steps of the journal only. What happens next is
//! [`next`]'s to say: plan, have the plan approved, let steps run whose dependencies are done, look at what they came to,
//! and in the end put the results together.

mod apply;
mod next;
mod planning;
mod prompt;
mod read;
mod terms;

use std::collections::BTreeSet;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Time;
use crate::budget::BudgetLimits;
use crate::definition::PlanningStrategy;
use crate::execution::{Status, Totals};
use crate::id::{AgentName, ExecutionId, PlanStepId, Seq};
use crate::message::{Message, StopReason};
use crate::plan::{Plan, PlanStep, Rules};
use crate::step::{CallRef, Question};

pub(crate) use next::{Next, next};
pub use planning::{Member, Planning, Verdict, VerdictKind};
pub(crate) use prompt::prompt;
pub use terms::Terms;

/// How often the coordinator's model is told what is wrong with its answer before that has consequences.
pub const MAX_REPAIRS: u32 = 2;
/// How often the planner may ask a person before it has to plan.
pub const MAX_QUESTIONS: u32 = 3;

/// Where a collaboration stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Team {
    /// On which terms it works; fixed when it began.
    pub terms: Terms,
    /// Who may take part.
    pub members: Vec<Member>,
    /// The plan at work.
    pub plan: Option<CurrentPlan>,
    /// The work that was or is to be done: what stands of earlier plans, then the steps of the plan at work.
    pub parts: Vec<Part>,
    /// Every execution that worked for it, in the order of their ends.
    pub contributions: Vec<Contribution>,
    /// How often it was planned anew.
    pub replans: u32,
    /// What the judge decided, where several answered the same.
    pub judgement: Option<Judgement>,
    /// What was said about the next plan: answers that were of no use, and why.
    pub(crate) exchange: Vec<Message>,
    /// Why the plan before was given up.
    pub(crate) occasion: Option<String>,
    /// An answer that nobody has looked at yet.
    pub(crate) unread: Option<Unread>,
    /// How often in a row an answer was of no use.
    pub(crate) refusals: u32,
    /// How often a person was asked.
    pub(crate) questions: u32,
    /// What a person is asked now.
    pub(crate) asked: Option<Asked>,
    /// Why the reviewer wants another plan.
    pub(crate) wants_replan: Option<String>,
    /// Why a person does not want the plan, when no other is to be made.
    pub(crate) denied: Option<String>,
}

/// A plan, and whether it may be carried out.
#[derive(Debug, Clone, PartialEq)]
pub struct CurrentPlan {
    /// The journal's step that says so; the calls of its steps are numbered below it.
    pub seq: Seq,
    /// The plan.
    pub plan: Plan,
    /// Whether it waits for nobody's word any more.
    pub is_approved: bool,
    /// Who wrote it, if a person did.
    pub by: Option<String>,
}

/// One step of a plan, and how far it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Part {
    /// What is to be done.
    pub step: PlanStep,
    /// The call under which its executions run.
    pub call: CallRef,
    /// How often it was begun.
    pub attempts: u32,
    /// What was wrong with the last attempt.
    pub feedback: Option<String>,
    /// How far it is.
    pub standing: Standing,
}

/// How far a part is.
#[derive(Debug, Clone, PartialEq)]
pub enum Standing {
    /// It has not begun, or is to begin once more.
    Waiting,
    /// Its agent is at it.
    Running {
        /// By this execution.
        child: ExecutionId,
        /// What it may consume.
        budget: BudgetLimits,
    },
    /// There is a result that the coordinator has not looked at.
    Delivered {
        /// Of this execution.
        child: ExecutionId,
        /// The result.
        output: String,
    },
    /// It came to nothing, and nothing is decided about that.
    Failed {
        /// Why.
        why: String,
    },
    /// Its result stands.
    Accepted {
        /// Of this execution.
        child: ExecutionId,
        /// The result.
        output: String,
    },
    /// It came to nothing, and the others go on without it.
    Dropped {
        /// Why.
        why: String,
    },
}

impl Standing {
    /// The word for it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Running { .. } => "running",
            Self::Delivered { .. } => "delivered",
            Self::Failed { .. } => "failed",
            Self::Accepted { .. } => "completed",
            Self::Dropped { .. } => "dropped",
        }
    }
}

/// What one execution did for the team.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Contribution {
    /// For which step.
    pub step: PlanStepId,
    /// Whose it was.
    pub agent: AgentName,
    /// Which.
    pub execution_id: ExecutionId,
    /// How it ended.
    pub status: Status,
    /// What it consumed, with all that it had others do.
    #[serde(flatten)]
    pub totals: Totals,
}

/// Which of several answers hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Judgement {
    /// The steps that gave them.
    pub chosen: Vec<PlanStepId>,
    /// Why these.
    pub reason: String,
}

/// An answer to be looked at: what the coordinator's model said, or the plan that a person wrote.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Unread {
    pub(crate) about: About,
    pub(crate) text: String,
    pub(crate) stop: StopReason,
    /// The person.
    pub(crate) by: Option<String>,
}

/// What an answer is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum About {
    Plan,
    Review,
    Judgement,
}

/// A question that waits for a person.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Asked {
    pub(crate) request: Seq,
    pub(crate) question: Question,
    pub(crate) until: Time,
}

impl Team {
    /// What a plan must keep to now.
    pub fn rules(&self, coordinator: &AgentName) -> Rules {
        let done = self.parts.iter().filter(|part| part.is_accepted());
        Rules {
            coordinator: coordinator.clone(),
            agents: self.members.iter().map(|m| m.agent.clone()).collect(),
            max_steps: self.terms.max_steps,
            min_agents: self.terms.min_agents,
            max_agents: self.terms.max_agents,
            in_order: self.terms.strategy == PlanningStrategy::Sequential,
            done: match self.plan {
                Some(_) => self.of_earlier_plans(),
                None => done.map(|part| part.step.id.clone()).collect(),
            },
        }
    }

    /// The agents that were given work.
    pub fn participants(&self) -> BTreeSet<&AgentName> {
        let planned = self.parts.iter().map(|part| &part.step.agent);
        let worked = self.contributions.iter().map(|done| &done.agent);
        planned.chain(worked).collect()
    }

    /// What the executions under way may consume together, at most.
    pub fn granted(&self) -> BudgetLimits {
        let running = self.parts.iter().filter_map(|part| match &part.standing {
            Standing::Running { budget, .. } => Some(*budget),
            _ => None,
        });
        running.fold(BudgetLimits::default(), BudgetLimits::plus)
    }

    /// The executions under way, with the calls that they are made under.
    pub fn running(&self) -> impl Iterator<Item = (CallRef, ExecutionId)> {
        self.parts.iter().filter_map(|part| match part.standing {
            Standing::Running { child, .. } => Some((part.call, child)),
            _ => None,
        })
    }

    /// The part that is worked at under a call.
    pub fn part(&self, call: CallRef) -> Option<&Part> {
        self.parts.iter().find(|part| part.call == call)
    }

    /// What a person is asked, and when it is too late to answer.
    pub fn open_request(&self) -> Option<(Seq, &Question, Time)> {
        let asked = self.asked.as_ref()?;
        Some((asked.request, &asked.question, asked.until))
    }

    /// Whether nothing goes on before a person answers.
    pub fn waits_for_person(&self) -> bool {
        self.asked.is_some() && self.running().next().is_none()
    }

    /// What it waits for, in words.
    pub fn waits_for(&self) -> String {
        let running = self.parts.iter().filter_map(|part| {
            let is_running = matches!(part.standing, Standing::Running { .. });
            is_running.then(|| format!("{} ({})", part.step.id, part.step.agent))
        });
        let running: Vec<String> = running.take(10).collect();
        match &self.asked {
            Some(Asked {
                question: Question::Plan { .. },
                ..
            }) => "a person: approval of the plan".to_owned(),
            Some(_) => "a person: an answer for the planner".to_owned(),
            None => format!("the steps {}", running.join(", ")),
        }
    }

    /// The steps of earlier plans whose results stand.
    fn of_earlier_plans(&self) -> Vec<PlanStepId> {
        let current = self.plan.as_ref().map(|plan| plan.seq);
        let earlier = self
            .parts
            .iter()
            .filter(|part| Some(part.call.turn) != current);
        earlier.map(|part| part.step.id.clone()).collect()
    }
}

impl Part {
    /// Whether its result stands.
    pub const fn is_accepted(&self) -> bool {
        matches!(self.standing, Standing::Accepted { .. })
    }
}
