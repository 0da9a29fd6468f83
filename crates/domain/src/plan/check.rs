//! What makes a plan one that can be carried out.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Draft, DraftStep, Plan, PlanStep};
use crate::id::{AgentName, PlanStepId};
use crate::nearest::nearest;

/// The longest instruction, in bytes.
const MAX_INSTRUCTION: usize = 16 << 10;
/// How many keys of the shared state a step may be given.
const MAX_INPUTS: usize = 32;
/// The longest key, in bytes.
const MAX_KEY: usize = 200;
/// How many problems are told at once.
const MOST_TOLD: usize = 20;

/// What a plan must keep to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Rules {
    /// Whose plan it is; it gives itself no work.
    pub coordinator: AgentName,
    /// Who may be given work.
    pub agents: Vec<AgentName>,
    /// The most steps.
    pub max_steps: u32,
    /// The fewest agents.
    pub min_agents: u32,
    /// The most agents.
    pub max_agents: u32,
    /// Whether steps run one after the other: where none says what it waits for, each waits for the one before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub in_order: bool,
    /// Steps of earlier plans whose results stand: they may be depended on, and their names are taken.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub done: Vec<PlanStepId>,
}

impl Rules {
    /// Makes a plan of a proposal.
    ///
    /// # Errors
    /// What is wrong with it, each in a sentence for its author.
    pub fn check(&self, draft: &Draft) -> Result<Plan, Vec<String>> {
        let mut problems = self.sizes(draft);
        let mut steps = Vec::new();
        for (index, step) in draft.steps.iter().enumerate() {
            steps.extend(self.step(index + 1, step, &mut problems));
        }
        if problems.is_empty() {
            self.check_names(&steps, &mut problems);
            if self.in_order {
                chain(&mut steps);
            }
            self.check_order(&steps, &mut problems);
            self.check_agents(&steps, &mut problems);
        }
        problems.truncate(MOST_TOLD);
        if problems.is_empty() {
            Ok(Plan { steps })
        } else {
            Err(problems)
        }
    }

    fn sizes(&self, draft: &Draft) -> Vec<String> {
        match draft.steps.len() {
            0 => vec!["the plan is empty: it needs at least one step".to_owned()],
            n if n > self.max_steps as usize => vec![format!(
                "the plan has {n} steps, at most {} are allowed: join some of them",
                self.max_steps
            )],
            _ => Vec::new(),
        }
    }

    /// A step by itself.
    fn step(
        &self,
        number: usize,
        draft: &DraftStep,
        problems: &mut Vec<String>,
    ) -> Option<PlanStep> {
        let before = problems.len();
        let name = match draft.id.as_str() {
            "" => format!("step number {number}"),
            id => format!("step {:?}", shown(id)),
        };
        let id = draft.id.parse::<PlanStepId>();
        if let Err(why) = &id {
            problems.push(format!("{name}: {why}"));
        }
        let agent = self.agent(&name, &draft.agent, problems);
        if draft.instruction.is_empty() {
            problems.push(format!("{name}: \"instruction\" is empty"));
        }
        if draft.instruction.len() > MAX_INSTRUCTION {
            problems.push(format!(
                "{name}: \"instruction\" has {} bytes, at most {MAX_INSTRUCTION} are allowed",
                draft.instruction.len()
            ));
        }
        let is_key = |key: &String| {
            !key.is_empty() && key.len() <= MAX_KEY && !key.chars().any(char::is_control)
        };
        if draft.inputs.len() > MAX_INPUTS || !draft.inputs.iter().all(is_key) {
            problems.push(format!(
                "{name}: \"inputs\" names up to {MAX_INPUTS} keys of the shared state, each of 1 to {MAX_KEY} bytes"
            ));
        }
        let waits = draft.depends_on.iter().map(|id| id.parse::<PlanStepId>());
        let waits = waits.collect::<Result<BTreeSet<_>, _>>();
        if let Err(why) = &waits {
            problems.push(format!("{name}: \"depends_on\": {why}"));
        }
        if problems.len() > before {
            return None;
        }
        Some(PlanStep {
            id: id.ok()?,
            agent: agent?,
            instruction: draft.instruction.clone(),
            inputs: draft.inputs.clone(),
            depends_on: waits.ok()?.into_iter().collect(),
        })
    }

