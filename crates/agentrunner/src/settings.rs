//! All settings, from the command line, the environment, `.env` and defaults, in this order. Nothing else of the
//! program reads a variable; nothing at all writes one.

mod access;
mod outgoing;
mod places;
mod servers;
mod slack;
mod source;
mod tls;
mod tracing;
mod values;
mod variable;

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use domain::definition::Provider;
use secrecy::SecretString;
use services::Service;
use services::redact::{Redactor, can_be_found};
use tools::EgressPolicy;

use crate::secrets::{self, Managers, References};
pub(crate) use access::Access;
pub(crate) use outgoing::Outgoing;
use places::Places;
pub(crate) use servers::Servers;
use source::EnvFile;
pub(crate) use source::{Doubled, Origin, ProcessEnvironment, Source};
pub(crate) use tls::Trust;
pub(crate) use tracing::Tracing;
pub(crate) use values::{Mistake, Values, read_secret};
pub(crate) use variable::VARIABLES;
use variable::Variable;

const DAY_SECONDS: u64 = 24 * 60 * 60;

/// What the program is told.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) config_dir: PathBuf,
    pub(crate) data_dir: PathBuf,
    pub(crate) log: Log,
    pub(crate) listen: Listen,
    pub(crate) requests: Requests,
    pub(crate) access: Access,
    /// The AgentOrchestrator to ask, when one is named.
    pub(crate) server: Option<String>,
    /// Whom the command line trusts.
    pub(crate) trust: Trust,
    pub(crate) work: Work,
    pub(crate) servers: Servers,
    pub(crate) state: StateKept,
    pub(crate) models: Models,
    pub(crate) egress: Egress,
    pub(crate) slack: slack::SlackAccess,
    /// Who keeps secrets that the settings refer to, and which.
    pub(crate) managers: Option<Arc<Managers>>,
    pub(crate) references: References,
    /// How often those are asked.
    pub(crate) secrets_period: Duration,
    /// Knows all secrets of the settings.
    pub(crate) redactor: Redactor,
    pub(crate) outgoing: Outgoing,
    pub(crate) tracing: Tracing,
    /// What `.env` says more than once.
    pub(crate) doubled: Vec<Doubled>,
    /// The values behind it all, for `doctor` and for `${NAME}` in agents.
    pub(crate) values: Arc<Values>,
}

/// What is logged, how and where.
#[derive(Debug, Clone)]
pub(crate) struct Log {
    pub(crate) level: String,
    /// `None`: text on a terminal, else JSON.
    pub(crate) is_json: Option<bool>,
    pub(crate) dir: Option<PathBuf>,
}

/// Where the services listen.
#[derive(Debug, Clone)]
pub(crate) struct Listen {
    pub(crate) address: IpAddr,
    pub(crate) is_open: bool,
    pub(crate) state_manager: u16,
    pub(crate) config_service: u16,
    pub(crate) orchestrator: u16,
    pub(crate) scheduler: u16,
    pub(crate) slack: u16,
    pub(crate) pool: u16,
    /// What TLS is spoken with.
    pub(crate) tls: Option<services::tls::Files>,
}

impl Listen {
    /// The port of a service.
    pub(crate) const fn port(&self, service: Service) -> u16 {
        match service {
            Service::StateManager => self.state_manager,
            Service::ConfigService => self.config_service,
            Service::AgentOrchestrator => self.orchestrator,
            Service::SchedulerService => self.scheduler,
            Service::SlackGateway => self.slack,
            Service::AgentPool => self.pool,
        }
    }

    /// Where this machine finds its own listeners.
    pub(crate) fn own_address(&self) -> IpAddr {
        match self.address {
            IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            address => address,
        }
    }
}

/// Which requests are answered.
#[derive(Debug, Clone)]
pub(crate) struct Requests {
    pub(crate) max_body_bytes: usize,
    /// Names of this machine besides its own.
    pub(crate) allowed_hosts: Vec<String>,
    /// Origins whose pages may ask.
    pub(crate) allowed_origins: Vec<String>,
    /// After how much silence a conversation is called idle.
    pub(crate) idle_timeout: Duration,
}

/// How the engine works.
#[derive(Debug, Clone)]
pub(crate) struct Work {
    pub(crate) capacity: usize,
    pub(crate) lease: Duration,
    pub(crate) drain: Duration,
    pub(crate) shutdown: Duration,
    pub(crate) max_crashes: u32,
    pub(crate) health_interval: Duration,
}

/// How state is kept.
#[derive(Debug, Clone)]
pub(crate) struct StateKept {
    /// What is longer is compressed, in bytes.
    pub(crate) compress_above: usize,
    /// How long what is over stays.
    pub(crate) retention: Duration,
}

