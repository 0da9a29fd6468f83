//! The agents as they are now, and as they were when an execution began.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use domain::definition::expand::MissingVariable;
use domain::fleet::SwitchedOff;
use domain::nearest::nearest;
use domain::{AgentName, ConfigVersion, Definition, Event, Subscribers, Time};
use tokio::sync::watch;

use crate::Error;

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
    /// Who disabled it, whatever its file says. [`Agents`] sees to it.
    pub switched_off: Option<SwitchedOff>,
}

impl Agent {
    /// Whether it takes tasks.
    pub fn takes_work(&self) -> bool {
        self.definition.enabled && self.switched_off.is_none()
    }
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
    /// What those that take work subscribe to.
    subscribers: Subscribers,
    /// Those that people disabled, whether there is a file of them or not.
    switched_off: BTreeMap<AgentName, SwitchedOff>,
    /// Why there is no agent of these names although somebody wrote a file of it.
    broken: BTreeMap<AgentName, String>,
}

impl Current {
    /// Follows from the agents and who of them is disabled.
    fn settle(&mut self) {
        self.subscribers = Subscribers::default();
        for (name, agent) in &mut self.by_name {
            agent.switched_off = self.switched_off.get(name).cloned();
            if agent.takes_work() {
                for pattern in &agent.definition.event_subscriptions {
                    self.subscribers.add(name, pattern);
                }
            }
        }
    }
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

    /// Why there is no agent of that name: a slip of the pen, or a file that can't be used.
    pub fn unknown(&self, name: &str) -> Error {
        let broken = name
            .parse::<AgentName>()
            .ok()
            .and_then(|name| self.read().broken.get(&name).cloned());
        Error::UnknownAgent {
            name: name.to_owned(),
            nearest: self.nearest(name).filter(|_| broken.is_none()),
            broken,
        }
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
        self.replace_with(agents, BTreeMap::new());
    }

    /// The same, and notes why there is no agent of some names although there is a file of it.
    pub fn replace_with(
        &self,
        agents: BTreeMap<AgentName, Agent>,
        broken: BTreeMap<AgentName, String>,
    ) {
        self.change(|current| {
            current.by_name = agents;
            current.broken = broken;
        });
    }

    /// Notes who is disabled.
    pub(crate) fn switch_off(&self, agents: BTreeMap<AgentName, SwitchedOff>) {
        if self.read().switched_off != agents {
            self.change(|current| current.switched_off = agents);
        }
    }

    fn change(&self, change: impl FnOnce(&mut Current)) {
        {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            change(&mut current);
            current.settle();
        }
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
