//! What a process does, and where it can be asked something.

/// Where a process can be asked something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Door {
    /// About what agents hold.
    States,
    /// About agents' files.
    Configs,
    /// About tasks.
    Tasks,
    /// About schedules.
    Schedules,
    /// Slack's.
    Slack,
}

impl Door {
    /// The variable of its port.
    pub(super) const fn port(self) -> &'static str {
        match self {
            Self::States => "STATE_MANAGER_PORT",
            Self::Configs => "CONFIG_SERVICE_PORT",
            Self::Tasks => "ORCHESTRATOR_PORT",
            Self::Schedules => "SCHEDULER_SERVICE_PORT",
            Self::Slack => "SLACK_GATEWAY_PORT",
        }
    }
}

/// The variables of all ports: each process gets one of its own for each.
pub(super) const PORTS: [&str; 6] = [
    "STATE_MANAGER_PORT",
    "CONFIG_SERVICE_PORT",
    "ORCHESTRATOR_PORT",
    "SCHEDULER_SERVICE_PORT",
    "SLACK_GATEWAY_PORT",
    "AGENT_POOL_PORT",
];

/// What a process does. Any mix of them shares one set of servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// All services and all pools.
    Everything,
    /// Answers for what agents hold.
    StateManager,
    /// Answers for agents' files.
    ConfigService,
    /// Takes tasks in and answers for them.
    Orchestrator,
    /// Starts what schedules say.
    Scheduler,
    /// Hears Slack.
    Gateway,
    /// Performs tasks and what schedules start.
    Pool,
    /// Performs what teams do.
    Teams,
    /// Performs conversations.
    Talkers,
}

impl Role {
    /// Every part that a process may be, in the order in which they are started.
    pub(super) const PARTS: [Self; 8] = [
        Self::StateManager,
        Self::ConfigService,
        Self::Orchestrator,
        Self::Scheduler,
        Self::Gateway,
        Self::Pool,
        Self::Teams,
        Self::Talkers,
    ];

    pub(super) const fn arguments(self) -> &'static [&'static str] {
        match self {
            Self::Everything => &["up"],
            Self::StateManager => &["serve", "state-manager"],
            Self::ConfigService => &["serve", "config-service"],
            Self::Orchestrator => &["serve", "agent-orchestrator"],
            Self::Scheduler => &["serve", "scheduler-service"],
            Self::Gateway => &["serve", "slack-gateway"],
            Self::Pool => &["serve", "autonomous-agent-pool"],
            Self::Teams => &["serve", "collaborative-agent-pool"],
            Self::Talkers => &["serve", "continuous-agent-runner"],
        }
    }

    /// Its name in the table of kills.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Everything => "process with all parts",
            Self::StateManager => "state manager",
            Self::ConfigService => "config service",
            Self::Orchestrator => "orchestrator",
            Self::Scheduler => "scheduler",
            Self::Gateway => "slack gateway",
            Self::Pool => "worker",
            Self::Teams => "worker of teams",
            Self::Talkers => "worker of conversations",
        }
    }

    /// Its pool, as the API calls it, when it performs something and nothing else.
    pub(super) const fn pool(self) -> Option<&'static str> {
        match self {
            Self::Pool => Some("autonomous-agent-pool"),
            Self::Teams => Some("collaborative-agent-pool"),
            Self::Talkers => Some("continuous-agent-runner"),
            _ => None,
        }
    }

    /// The one door that it has, if it is a part that has one.
    const fn door(self) -> Option<Door> {
        match self {
            Self::StateManager => Some(Door::States),
            Self::ConfigService => Some(Door::Configs),
            Self::Orchestrator => Some(Door::Tasks),
            Self::Scheduler => Some(Door::Schedules),
            Self::Gateway => Some(Door::Slack),
            Self::Everything | Self::Pool | Self::Teams | Self::Talkers => None,
        }
    }

    /// Whether it has such a door.
    pub(super) fn has(self, door: Door) -> bool {
        self == Self::Everything || self.door() == Some(door)
    }

    /// The variable of the port that tells of its health.
    pub(super) const fn port(self) -> &'static str {
        match (self, self.door()) {
            (_, Some(door)) => door.port(),
            (Self::Everything, None) => Door::Tasks.port(),
            (_, None) => "AGENT_POOL_PORT",
        }
    }
}
