//! Keeps the schedules of agents' files as the files say, through every reload.

use std::collections::BTreeMap;
use std::sync::Arc;

use domain::{ExecutionMode, Schedule, ScheduleName};
use store::{ManagedBy, ScheduleFilter};
use tokio_util::sync::CancellationToken;

use super::{changed, fresh, next_due};
use crate::Agent;
use crate::shared::Shared;

/// How many schedules are read at once.
const PAGE: usize = 1000;
/// How long to wait before trying again what the store could not do.
const PAUSE: std::time::Duration = std::time::Duration::from_secs(2);

/// Follows the agents' files until `stop`.
pub(crate) async fn follow(core: Arc<Shared>, stop: CancellationToken) {
    let mut agents = core.agents.changed();
    loop {
        agents.borrow_and_update();
        let again = match align(&core).await {
            Ok(()) => None,
            Err(error) => {
                tracing::error!("the schedules of agents' files are not up to date: {error}");
                Some(PAUSE)
            }
        };
        let pause = async {
            match again {
                Some(pause) => tokio::time::sleep(pause).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = agents.changed() => {}
            () = pause => {}
            () = stop.cancelled() => return,
        }
    }
}

/// Makes, changes and removes schedules until they are what the files say.
async fn align(core: &Shared) -> Result<(), store::Error> {
    let agents = core.agents.all();
    if agents.is_empty() {
        // More likely a folder that is not there yet than a wish that all schedules be forgotten.
        return Ok(());
    }
    let mut wanted = BTreeMap::new();
    for agent in &agents {
        if let Some(schedule) = schedule(core, agent) {
            wanted.insert(schedule.name.clone(), (schedule, agent.path.clone()));
        }
    }
    for name in names_of_files(core).await? {
        if !wanted.contains_key(&name) {
            remove(core, &name).await?;
        }
    }
    for (schedule, path) in wanted.into_values() {
        put(core, schedule, path).await?;
    }
    core.pace.look.notify_one();
    Ok(())
}

/// What an agent's file says. Only times are given the values of variables: what the agent is told is kept as written,
/// and a secret has no business there.
fn schedule(core: &Shared, agent: &Agent) -> Option<Schedule> {
    let definition = &agent.definition;
    if definition.execution_mode != ExecutionMode::Scheduled {
        return None;
    }
    let written = definition.schedule_config.as_ref()?;
    let name = &definition.name;
    let expanded = match core.agents.expand(definition) {
        Ok(expanded) => expanded.schedule_config?,
        Err(missing) => {
            tracing::error!(agent_name = %name, "its schedule can't be used: {missing}");
            return None;
        }
    };
    let mut config = expanded;
    config.task_data.clone_from(&written.task_data);
    config.enabled = written.enabled && definition.enabled;
    match Schedule::from_config(ScheduleName::from(name), name.clone(), &config, core.now()) {
        Ok(schedule) => Some(schedule),
        Err(flaws) => {
            for flaw in flaws {
                let field = flaw.field;
                tracing::error!(agent_name = %name, "its schedule can't be used: {field}: {}; {}", flaw.message, flaw.hint);
            }
            None
        }
    }
}

async fn names_of_files(core: &Shared) -> Result<Vec<ScheduleName>, store::Error> {
    let mut names: Vec<ScheduleName> = Vec::new();
    loop {
        let filter = ScheduleFilter {
            is_of_file: Some(true),
            after: names.last().cloned(),
            limit: PAGE,
            ..ScheduleFilter::default()
        };
        let (rows, _) = core.ports.store.schedules(filter).await?;
        let is_last = rows.len() < PAGE;
        names.extend(rows.into_iter().map(|row| row.record.schedule.name));
        if is_last {
            return Ok(names);
        }
    }
}

async fn put(core: &Shared, schedule: Schedule, path: String) -> Result<(), store::Error> {
    let store = &core.ports.store;
    let name = schedule.name.clone();
    for _ in 0..super::ATTEMPTS {
        let now = core.now();
        let Some(known) = store.schedule(&name).await? else {
            let record = fresh(schedule.clone(), ManagedBy::File(path.clone()), now);
            if store.save_schedule(record, None).await? {
                tracing::info!(schedule = %name, file = %path, "a schedule came with its file");
                return Ok(());
            }
            continue;
        };
        let known = known.record;
        if known.managed_by == ManagedBy::Api {
            tracing::error!(
                schedule = %name, file = %path,
                "the schedule of the file does not run: the API has one of that name; delete it with `agentrunner schedules delete {name}`, or rename the agent"
            );
            return Ok(());
        }
        let mut next = changed(&known, schedule.clone(), now);
        next.managed_by = ManagedBy::File(path.clone());
        if next.schedule == known.schedule && next.managed_by == known.managed_by {
            return Ok(());
        }
        next.updated_at = now;
        next.next_due = next_due(&next);
        if store.save_schedule(next, Some(known.version)).await? {
            tracing::info!(schedule = %name, file = %path, "a schedule changed with its file");
            return Ok(());
        }
    }
    tracing::warn!(schedule = %name, "many change it at once; it is looked at again with the next reload");
    Ok(())
}

async fn remove(core: &Shared, name: &ScheduleName) -> Result<(), store::Error> {
    let store = &core.ports.store;
    for _ in 0..super::ATTEMPTS {
        let Some(known) = store.schedule(name).await? else {
            return Ok(());
        };
        let is_of_file = known.record.managed_by != ManagedBy::Api;
        if !is_of_file || store.remove_schedule(name, known.record.version).await? {
            tracing::info!(schedule = %name, "a schedule went with its file");
            return Ok(());
        }
    }
    Ok(())
}
