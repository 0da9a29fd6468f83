//! Definitions as executions need them: the version that each one began with, references replaced.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use domain::{AgentName, ConfigVersion, Definition, Failure};
use store::Store;

use crate::Agents;
use crate::run::corrupt;

/// How many versions are kept in memory.
const KEPT: usize = 4096;

/// A cache of expanded definitions. Versions are content hashes, so an entry is never stale; only its secrets can be,
/// which is why the whole is dropped when the agents are reloaded.
pub(crate) struct Definitions {
    store: Arc<dyn Store>,
    agents: Agents,
    expanded: Mutex<HashMap<(AgentName, ConfigVersion), Arc<Definition>>>,
}

impl Definitions {
    pub(crate) fn new(store: Arc<dyn Store>, agents: Agents) -> Self {
        Self {
            store,
            agents,
            expanded: Mutex::default(),
        }
    }

    /// The definition that an execution began with.
    ///
    /// # Errors
    /// `Ok(Err(failure))` when it cannot be had for good, `Err` when the store cannot be asked now.
    pub(crate) async fn get(
        &self,
        agent: &AgentName,
        version: &ConfigVersion,
    ) -> Result<Result<Arc<Definition>, Failure>, store::Error> {
        let key = (agent.clone(), version.clone());
        if let Some(known) = self
            .expanded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&key)
        {
            return Ok(Ok(known.clone()));
        }
        let current = self
            .agents
            .get(agent)
            .filter(|current| current.version == *version);
        let written = match current {
            Some(current) => current.definition,
            None => match self.store.config(agent, version).await {
                Ok(Some(record)) => Arc::new(record.definition),
                Ok(None) => {
                    return Ok(Err(corrupt(format!(
                        "version {version} of agent {agent} is not in the store"
                    ))));
                }
                // It will not get better by itself.
                Err(error) if error.class() == store::Class::Corrupt => {
                    return Ok(Err(corrupt(error.to_string())));
                }
                Err(error) => return Err(error),
            },
        };
        let expanded = match self.agents.expand(&written) {
            Ok(expanded) => Arc::new(expanded),
            Err(missing) => return Ok(Err(corrupt(format!("agent {agent}: {missing}")))),
        };
        let mut cache = self.expanded.lock().unwrap_or_else(PoisonError::into_inner);
        if cache.len() >= KEPT {
            cache.clear();
        }
        cache.insert(key, expanded.clone());
        Ok(Ok(expanded))
    }

    /// Forgets everything: variables may have changed.
    pub(crate) fn clear(&self) {
        self.expanded
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}
