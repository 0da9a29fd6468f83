//! What is read, and what belongs to agents rather than to executions.

use domain::{
    AgentName, ConfigVersion, ConversationId, ExecutionId, Message, Seq, Status, Step, Time,
};
use serde_json::Value;
use store::{
    AgentStats, Cleaned, Cleanup, ConfigRecord, ConfigSummary, ExecutionFilter, ExecutionRow, Page,
    Result, Total, UsageFilter, UsageRow,
};

use super::{Row, Tables, corrupt};

impl Row {
    fn read(&self) -> Result<ExecutionRow> {
        if self.damage.task {
            let what = format!("execution {}", self.execution.id);
            return Err(corrupt(what, "its task is damaged"));
        }
        Ok(ExecutionRow {
            execution: self.execution.clone(),
            status: self.status,
            status_reason: self.reason.clone(),
            worker: self.worker.clone(),
            heartbeat_at: self.heartbeat_at,
            epoch: self.epoch,
            due_at: self.due_at,
            started_at: self.started_at,
            finished_at: self.finished_at,
            totals: self.totals,
            steps: self.count,
            outcome: self.outcome.clone(),
            cancel: self.cancel.clone(),
            crashes: self.crashes,
        })
    }

    fn meets(&self, filter: &ExecutionFilter) -> bool {
        let this = &self.execution;
        filter
            .agent
            .as_ref()
            .is_none_or(|agent| *agent == this.agent)
            && (filter.status.is_empty() || filter.status.contains(&self.status))
            && filter
                .trace_id
                .as_ref()
                .is_none_or(|trace| *trace == this.trace_id)
            && (filter.conversation.is_none() || filter.conversation == this.conversation)
            && filter
                .parent
                .is_none_or(|parent| this.parent.is_some_and(|p| p.id == parent))
            && filter
                .created_after
                .is_none_or(|from| this.created_at >= from)
            && filter
                .created_before
                .is_none_or(|before| this.created_at < before)
    }
}

impl Tables {
    pub(crate) fn execution(&self, id: ExecutionId) -> Result<Option<ExecutionRow>> {
        self.rows.get(&id).map(Row::read).transpose()
    }

    pub(crate) fn executions(
        &self,
        filter: &ExecutionFilter,
        page: &Page,
    ) -> (Vec<ExecutionRow>, Total) {
        let mut all: Vec<&Row> = self.rows.values().filter(|row| row.meets(filter)).collect();
        let place = |row: &Row| (row.execution.created_at, row.execution.id);
        all.sort_by_key(|row| std::cmp::Reverse(place(row)));
        let is_after = |row: &&&Row| match &page.after {
            Some((at, id)) => {
                (row.execution.created_at, row.execution.id.to_string()) < (*at, id.clone())
            }
            None => true,
        };
        let rows = all.iter().filter(is_after).take(page.limit);
        (
            rows.filter_map(|row| row.read().ok()).collect(),
            Total::exactly(all.len() as u64),
        )
    }

    pub(crate) fn steps(
        &self,
        id: ExecutionId,
        after: Option<Seq>,
        limit: usize,
    ) -> Result<Vec<Step>> {
        let Some(row) = self.rows.get(&id) else {
            return Ok(Vec::new());
        };
        let wanted = row
            .steps
            .iter()
            .filter(|step| after.is_none_or(|after| step.seq > after))
            .take(limit);
        wanted
            .map(|step| {
                if row.damage.steps.contains(&step.seq) {
                    let what = format!("step {} of execution {id}", step.seq);
                    return Err(corrupt(what, "it is damaged"));
                }
                Ok(step.clone())
            })
            .collect()
    }

    pub(crate) fn agent_stats(&self, agent: Option<&AgentName>) -> Vec<AgentStats> {
        let mut all: Vec<AgentStats> = Vec::new();
        let mut rows: Vec<&Row> = self.rows.values().collect();
        rows.sort_by_key(|row| row.execution.agent.clone());
        for row in rows {
            let name = &row.execution.agent;
            if agent.is_some_and(|wanted| wanted != name) {
                continue;
            }
            if all.last().is_none_or(|last| last.agent != *name) {
                all.push(AgentStats {
                    agent: name.clone(),
                    active: 0,
                    queued: 0,
                    total: 0,
                    completed: 0,
                    failed: 0,
                });
            }
            let Some(stats) = all.last_mut() else {
                continue;
            };
            stats.total += 1;
            match row.status {
                Status::Queued => stats.queued += 1,
                Status::Running | Status::WaitingForInput => stats.active += 1,
                Status::Completed => stats.completed += 1,
                Status::Failed | Status::Timeout => stats.failed += 1,
                Status::Cancelled => {}
            }
        }
        all
    }

