//! The parts that a process can be: what each listens for, performs and needs.

use clap::ValueEnum;
use domain::Pool;
use services::Service;

use crate::settings::Servers;

/// One part of AgentRunner, as `serve` and compose name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// Executions and their journals, port 8001
    StateManager,
    /// Definitions of agents, port 8002
    ConfigService,
    /// Agents, tasks, their events and results, port 8003
    AgentOrchestrator,
    /// Schedules, port 8004
    SchedulerService,
    /// Slack, port 8005
    SlackGateway,
    /// Performs collaborative executions
    CollaborativeAgentPool,
    /// Performs autonomous and scheduled executions
    AutonomousAgentPool,
    /// Performs continuous executions
    ContinuousAgentRunner,
}

/// How much of the engine runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engagement {
    /// Nothing: the store is read and written, and that is all.
    None,
    /// What the process publishes is carried to the bus.
    Relay,
    /// Events start agents, and executions of the pool's modes are performed.
    Whole,
}

/// What a process does.
#[derive(Debug, Clone, Copy)]
pub(super) struct Role {
    /// As it is called.
    pub(super) name: &'static str,
    /// What it listens for.
    pub(super) services: &'static [Service],
    /// As what it performs executions, if it does.
    pub(super) pool: Option<Pool>,
    pub(super) engagement: Engagement,
    /// Whether it acts on schedules.
    pub(super) fires_schedules: bool,
    /// Whether copies of what it reads are shared with others; one command reads little, and is not to wait for a server
    /// that it can do without.
    pub(super) shares_copies: bool,
    /// Whether it tells the others of changed agents; of all that read the same files, one is enough.
    pub(super) announces: bool,
}

impl Role {
    /// All parts in one.
    pub(super) const EVERYTHING: Self = Self {
        name: "everything",
        services: &Service::ALL,
        pool: Some(Pool::Everything),
        engagement: Engagement::Whole,
        fires_schedules: true,
        shares_copies: true,
        announces: true,
    };

    /// Answers questions, and changes nothing.
    pub(super) const READING: Self = Self {
        engagement: Engagement::None,
        fires_schedules: false,
        shares_copies: false,
        announces: false,
        ..Self::EVERYTHING
    };

    const fn service(name: &'static str, services: &'static [Service]) -> Self {
        Self {
            name,
            services,
            pool: None,
            engagement: Engagement::None,
            fires_schedules: false,
            shares_copies: true,
            announces: false,
        }
    }

    const fn pool(pool: Pool) -> Self {
        Self {
            pool: Some(pool),
            engagement: Engagement::Whole,
            ..Self::service(pool.as_str(), &[Service::AgentPool])
        }
    }

    /// Whether the message queue is any of its business.
    pub(super) fn uses_bus(&self) -> bool {
        self.engagement != Engagement::None
    }
}

impl Part {
    /// What a process of this part does.
    ///
    /// # Errors
    /// This build does not have it.
    pub(super) fn role(self) -> anyhow::Result<Role> {
        Ok(match self {
            Self::StateManager => Role::service("state-manager", &[Service::StateManager]),
            Self::ConfigService => Role {
                engagement: Engagement::Relay,
                announces: true,
                ..Role::service("config-service", &[Service::ConfigService])
            },
            Self::AgentOrchestrator => Role {
                engagement: Engagement::Whole,
                ..Role::service("agent-orchestrator", &[Service::AgentOrchestrator])
            },
            Self::SchedulerService => Role {
                engagement: Engagement::Whole,
                fires_schedules: true,
                ..Role::service("scheduler-service", &[Service::SchedulerService])
            },
            Self::SlackGateway => Role {
                engagement: Engagement::Whole,
                ..Role::service("slack-gateway", &[Service::SlackGateway])
            },
            Self::CollaborativeAgentPool => Role::pool(Pool::Collaborative),
            Self::AutonomousAgentPool => Role::pool(Pool::Autonomous),
            Self::ContinuousAgentRunner => Role::pool(Pool::Continuous),
        })
    }

    /// Parts meet on servers. An embedded store would be one for each machine or container, and a part that was
    /// forgotten to be told of the server would take tasks in that nobody ever sees: so it is refused.
    ///
    /// # Errors
    /// A server is not named.
    pub(super) fn check_servers(self, servers: &Servers) -> anyhow::Result<()> {
        let mut missing = Vec::new();
        if servers.postgres.is_none() {
            missing.push("POSTGRES_HOST (or DATABASE_URL)");
        }
        if servers.rabbitmq.is_none() && self.role()?.uses_bus() {
            missing.push("RABBITMQ_HOST (or RABBITMQ_URL)");
        }
        if missing.is_empty() {
            return Ok(());
        }
        anyhow::bail!(
            "a part needs the servers that it shares with the others: set {}; `agentrunner up` serves everything without any",
            missing.join(" and ")
        )
    }
}
