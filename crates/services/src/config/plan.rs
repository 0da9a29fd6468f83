//! The next set of agents as it takes shape, and what is told of the difference.

use std::collections::BTreeMap;

use domain::AgentName;
use engine::Agent;
use serde::Serialize;

use super::diagnostic::Diagnostic;
use super::files::File;

/// What came of a reload.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// Agents that there are now.
    pub loaded: usize,
    /// Agents that there were not before.
    pub added: usize,
    /// Agents with a new version.
    pub updated: usize,
    /// Agents as before.
    pub unchanged: usize,
    /// Agents that are gone with their files.
    pub removed: usize,
    /// Files that can't be used.
    pub rejected: usize,
    /// Why not.
    pub errors: Vec<Diagnostic>,
    /// What authors should know besides.
    pub warnings: Vec<Diagnostic>,
}

/// What is told of an agent.
pub(super) struct Change {
    pub(super) name: AgentName,
    pub(super) what: &'static str,
    pub(super) version: Option<String>,
}

/// The next set of agents as it takes shape.
pub(super) struct Plan {
    pub(super) before: BTreeMap<AgentName, Agent>,
    pub(super) next: BTreeMap<AgentName, Agent>,
    pub(super) refused: BTreeMap<String, Vec<Diagnostic>>,
    changes: Vec<Change>,
    unchanged: usize,
}

impl Plan {
    pub(super) fn new(agents: Vec<Agent>) -> Self {
        Self {
            before: agents
                .into_iter()
                .map(|agent| (agent.definition.name.clone(), agent))
                .collect(),
            next: BTreeMap::new(),
            refused: BTreeMap::new(),
            changes: Vec::new(),
            unchanged: 0,
        }
    }

    /// An agent that was there.
    pub(super) fn keep(&mut self, agent: Agent) {
        self.unchanged += 1;
        self.next.insert(agent.definition.name.clone(), agent);
    }

    /// An agent that an earlier process had loaded: new here, nothing new to anyone else.
    pub(super) fn restore(&mut self, agent: Agent) {
        self.next.insert(agent.definition.name.clone(), agent);
    }

    pub(super) fn change(&mut self, agent: Agent) {
        let name = agent.definition.name.clone();
        let what = if self.before.contains_key(&name) {
            "updated"
        } else {
            "added"
        };
        self.changes.push(Change {
            name: name.clone(),
            what,
            version: Some(agent.version.to_string()),
        });
        self.next.insert(name, agent);
    }

    pub(super) fn finish(
        mut self,
        files: &BTreeMap<String, File>,
    ) -> (Report, BTreeMap<AgentName, Agent>, Vec<Change>) {
        let added = |plan: &Self| {
            let new = plan
                .next
                .keys()
                .filter(|name| !plan.before.contains_key(*name));
            new.count()
        };
        let removed: Vec<AgentName> = self
            .before
            .keys()
            .filter(|name| !self.next.contains_key(*name))
            .cloned()
            .collect();
        let warnings = files.values().filter_map(|file| file.outcome.as_ref().ok());
        let report = Report {
            loaded: self.next.len(),
            added: added(&self),
            updated: self
                .changes
                .iter()
                .filter(|change| change.what == "updated")
                .count(),
            unchanged: self.unchanged,
            removed: removed.len(),
            rejected: self.refused.len(),
            errors: self.refused.into_values().flatten().collect(),
            warnings: warnings
                .flat_map(|parsed| parsed.warnings.clone())
                .collect(),
        };
        self.changes.extend(removed.into_iter().map(|name| Change {
            name,
            what: "removed",
            version: None,
        }));
        (report, self.next, self.changes)
    }
}