impl StateKept {
    fn read(values: &Values) -> Self {
        let bytes = values.number("STATE_COMPRESSION_THRESHOLD");
        Self {
            compress_above: usize::try_from(bytes).unwrap_or(usize::MAX),
            retention: Duration::from_secs(values.number("STATE_RETENTION_DAYS") * DAY_SECONDS),
        }
    }
}

/// Who answers.
#[derive(Clone)]
pub(crate) struct Models {
    pub(crate) openai_key: Option<SecretString>,
    pub(crate) openai_url: Option<String>,
    pub(crate) anthropic_key: Option<SecretString>,
    pub(crate) anthropic_url: Option<String>,
    pub(crate) ollama_url: Option<String>,
    /// Asked instead of what the agents say.
    pub(crate) instead: Option<Instead>,
}

/// The provider that is asked instead of what the agents say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Instead {
    pub(crate) provider: Provider,
    /// `None` for `scripted`: each agent has its own script.
    pub(crate) model: Option<String>,
}

/// Where tools may reach.
#[derive(Debug, Clone)]
pub(crate) struct Egress {
    /// Separated by commas.
    pub(crate) allow: String,
    pub(crate) deny: String,
}

/// All mistakes in the settings, at once.
#[derive(Debug, thiserror::Error)]
pub(crate) struct Mistakes(pub(crate) Vec<Mistake>);

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = self.0.len();
        write!(
            f,
            "{n} setting{} can't be used:",
            if n == 1 { "" } else { "s" }
        )?;
        for Mistake {
            name,
            value,
            message,
        } in &self.0
        {
            match value.as_str() {
                "" => write!(f, "\n  {name}: {message}")?,
                _ => write!(f, "\n  {name}={value}: {message}")?,
            }
        }
        Ok(())
    }
}

impl Settings {
    /// Reads all settings. Does no I/O but reading the files that `_FILE` variables name.
    ///
    /// # Errors
    /// All mistakes that there are.
    pub(crate) fn read(
        flags: &BTreeMap<String, String>,
        environment: &dyn Source,
        env_file: &dyn Source,
    ) -> Result<Self, Mistakes> {
        let (values, mut mistakes) = Values::merge(vec![
            (Origin::Flag, flags.clone()),
            (Origin::Environment, environment.all()),
            (Origin::EnvFile, env_file.all()),
        ]);
        let settings = Self::from_values(values, &mut mistakes);
        if mistakes.is_empty() {
            Ok(settings)
        } else {
            Err(Mistakes(mistakes))
        }
    }

    /// Reads them from the process and from `.env` in the working directory, and what they refer to from where that is.
    ///
    /// # Errors
    /// All mistakes that there are.
    pub(crate) fn from_process(flags: &BTreeMap<String, String>) -> Result<Self, Mistakes> {
        let file = env_file()?;
        let environment = ProcessEnvironment.all();
        let places = Places {
            flags,
            environment: environment.clone(),
            lines: file.lines,
        };
        let mut layers = [environment, file.values];
        let resolved = secrets::resolve(&mut layers);
        let (managers, references) = resolved.map_err(|found| places.add_to(Mistakes(found)))?;
        let [environment, values] = layers;
        let settings = Self::read(flags, &environment, &values);
        let settings = settings.map_err(|found| places.add_to(found))?;
        for name in references.keys() {
            settings
                .redactor
                .learn(settings.values.lookup(name).as_deref());
        }
        Ok(Self {
            managers: managers.map(Arc::new),
            references,
            doubled: file.doubled,
            ..settings
        })
    }

    /// Reads only where the listeners are and what TLS is spoken with: for asking them, whatever else is set.
    ///
    /// # Errors
    /// All mistakes that there are in that.
    pub(crate) fn of_listeners(flags: &BTreeMap<String, String>) -> Result<Self, Mistakes> {
        let is_meant = |name: &str| {
            name == "BIND_ADDRESS"
                || name.ends_with("_PORT")
                || name.contains("TLS")
                || ["CA", "CERT", "KEY"]
                    .iter()
                    .any(|what| name == format!("AGENTRUNNER_{what}_PATH"))
        };
        let (mut environment, mut file) = (ProcessEnvironment.all(), env_file()?.values);
        for layer in [&mut environment, &mut file] {
            layer.retain(|name, _| is_meant(name) && Variable::named(name).is_some());
        }
        // Who may ask is none of its business.
        environment.insert("ALLOW_UNAUTHENTICATED".to_owned(), "true".to_owned());
        Self::read(flags, &environment, &file)
    }

