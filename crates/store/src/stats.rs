//! Counts of executions, from rows of agent, state and number.

use domain::Status;

use crate::codec::parse;
use crate::{AgentStats, Result};

/// Adds up rows that are sorted by agent.
pub(crate) fn stats(rows: Vec<(String, String, i64)>) -> Result<Vec<AgentStats>> {
    let mut all: Vec<AgentStats> = Vec::new();
    for (agent, status, n) in rows {
        let n = u64::try_from(n).unwrap_or_default();
        if all.last().is_none_or(|last| last.agent.as_str() != agent) {
            all.push(AgentStats {
                agent: parse("an agent's name", &agent)?,
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
        stats.total += n;
        match status.parse() {
            Ok(Status::Queued) => stats.queued += n,
            Ok(Status::Running | Status::WaitingForInput) => stats.active += n,
            Ok(Status::Completed) => stats.completed += n,
            Ok(Status::Failed | Status::Timeout) => stats.failed += n,
            // A state that somebody wrote by hand must not hide the others.
            Ok(Status::Cancelled) | Err(_) => {}
        }
    }
    Ok(all)
}