    fn agent(&self, step: &str, name: &str, problems: &mut Vec<String>) -> Option<AgentName> {
        let parsed = name.parse::<AgentName>().ok();
        if parsed.as_ref() == Some(&self.coordinator) {
            problems.push(format!(
                "{step}: {name:?} is yourself; give the work to one of {}",
                self.names()
            ));
            return None;
        }
        let known = parsed.filter(|name| self.agents.contains(name));
        if known.is_none() {
            let all = self.agents.iter().map(AgentName::as_str);
            let meant = nearest(name, all).map_or_else(
                || format!("there are {}", self.names()),
                |meant| format!("did you mean {meant:?}?"),
            );
            problems.push(format!(
                "{step}: there is no agent {:?}; {meant}",
                shown(name)
            ));
        }
        known
    }

    fn names(&self) -> String {
        let names: Vec<&str> = self.agents.iter().map(AgentName::as_str).collect();
        names.join(", ")
    }

    /// That each name is given once, and that nobody waits for nobody.
    fn check_names(&self, steps: &[PlanStep], problems: &mut Vec<String>) {
        let mut known: BTreeSet<&PlanStepId> = self.done.iter().collect();
        for step in steps {
            if self.done.contains(&step.id) {
                problems.push(format!(
                    "step {:?} is done already; give the new step another id",
                    step.id.as_str()
                ));
            } else if !known.insert(&step.id) {
                problems.push(format!("there are two steps {:?}", step.id.as_str()));
            }
        }
        for step in steps {
            for wanted in &step.depends_on {
                if *wanted == step.id {
                    problems.push(format!("step {:?} depends on itself", step.id.as_str()));
                } else if !known.contains(wanted) {
                    let all = known.iter().map(|id| id.as_str());
                    let meant = nearest(wanted.as_str(), all)
                        .map_or_else(String::new, |meant| format!("; did you mean {meant:?}?"));
                    problems.push(format!(
                        "step {:?} depends on {:?}, which is no step{meant}",
                        step.id.as_str(),
                        wanted.as_str()
                    ));
                }
            }
            // A result that it does not wait for is none yet.
            let early = step.inputs.iter().filter(|input| {
                let names = |id: &&&PlanStepId| id.as_str() == input.as_str();
                known
                    .iter()
                    .find(names)
                    .is_some_and(|id| !step.depends_on.contains(id))
            });
            for input in early {
                problems.push(format!(
                    "step {:?} takes {input:?} as an input and does not depend on that step; add it to depends_on",
                    step.id.as_str()
                ));
            }
        }
    }

    /// That none waits for itself by way of others.
    fn check_order(&self, steps: &[PlanStep], problems: &mut Vec<String>) {
        if !problems.is_empty() {
            return;
        }
        let mut waits: BTreeMap<&PlanStepId, BTreeSet<&PlanStepId>> = steps
            .iter()
            .map(|step| {
                let open = step.depends_on.iter().filter(|id| !self.done.contains(id));
                (&step.id, open.collect())
            })
            .collect();
        loop {
            let free: Vec<&PlanStepId> = waits
                .iter()
                .filter(|(_, open)| open.is_empty())
                .map(|(id, _)| *id)
                .collect();
            if free.is_empty() {
                break;
            }
            for id in free {
                waits.remove(id);
                for open in waits.values_mut() {
                    open.remove(id);
                }
            }
        }
        if let Some(circle) = circle(&waits) {
            problems.push(format!(
                "the steps wait for each other in a circle: {circle}; leave out one of these dependencies"
            ));
        }
    }

    fn check_agents(&self, steps: &[PlanStep], problems: &mut Vec<String>) {
        let agents: BTreeSet<&AgentName> = steps.iter().map(|step| &step.agent).collect();
        let count = agents.len();
        if count < self.min_agents as usize && self.done.is_empty() {
            problems.push(format!(
                "{count} agents take part, at least {} must",
                self.min_agents
            ));
        }
        if count > self.max_agents as usize {
            problems.push(format!(
                "{count} agents take part, at most {} may",
                self.max_agents
            ));
        }
    }
}

/// Makes each step wait for the one before, where none says what it waits for.
fn chain(steps: &mut [PlanStep]) {
    if steps.iter().any(|step| !step.depends_on.is_empty()) {
        return;
    }
    let mut before: Option<PlanStepId> = None;
    for step in steps {
        step.depends_on.extend(before.take());
        before = Some(step.id.clone());
    }
}

/// A circle among steps each of which waits for another of them, in words.
fn circle(waits: &BTreeMap<&PlanStepId, BTreeSet<&PlanStepId>>) -> Option<String> {
    let mut path = vec![*waits.keys().next()?];
    loop {
        let next = waits.get(path.last()?)?.first()?;
        if let Some(start) = path.iter().position(|id| id == next) {
            let names = path.iter().skip(start).chain(std::iter::once(next));
            let names: Vec<&str> = names.map(|id| id.as_str()).collect();
            return Some(names.join(" → "));
        }
        path.push(next);
    }
}

fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