    /// For one part of several: of the many that start at once, none changes the schema unless it is told to. Nobody sits
    /// before it, so it waits for servers that start at the same time.
    pub(crate) fn for_a_part(&self) -> Self {
        let mut settings = self.clone();
        let patience = self.values.number("SERVERS_PATIENCE_SECONDS");
        settings.servers.patience = Duration::from_secs(patience);
        let is_said = self.values.text("AUTO_MIGRATE").is_some();
        if let Some(postgres) = settings.servers.postgres.as_mut().filter(|_| !is_said) {
            postgres.auto_migrate = false;
        }
        settings
    }

    /// Where the command line finds AgentOrchestrator.
    pub(crate) fn server_url(&self) -> String {
        self.server.clone().unwrap_or_else(|| {
            let scheme = if self.listen.tls.is_some() {
                "https"
            } else {
                "http"
            };
            format!(
                "{scheme}://{}",
                SocketAddr::new(self.listen.own_address(), self.listen.orchestrator)
            )
        })
    }

    /// Secrets that can't be told from other text.
    pub(crate) fn hard_to_mask(&self) -> impl Iterator<Item = &'static str> {
        VARIABLES
            .iter()
            .filter(|variable| variable.is_secret())
            .filter_map(|variable| {
                let text = self.values.text(variable.name)?;
                // Of an address, the password is the secret.
                (!text.contains("://") && !can_be_found(text)).then_some(variable.name)
            })
    }

    /// Where the files of agents are.
    pub(crate) fn agents_dir(&self) -> PathBuf {
        self.config_dir.join("agents")
    }

    /// The rules and receivers of alerts.
    pub(crate) fn alerts_file(&self) -> PathBuf {
        self.config_dir.join("alerts.yml")
    }

    fn from_values(values: Values, mistakes: &mut Vec<Mistake>) -> Self {
        let path = |name| values.path(name).unwrap_or_default();
        let text = |name| values.text(name).map(str::to_owned);
        let secret = |name| values.text(name).map(SecretString::from);
        let listen = Listen {
            address: text("BIND_ADDRESS")
                .and_then(|text| text.parse().ok())
                .unwrap_or(IpAddr::from([127, 0, 0, 1])),
            is_open: values.switch("ALLOW_UNAUTHENTICATED"),
            state_manager: values.port("STATE_MANAGER_PORT"),
            config_service: values.port("CONFIG_SERVICE_PORT"),
            orchestrator: values.port("ORCHESTRATOR_PORT"),
            scheduler: values.port("SCHEDULER_SERVICE_PORT"),
            slack: values.port("SLACK_GATEWAY_PORT"),
            pool: values.port("AGENT_POOL_PORT"),
            tls: tls::listeners(&values, mistakes),
        };
        let own = listen.tls.as_ref().map(|files| files.certificate.as_path());
        let trust = Trust::read(&values, own, mistakes);
        let access = Access::read(&values, mistakes);
        check_listen(&listen, access.bootstrap.is_some(), mistakes);
        let egress = Egress {
            allow: text("EGRESS_ALLOW").unwrap_or_default(),
            deny: text("EGRESS_DENY").unwrap_or_default(),
        };
        check_egress(&egress, mistakes);
        let redactor = Redactor::default();
        redactor.learn(values.secrets().map(|(_, value)| value));
        Self {
            config_dir: path("CONFIG_DIR"),
            data_dir: path("DATA_DIR"),
            log: Log {
                level: text("LOG_LEVEL").unwrap_or_default().to_ascii_uppercase(),
                is_json: text("LOG_FORMAT").map(|format| format.eq_ignore_ascii_case("json")),
                dir: values.path("LOG_DIR"),
            },
            listen,
            access,
            requests: Requests {
                max_body_bytes: usize::try_from(values.number("MAX_BODY_BYTES"))
                    .unwrap_or(usize::MAX),
                allowed_hosts: values.list("ALLOWED_HOSTS"),
                allowed_origins: values.list("ALLOWED_ORIGINS"),
                idle_timeout: Duration::from_secs(values.number("CONTINUOUS_AGENT_IDLE_TIMEOUT")),
            },
            trust,
            server: text("AGENTRUNNER_SERVER").map(|url| url.trim_end_matches('/').to_owned()),
            work: Work {
                capacity: usize::try_from(values.number("AGENT_CAPACITY")).unwrap_or(usize::MAX),
                lease: Duration::from_secs(values.number("AGENT_LEASE_SECONDS")),
                drain: Duration::from_secs(values.number("AGENT_DRAIN_SECONDS")),
                shutdown: Duration::from_secs(values.number("AGENT_SHUTDOWN_TIMEOUT")),
                max_crashes: u32::try_from(values.number("AGENT_RESTART_MAX_ATTEMPTS"))
                    .unwrap_or(u32::MAX),
                health_interval: Duration::from_secs(values.number("AGENT_HEALTH_CHECK_INTERVAL")),
            },
            servers: Servers::read(&values),
            state: StateKept::read(&values),
            models: Models {
                openai_key: secret("OPENAI_API_KEY"),
                openai_url: text("OPENAI_BASE_URL"),
                anthropic_key: secret("ANTHROPIC_API_KEY"),
                anthropic_url: text("ANTHROPIC_BASE_URL"),
                ollama_url: text("OLLAMA_BASE_URL"),
                instead: instead(&values, mistakes),
            },
            egress,
            slack: slack::SlackAccess::read(&values, mistakes),
            managers: None,
            references: References::new(),
            secrets_period: Duration::from_secs(values.number("SECRETS_REFRESH_SECONDS")),
            redactor,
            outgoing: Outgoing::read(&values, mistakes),
            tracing: Tracing::read(&values, mistakes),
            doubled: Vec::new(),
            values: Arc::new(values),
        }
    }
}

