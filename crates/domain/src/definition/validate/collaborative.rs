//! What no coordinator can work with.

use super::{Findings, check_llm};
use crate::definition::{CollaborativeConfig, PlanningStrategy};
use crate::id::AgentName;
use crate::plan::MOST_STEPS;

/// The longest time that anything may take, in seconds.
const LONGEST: f64 = 366.0 * 86_400.0;

fn at(field: &str) -> String {
    format!("collaborative_config.{field}")
}

/// Checks the block of the agent called `name`.
pub(super) fn check(name: &AgentName, config: &CollaborativeConfig, found: &mut Findings) {
    check_names(name, config, found);
    check_ranges(config, found);
    let least = config.min_collaborators.unwrap_or(1);
    if least > config.max_collaborators {
        found.error(
            at("min_collaborators"),
            format!(
                "{least} is more than max_collaborators, {}",
                config.max_collaborators
            ),
            "lower it, or raise max_collaborators",
        );
    }
    if config.planning_strategy == PlanningStrategy::Consensus && config.max_collaborators < 2 {
        found.error(
            at("max_collaborators"),
            "one agent alone can't come to a consensus",
            "it is at least 2 with planning_strategy: consensus",
        );
    }
    if let Some(planner) = &config.planning_agent {
        check_llm(&at("planning_agent"), planner, found);
    }
}

fn check_names(own: &AgentName, config: &CollaborativeConfig, found: &mut Findings) {
    let names = &config.preferred_collaborators;
    for (index, name) in names.iter().enumerate() {
        let path = at(&format!("preferred_collaborators[{index}]"));
        if name == own {
            found.error(
                path,
                "a coordinator can't collaborate with itself",
                "name other agents",
            );
        } else if names.iter().take(index).any(|other| other == name) {
            found.error(
                path,
                format!("{name} is named twice"),
                "name each agent once",
            );
        }
    }
    let least = config.min_collaborators.unwrap_or(1);
    if !names.is_empty() && names.len() < least as usize {
        found.error(
            at("preferred_collaborators"),
            format!("{} are named, at least {least} must take part", names.len()),
            "name more agents, or lower min_collaborators",
        );
    }
}

fn check_ranges(config: &CollaborativeConfig, found: &mut Findings) {
    let some = |n: u32| Some(f64::from(n));
    for (field, value, low, high) in [
        (
            "max_plan_steps",
            some(config.max_plan_steps),
            1.0,
            f64::from(MOST_STEPS),
        ),
        (
            "min_collaborators",
            config.min_collaborators.map(f64::from),
            1.0,
            100.0,
        ),
        (
            "max_collaborators",
            some(config.max_collaborators),
            1.0,
            100.0,
        ),
        (
            "max_parallel_steps",
            config.max_parallel_steps.map(f64::from),
            1.0,
            1000.0,
        ),
        ("max_step_retries", some(config.max_step_retries), 0.0, 20.0),
        ("max_replans", some(config.max_replans), 0.0, 20.0),
        (
            "clarification_timeout_seconds",
            Some(config.clarification_timeout_seconds as f64),
            1.0,
            LONGEST,
        ),
        (
            "timeout_seconds",
            config.timeout_seconds.map(|seconds| seconds as f64),
            1.0,
            LONGEST,
        ),
    ] {
        found.range(&at(field), value, low, high);
    }
}
