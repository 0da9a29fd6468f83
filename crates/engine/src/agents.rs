//! The agents as they are now, and as they were when an execution began.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use domain::definition::expand::MissingVariable;
use domain::nearest::nearest;
use domain::{AgentName, ConfigVersion, Definition, Event, Subscribers, Time};
use tokio::sync::watch;

/// Replaces `${NAME}` in a definition.
pub type Expand = Arc<dyn Fn(&Definition) -> Result<Definition, MissingVariable> + Send + Sync>;

/// An agent with one version of its definition.
#[derive(Debug, Clone)]
pub struct Agent {
    /// As it was written.
    pub definition: Arc<Definition>,
    /// The content hash.
    pub version: ConfigVersion,
    /// The file, relative to the configuration folder.
    pub path: String,
    /// When this version was loaded.
    pub loaded_at: Time,
    /// Why the file's newest content is not in use, if it is not.
    pub rejected: Option<String>,
}

/// The current agents. Cheap to clone; all clones see the same.
#[derive(Clone)]
pub struct Agents {
    current: Arc<RwLock<Current>>,
    /// Counts replacements.
    version: watch::Sender<u64>,
    expand: Expand,
}

/// One set of agents.
#[derive(Default)]
struct Current {
    by_name: BTreeMap<AgentName, Agent>,
    /// What the enabled ones subscribe to.
    subscribers: Subscribers,
}

impl Agents {
    /// None yet. `expand` gives definitions their secrets when they are used.
    pub fn new(expand: Expand) -> Self {
        Self {
            current: Arc::default(),
            version: watch::Sender::new(0),
            expand,
        }
    }

    /// The agent of that name.
    pub fn get(&self, name: &AgentName) -> Option<Agent> {
        self.read().by_name.get(name).cloned()
    }

    /// All, by name.
    pub fn all(&self) -> Vec<Agent> {
        self.read().by_name.values().cloned().collect()
    }

    /// The name that a misspelt one probably meant.
    pub fn nearest(&self, name: &str) -> Option<AgentName> {
        let agents = self.read();
        nearest(name, agents.by_name.keys().map(AgentName::as_str))
            .and_then(|name| name.parse().ok())
    }

    /// Those that an event starts.
    pub fn started_by(&self, event: &Event) -> Vec<Agent> {
        let agents = self.read();
        let names = agents.subscribers.of(event).into_iter();
        names
            .filter_map(|name| agents.by_name.get(name))
            .cloned()
            .collect()
    }

    /// Puts a set of agents in the place of the current one, at once.
    pub fn replace(&self, agents: BTreeMap<AgentName, Agent>) {
        let mut subscribers = Subscribers::default();
        for agent in agents.values().filter(|agent| agent.definition.enabled) {
            for pattern in &agent.definition.event_subscriptions {
                subscribers.add(&agent.definition.name, pattern);
            }
        }
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Current {
            by_name: agents,
            subscribers,
        };
        self.version.send_modify(|version| *version += 1);
    }

    /// Tells of each replacement.
    pub(crate) fn changed(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// A definition with its references replaced.
    ///
    /// # Errors
    /// A variable that is not set.
    pub fn expand(&self, definition: &Definition) -> Result<Definition, MissingVariable> {
        (self.expand)(definition)
    }

    fn read(&self) -> std::sync::RwLockReadGuard<'_, Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner)
    }
}
