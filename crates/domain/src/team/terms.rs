//! The terms of a collaboration: what the definition says, and what the request makes stricter.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::definition::{CollaborativeConfig, Definition, OnStepFailure, PlanningStrategy};
use crate::execution::Execution;

/// How a team works. Fixed when it begins, so that a journal means the same whatever becomes of the program.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Terms {
    /// How.
    pub strategy: PlanningStrategy,
    /// The longest plan.
    pub max_steps: u32,
    /// The fewest agents.
    pub min_agents: u32,
    /// The most agents.
    pub max_agents: u32,
    /// How many steps run side by side, at most.
    pub max_parallel: u32,
    /// Whether a person must approve each plan.
    pub needs_approval: bool,
    /// Whether the planner may ask a person.
    pub may_ask: bool,
    /// How long an answer to that is waited for, in seconds.
    pub answer_within_seconds: u64,
    /// What becomes of a step that fails.
    pub on_failure: OnStepFailure,
    /// How often a step may be done again.
    pub max_retries: u32,
    /// How often it may be planned anew.
    pub max_replans: u32,
}

impl Terms {
    /// The terms of an execution. A request may make them stricter (`max_agents`, `require_plan_approval`,
    /// `allow_human_clarification` beside its `task_description`), never laxer.
    pub fn new(definition: &Definition, execution: &Execution) -> Self {
        let usual = CollaborativeConfig::default();
        let config = definition.collaborative_config.as_ref().unwrap_or(&usual);
        let asked = |field: &str| match &execution.input {
            Value::Object(fields) if fields.contains_key(TASK) => fields.get(field),
            _ => None,
        };
        let most = asked("max_agents").and_then(Value::as_u64);
        let most = most.and_then(|most| u32::try_from(most).ok());
        let max_agents = config
            .max_collaborators
            .min(most.unwrap_or(u32::MAX))
            .max(1);
        let is_consensus = config.planning_strategy == PlanningStrategy::Consensus;
        let least = config
            .min_collaborators
            .unwrap_or(if is_consensus { 2 } else { 1 });
        Self {
            strategy: config.planning_strategy,
            max_steps: config.max_plan_steps,
            min_agents: least,
            max_agents,
            max_parallel: match config.planning_strategy {
                PlanningStrategy::Sequential => 1,
                PlanningStrategy::Hierarchical | PlanningStrategy::Consensus => {
                    config.max_parallel_steps.unwrap_or(u32::MAX)
                }
            },
            needs_approval: config.require_plan_approval
                || asked("require_plan_approval") == Some(&Value::Bool(true)),
            may_ask: config.allow_human_clarification
                && asked("allow_human_clarification") != Some(&Value::Bool(false)),
            answer_within_seconds: config.clarification_timeout_seconds,
            on_failure: config.on_step_failure,
            max_retries: config.max_step_retries,
            max_replans: config.max_replans,
        }
    }
}

/// The field of a request that says what is to be done.
const TASK: &str = "task_description";