    pub(crate) fn put_config(&mut self, record: ConfigRecord) {
        let name = record.definition.name.clone();
        let version = record.version.clone();
        let is_same = |(other, _): &(ConfigRecord, bool)| {
            other.definition.name == name && other.version == version
        };
        if !self.configs.iter().any(is_same) {
            self.configs.push((record, false));
        }
        for (record, is_current) in &mut self.configs {
            if record.definition.name == name {
                *is_current = record.version == version;
            }
        }
    }

    pub(crate) fn config(
        &self,
        agent: &AgentName,
        version: &ConfigVersion,
    ) -> Option<ConfigRecord> {
        let mut records = self.configs.iter().map(|(record, _)| record);
        records
            .find(|record| record.definition.name == *agent && record.version == *version)
            .cloned()
    }

    pub(crate) fn config_versions(&self, agent: &AgentName) -> Vec<ConfigSummary> {
        let of_agent = self
            .configs
            .iter()
            .filter(|(r, _)| r.definition.name == *agent);
        let mut versions: Vec<ConfigSummary> = of_agent
            .map(|(record, is_current)| ConfigSummary {
                version: record.version.clone(),
                loaded_at: record.loaded_at,
                is_current: *is_current,
            })
            .rev()
            .collect();
        versions.sort_by_key(|version| std::cmp::Reverse(version.loaded_at));
        versions
    }

    pub(crate) fn conversation(
        &self,
        agent: AgentName,
        conversation: ConversationId,
        limit: usize,
    ) -> Vec<Message> {
        let said = self.conversations.get(&(agent, conversation));
        let said = said.map(Vec::as_slice).unwrap_or_default();
        said[said.len().saturating_sub(limit)..].to_vec()
    }

    /// No message is ever taken back, so their number says which they are.
    pub(crate) fn conversation_version(
        &self,
        agent: AgentName,
        conversation: ConversationId,
    ) -> Option<String> {
        let said = self
            .conversations
            .get(&(agent.clone(), conversation.clone()))?;
        let changes = self.states.get(&(agent, Some(conversation)))?.version;
        (!said.is_empty()).then(|| format!("{}-{changes}", said.len()))
    }

    pub(crate) fn remember(
        &mut self,
        agent: AgentName,
        key: String,
        value: Value,
        write: String,
        now: Time,
    ) {
        if self.fact_writes.insert((agent.clone(), write)) {
            self.facts.insert((agent, key), (now, value));
        }
    }

    pub(crate) fn recall(
        &self,
        agent: &AgentName,
        like: &str,
        limit: usize,
    ) -> Vec<(String, Value)> {
        let mut found: Vec<_> = self
            .facts
            .iter()
            .filter(|((name, key), _)| name == agent && key.contains(like))
            .collect();
        found.sort_by_key(|((_, key), (at, _))| (std::cmp::Reverse(*at), key.clone()));
        found
            .into_iter()
            .take(limit)
            .map(|((_, key), (_, value))| (key.clone(), value.clone()))
            .collect()
    }

    /// Forgets what was over long ago, but not the children of one that goes on.
    pub(crate) fn cleanup(&mut self, cleanup: Cleanup) -> Cleaned {
        let goes_on = |id: ExecutionId| self.rows.get(&id).is_some_and(|row| !row.is_over());
        let is_old = |row: &&Row| {
            row.execution.created_at < cleanup.before
                && row.finished_at.is_some_and(|at| at < cleanup.before)
                && !row
                    .execution
                    .parent
                    .is_some_and(|parent| goes_on(parent.id))
        };
        let old: Vec<ExecutionId> = self
            .rows
            .values()
            .filter(is_old)
            .map(|row| row.execution.id)
            .collect();
        if !cleanup.dry_run {
            self.rows.retain(|id, _| !old.contains(id));
            self.shared.retain(|write| !old.contains(&write.team));
            self.deliveries
                .retain(|id, _| !old.iter().any(|gone| *id == (*gone).into()));
        }
        Cleaned {
            executions: old.len() as u64,
            ..Cleaned::default()
        }
    }

    pub(crate) fn usage(&self, filter: &UsageFilter) -> Vec<UsageRow> {
        let is_wanted = |row: &&UsageRow| {
            filter
                .agent
                .as_ref()
                .is_none_or(|agent| *agent == row.agent)
                && filter.from_day.as_ref().is_none_or(|day| row.day >= *day)
                && filter.to_day.as_ref().is_none_or(|day| row.day <= *day)
        };
        self.usage.values().filter(is_wanted).cloned().collect()
    }
}
