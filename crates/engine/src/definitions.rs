//! Definitions as executions need them: the version that each one began with, references replaced.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use domain::definition::expand::MissingVariable;
use domain::{AgentName, ConfigVersion, Definition, Failure};
use store::Store;

use crate::run::corrupt;
use crate::{Agent, Agents};

/// How many versions are kept in memory.
const KEPT: usize = 4096;

/// A cache of expanded definitions. Versions are content hashes, so an entry is never stale; only its secrets can be,
/// which is why the whole is dropped when the agents are reloaded.
pub(crate) struct Definitions {
    store: Arc<dyn Store>,
    agents: Agents,
    expanded: Mutex<HashMap<Key, Arc<Definition>>>,
}

type Key = (AgentName, ConfigVersion);

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
        if let Some(known) = self.lock().get(&key) {
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
        self.keep(key, expanded.clone());
        Ok(Ok(expanded))
    }

    /// What the current version of an agent refers to that is not there.
    pub(crate) fn missing(&self, agent: &Agent) -> Option<MissingVariable> {
        let key = (agent.definition.name.clone(), agent.version.clone());
        if self.lock().contains_key(&key) {
            return None;
        }
        match self.agents.expand(&agent.definition) {
            Ok(expanded) => {
                self.keep(key, Arc::new(expanded));
                None
            }
            Err(missing) => Some(missing),
        }
    }

    fn keep(&self, key: Key, expanded: Arc<Definition>) {
        let mut cache = self.lock();
        if cache.len() >= KEPT {
            cache.clear();
        }
        cache.insert(key, expanded);
    }

    /// Forgets everything: variables may have changed.
    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Definition>>> {
        self.expanded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