/// `.env` in the working directory.
fn env_file() -> Result<EnvFile, Mistakes> {
    source::read_env_file(Path::new(".env")).map_err(|message| {
        Mistakes(vec![Mistake {
            name: ".env".to_owned(),
            value: String::new(),
            message,
        }])
    })
}

/// Without keys, only this machine may reach the services, unless the operator says otherwise.
fn check_listen(listen: &Listen, needs_key: bool, mistakes: &mut Vec<Mistake>) {
    if let Err(message) = services::check_bind(listen.address, needs_key, listen.is_open) {
        mistakes.push(Mistake {
            name: "BIND_ADDRESS".to_owned(),
            value: listen.address.to_string(),
            message,
        });
    }
    let ports = [
        ("STATE_MANAGER_PORT", listen.state_manager),
        ("CONFIG_SERVICE_PORT", listen.config_service),
        ("ORCHESTRATOR_PORT", listen.orchestrator),
        ("SCHEDULER_SERVICE_PORT", listen.scheduler),
        ("SLACK_GATEWAY_PORT", listen.slack),
        ("AGENT_POOL_PORT", listen.pool),
    ];
    for (index, (name, port)) in ports.iter().enumerate() {
        if let Some((other, _)) = ports
            .iter()
            .take(index)
            .find(|(_, earlier)| earlier == port && *port != 0)
        {
            mistakes.push(Mistake {
                name: (*name).to_owned(),
                value: port.to_string(),
                message: format!("{other} is the same port; each service needs its own"),
            });
        }
    }
}

/// A rule that can't be read must not silently allow or forbid nothing.
fn check_egress(egress: &Egress, mistakes: &mut Vec<Mistake>) {
    let rules = [
        (
            "EGRESS_ALLOW",
            egress.allow.as_str(),
            EgressPolicy::parse(&egress.allow, ""),
        ),
        (
            "EGRESS_DENY",
            egress.deny.as_str(),
            EgressPolicy::parse("", &egress.deny),
        ),
    ];
    for (name, value, parsed) in rules {
        if let Err(error) = parsed {
            mistakes.push(Mistake {
                name: name.to_owned(),
                value: value.to_owned(),
                message: error.to_string(),
            });
        }
    }
}

fn instead(values: &Values, mistakes: &mut Vec<Mistake>) -> Option<Instead> {
    let provider = match values
        .text("AGENTRUNNER_PROVIDER")?
        .to_ascii_lowercase()
        .as_str()
    {
        "openai" => Provider::Openai,
        "anthropic" => Provider::Anthropic,
        "bedrock" => Provider::Bedrock,
        "ollama" => Provider::Ollama,
        _ => Provider::Scripted,
    };
    let model = values.text("AGENTRUNNER_MODEL").map(str::to_owned);
    if provider == Provider::Scripted {
        return Some(Instead {
            provider,
            model: None,
        });
    }
    if model.is_none() {
        mistakes.push(Mistake {
            name: "AGENTRUNNER_MODEL".to_owned(),
            value: String::new(),
            message: format!(
                "needed with AGENTRUNNER_PROVIDER={}: the agents' own models belong to other providers",
                provider.as_str()
            ),
        });
    }
    Some(Instead { provider, model })
}

/// Every variable with its value as it may be shown, and its origin.
pub(crate) fn shown(values: &Values) -> impl Iterator<Item = (&'static str, String, Origin)> {
    VARIABLES.iter().filter_map(|variable| {
        let text = values.text(variable.name)?;
        Some((
            variable.name,
            values::shown(variable, text),
            values.origin(variable.name),
        ))
    })
}

#[cfg(test)]
mod tests;
