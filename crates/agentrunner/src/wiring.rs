//! What is built of what: the one place that knows every crate. Start and end in the order in which it is read:
//! store, cache, bus, providers, tools, engine, agents, listeners.

mod aws;
mod gate;
mod identity;
mod listeners;
mod masked_models;
mod masked_tools;
mod outgoing;
mod part;
mod ports;
mod refusals;
mod retention;
mod slack;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use bus::{Bus, InProcess};
use domain::definition::{LlmConfig, Provider};
use domain::{Definition, HealthInterval, Pool};
use engine::{
    Agents, Clock, Engine, Expand, Ports, Refusal, Registration, StoreHost, Surroundings,
};
use llm::{Host, Key, ProviderSettings, Providers};
use metrics_exporter_prometheus::PrometheusHandle;
use secrecy::SecretString;
use services::audit::Audit;
use services::config::ConfigService;
use services::outgoing::SigningKeys;
use services::{App, Service};
use store::Store;
use store::cache::{Cache, Cached};
use store::counters::Counters;
use tokio::sync::mpsc::Receiver;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tools::{EgressPolicy, Toolkit, ToolkitSettings};

use crate::secrets;
use crate::settings::{Instead, Models, Settings};
use crate::telemetry::traces;
use crate::transcript::SCRIPTED;
pub(crate) use aws::settings as aws_settings;
use listeners::Listeners;
use masked_models::MaskedModels;
use masked_tools::MaskedTools;
pub(crate) use outgoing::signing_secret;
pub(crate) use part::Part;
use part::{Engagement, Role};
pub(crate) use ports::{Shared, database, open_bus, open_shared, open_store, own_clock};

const POLL: Duration = Duration::from_secs(1);
/// How long requests may take that are under way when everything else has ended. Those that wait for something end by
/// themselves then.
const LAST_REQUESTS: Duration = Duration::from_secs(5);
const MAX_REPLY_BYTES: usize = 4 << 20;

/// What a system is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// It performs executions.
    Work,
    /// It accepts them, for others to perform.
    Accept,
    /// It only answers questions about them.
    Read,
}

/// A running AgentRunner.
pub(crate) struct System {
    engine: Engine,
    config: ConfigService,
    cache: Arc<dyn Cache>,
    toolkit: Arc<Toolkit>,
    listeners: Option<Listeners>,
    /// How often the listeners' callers may ask.
    counters: Arc<dyn Counters>,
    audit: Audit,
    /// What agents are refused, until somebody writes it down.
    refusals: Option<Receiver<Refusal>>,
    /// What callbacks are signed with, where any are sent.
    signing: Option<Arc<SigningKeys>>,
    /// Where traces are sent, when they are.
    traces: Option<traces::Sender>,
    /// The metrics of this process, when it has listeners.
    metrics: Option<PrometheusHandle>,
    /// The key to the listeners of one command, which nobody else is to use.
    own_key: Option<SecretString>,
    tasks: TaskTracker,
    shutdown: CancellationToken,
    settings: Settings,
    role: Role,
}

impl System {
    /// Everything in one process, at the addresses of the settings.
    ///
    /// # Errors
    /// A server can't be used, the store can't be opened, the agents' folder not be read, or an address not be had.
    pub(crate) async fn up(settings: &Settings) -> anyhow::Result<Self> {
        Self::run(settings, Role::EVERYTHING).await
    }

    /// One part, at its address, on the servers that all parts share.
    ///
    /// # Errors
    /// As for [`System::up`]; or the servers are not named, or this build lacks the part.
    pub(crate) async fn serve_part(settings: &Settings, part: Part) -> anyhow::Result<Self> {
        let role = part.role()?;
        part.check_servers(&settings.servers)?;
        Self::run(settings, role).await
    }

    async fn run(settings: &Settings, role: Role) -> anyhow::Result<Self> {
        let system = Self::build(settings, role).await?;
        system
            .begun(async |system| {
                // Taken first: a second server at the same place must fail before it claims any work.
                let listeners = Listeners::bind(settings, system.role.services).await?;
                system.metrics = Some(listeners::keep_metrics()?);
                system.config.reload().await?;
                system.engine.load_switches().await?;
                match system.role.engagement {
                    Engagement::Whole => system.engine.start(),
                    Engagement::Relay => system.engine.start_relay(),
                    Engagement::None => {}
                }
                if system.role.fires_schedules {
                    system.engine.start_scheduler();
                }
                if system.role.services.contains(&Service::AgentOrchestrator) {
                    system.signing = outgoing::signing_keys(&system.settings)?;
                }
                system.serve_slack_too(listeners)?;
                system.start_sending()?;
                let (config, shutdown) = (system.config.clone(), system.shutdown.clone());
                system
                    .tasks
                    .spawn(async move { config.run(shutdown).await });
                let keeper = secrets::Keeper {
                    values: system.settings.values.clone(),
                    managers: system.settings.managers.clone(),
                    references: system.settings.references.clone(),
                    period: system.settings.secrets_period,
                    redactor: system.settings.redactor.clone(),
                    engine: system.engine.clone(),
                };
                system
                    .tasks
                    .spawn(secrets::keep(keeper, system.shutdown.clone()));
                // StateManager's business; where it is served by many, each finds what the others left.
                if role.services.contains(&Service::StateManager) {
                    system.tasks.spawn(retention::keep(
                        system.engine.clone(),
                        system.audit.clone(),
                        system.settings.state.retention,
                        system.shutdown.clone(),
                    ));
                }
                Ok(())
            })
            .await
    }

    /// For one command: at free ports of loopback.
    ///
    /// # Errors
    /// As for [`System::up`].
    pub(crate) async fn private(settings: &Settings, purpose: Purpose) -> anyhow::Result<Self> {
        let role = match purpose {
            Purpose::Work => Role::EVERYTHING,
            Purpose::Accept => Part::AgentOrchestrator.role()?,
            Purpose::Read => Role::READING,
        };
        let system = Self::build(settings, role).await?;
        system
            .begun(async |system| {
                system.metrics = Some(listeners::keep_metrics()?);
                let loaded = system.config.reload().await;
                system.engine.load_switches().await?;
                match purpose {
                    Purpose::Work | Purpose::Accept => {
                        loaded?;
                        system.engine.start();
                    }
                    // What ran can be looked at without any agent.
                    Purpose::Read => drop(loaded.inspect_err(|error| tracing::warn!("{error}"))),
                }
                system.keep_to_itself();
                system
                    .serve(Listeners::private(role.services).await?)
                    .map(drop)
            })
            .await
    }

    /// Without listeners, for measuring.
    ///
    /// # Errors
    /// As for [`System::up`].
    pub(crate) async fn engine_alone(settings: &Settings) -> anyhow::Result<Self> {
        Self::without_listeners(settings, Role::EVERYTHING).await
    }

    /// The same of a process that fires schedules and performs nothing.
    ///
    /// # Errors
    /// As for [`System::up`].
    pub(crate) async fn scheduler_alone(settings: &Settings) -> anyhow::Result<Self> {
        Self::without_listeners(settings, Part::SchedulerService.role()?).await
    }

    async fn without_listeners(settings: &Settings, role: Role) -> anyhow::Result<Self> {
        let system = Self::build(settings, role).await?;
        system
            .begun(async |system| {
                system.config.reload().await?;
                system.engine.start();
                Ok(())
            })
            .await
    }

    /// Begins; when that fails, connections are closed before anything else ends.
    async fn begun(
        mut self,
        begin: impl AsyncFnOnce(&mut Self) -> anyhow::Result<()>,
    ) -> anyhow::Result<Self> {
        match begin(&mut self).await {
            Ok(()) => Ok(self),
            Err(error) => {
                self.shutdown(Duration::ZERO).await;
                Err(error)
            }
        }
    }

    /// The engine.
    pub(crate) const fn engine(&self) -> &Engine {
        &self.engine
    }

    /// Logs each choice and each listener, a line each.
    pub(crate) fn say_what_runs(&self) {
        let settings = &self.settings;
        tracing::info!("serves {}", self.role.name);
        ports::say_what_was_chosen(settings, &self.role);
        if self.engine.performs() {
            for line in who_answers(settings, &self.engine.agents().all()) {
                tracing::info!("model: {line}");
            }
        }
        tracing::info!(
            "agents: {} from {}",
            self.engine.agents().all().len(),
            settings.agents_dir().display()
        );
        if self.engine.performs() && self.is_scripted() {
            tracing::warn!("{SCRIPTED}");
        }
        gate::say_who_may_ask(settings);
        if self.role.services.contains(&Service::SlackGateway) {
            self.say_how_slack_is_reached();
        }
        if self.role.services.contains(&Service::AgentOrchestrator) {
            outgoing::say_who_signs(settings);
        }
        for line in self.listeners.iter().flat_map(Listeners::lines) {
            tracing::info!("{line}");
        }
    }

    /// Ends in order: it says that it is not ready, claims nothing more, and lets what runs come to its next durable step
    /// or hands it back. All this while, and for `drain` at least, its ports answer: a watcher hears the end of what
    /// runs here, and a load balancer sees in time that it is to go elsewhere. Then requests under way come to their
    /// end, streams end, and what was accepted is on disk.
    pub(crate) async fn shutdown(&self, drain: Duration) {
        tokio::join!(
            self.engine.shutdown(self.settings.work.shutdown),
            tokio::time::sleep(drain)
        );
        self.shutdown.cancel();
        self.tasks.close();
        self.tasks.wait().await;
        self.audit.flush().await;
        self.toolkit.shutdown().await;
        if let Some(traces) = self.traces.clone() {
            traces.shutdown().await;
        }
        self.engine.bus().close().await;
        if let Err(error) = self.engine.store().close().await {
            tracing::warn!(%error, "the database was not closed cleanly; nothing that was accepted is lost");
        }
    }

    async fn build(settings: &Settings, role: Role) -> anyhow::Result<Self> {
        let (store, clock) = ports::open_store_and_clock(settings).await?;
        let shared = if role.shares_copies {
            open_shared(settings, store.identity().await?).await?
        } else {
            Shared::here()
        };
        let lifetimes = settings.servers.lifetimes;
        let store: Arc<dyn Store> = Arc::new(Cached::new(store, shared.cache.clone(), lifetimes));
        let bus: Arc<dyn Bus> = if role.uses_bus() {
            open_bus(settings).await?
        } else {
            // Nothing is published then: another process carries what is written.
            Arc::new(InProcess::default())
        };
        let clock = ports::perhaps_wrong(settings, clock);
        let toolkit = Arc::new(toolkit(settings, &store, &clock)?);
        let (on_refusal, refusals) = refusals::told();
        let engine_settings = engine_settings(settings, role.pool)?;
        let traces = traces::Sender::start(
            &settings.tracing,
            engine_settings.worker.as_str(),
            &settings.redactor,
        )?;
        let ports = Ports {
            store,
            bus,
            model: Arc::new(MaskedModels::new(
                providers(settings),
                settings.redactor.clone(),
            )),
            tools: Arc::new(MaskedTools::new(
                toolkit.clone(),
                settings.redactor.clone(),
                on_refusal.clone(),
            )),
            clock,
        };
        let engine = Engine::within(
            ports,
            Agents::new(expand(settings)),
            engine_settings,
            Surroundings {
                counters: shared.counters.clone(),
                on_refusal,
                traces: traces.as_ref().map(traces::Sender::traces),
                ..Surroundings::default()
            },
        );
        let values = settings.values.clone();
        let config = services::config::Settings {
            announces: role.announces,
            ..services::config::Settings::new(
                settings.agents_dir(),
                Arc::new(move |name: &str| values.lookup(name)),
            )
        };
        Ok(Self {
            config: ConfigService::new(config, engine.clone()),
            engine,
            cache: shared.cache,
            toolkit,
            listeners: None,
            counters: shared.counters,
            audit: Audit::none(),
            refusals: Some(refusals),
            signing: None,
            traces,
            metrics: None,
            own_key: None,
            tasks: TaskTracker::new(),
            shutdown: CancellationToken::new(),
            settings: settings.clone(),
            role,
        })
    }

    fn serve(&mut self, mut listeners: Listeners) -> anyhow::Result<App> {
        let app = listeners::app(
            &self.engine,
            &self.config,
            &self.settings,
            &self.shutdown,
            self.role.uses_bus(),
            self.metrics.clone(),
        );
        let mut app = app
            .with_cache(self.cache.clone())
            .with_access(self.access())
            .with_limits(self.limits())
            .with_callbacks(self.toolkit.egress().clone(), self.signing.is_some())
            .with_audit(self.audit()?)
            .with_redactor(self.settings.redactor.clone())
            .with_traces(self.traces.as_ref().map(traces::Sender::traces));
        self.audit = app.audit.clone();
        // The listeners of one command are nobody else's.
        if self.role.services.contains(&Service::SlackGateway) && self.own_key.is_none() {
            app = app.with_slack(self.slack()?);
        }
        self.config.write_down_in(&self.audit);
        // Without an audit log nobody listens.
        if let Some(refusals) = self.refusals.take().filter(|_| self.audit.is_on()) {
            self.tasks.spawn(refusals::write_down(
                self.audit.clone(),
                self.engine.clone(),
                refusals,
                self.shutdown.clone(),
            ));
        }
        listeners.serve(
            app.clone(),
            &self.tasks,
            LAST_REQUESTS.min(self.settings.work.shutdown),
        );
        self.listeners = Some(listeners);
        Ok(app)
    }

    fn is_scripted(&self) -> bool {
        let instead = self.settings.models.instead.as_ref();
        self.engine
            .agents()
            .all()
            .iter()
            .any(|agent| asked(&agent.definition, instead).provider == Provider::Scripted)
    }
}

/// All providers, each with its address and key.
pub(crate) fn providers(settings: &Settings) -> Providers {
    let Models {
        openai_url,
        anthropic_url,
        ollama_url,
        ..
    } = &settings.models;
    let mut known = ProviderSettings {
        bedrock: aws_settings(settings),
        scripts_root: settings.config_dir.clone(),
        ..ProviderSettings::default()
    };
    let set = |host: &mut Host, url: &Option<String>| {
        if let Some(url) = url {
            host.base_url.clone_from(url);
        }
    };
    set(&mut known.openai, openai_url);
    set(&mut known.anthropic, anthropic_url);
    set(&mut known.ollama, ollama_url);
    known.openai.key = key(settings, "OPENAI_API_KEY");
    known.anthropic.key = key(settings, "ANTHROPIC_API_KEY");
    known.openai_organization = settings.values.lookup("OPENAI_ORG_ID");
    known.openai_project = settings.values.lookup("OPENAI_PROJECT_ID");
    Providers::new(known)
}

/// A key as it is at the moment of the call.
fn key(settings: &Settings, name: &'static str) -> Key {
    let values = settings.values.clone();
    Key::from_fn(move || values.lookup(name).map(SecretString::from))
}

/// All tools, behind the egress guard of the settings.
///
/// # Errors
/// A rule of the guard can't be read, or there is no working directory.
pub(crate) fn toolkit(
    settings: &Settings,
    store: &Arc<dyn Store>,
    clock: &Clock,
) -> anyhow::Result<Toolkit> {
    let egress = EgressPolicy::parse(&settings.egress.allow, &settings.egress.deny)
        .context("EGRESS_ALLOW or EGRESS_DENY")?;
    let here = std::env::current_dir().context("there is no working directory")?;
    let tools = ToolkitSettings {
        egress,
        path: settings.values.lookup("PATH").map(Into::into),
        home: settings.values.lookup("HOME").map(Into::into),
        ..ToolkitSettings::new(here, clock.clone())
    };
    Ok(Toolkit::new(
        tools,
        Arc::new(StoreHost::new(store.clone(), clock.clone())),
    ))
}

/// Without a pool, the engine takes tasks in and performs none.
fn engine_settings(settings: &Settings, pool: Option<Pool>) -> anyhow::Result<engine::Settings> {
    Ok(engine::Settings {
        worker: identity::worker_id()?,
        capacity: settings.work.capacity,
        modes: pool.map_or_else(Vec::new, |pool| pool.modes().to_vec()),
        lease: settings.work.lease,
        poll: POLL,
        max_crashes: settings.work.max_crashes,
        max_reply_bytes: MAX_REPLY_BYTES,
        is_gone: Some(Arc::new(identity::is_gone)),
        registration: Registration {
            pool: pool.unwrap_or(Pool::Everything),
            host: identity::host_name(),
            process: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            interval: HealthInterval::new(settings.work.health_interval),
        },
    })
}

/// Gives a definition the values of its variables, and the provider that is asked instead of its own.
pub(crate) fn expand(settings: &Settings) -> Expand {
    let values = settings.values.clone();
    let instead = settings.models.instead.clone();
    let redactor = settings.redactor.clone();
    Arc::new(move |definition: &Definition| {
        let mut expanded = definition.clone();
        // First, so that a key which is not needed any more is not missed.
        expanded.llm_config = asked(definition, instead.as_ref());
        let expanded = expanded.expanded(&|name| values.lookup(name))?;
        // Now they are known, and are masked wherever they turn up.
        redactor.learn(expanded.llm_config.api_key.as_deref());
        for entry in &expanded.tools {
            redactor.learn(tools::secrets(entry));
        }
        Ok(expanded)
    })
}

/// The model that an agent's calls go to.
pub(crate) fn asked(definition: &Definition, instead: Option<&Instead>) -> LlmConfig {
    let mut config = definition.llm_config.clone();
    let Some(instead) = instead else {
        return config;
    };
    if config.provider != instead.provider {
        // What was meant for another provider must not reach this one: neither addresses nor keys nor parameters.
        config.api_base = None;
        config.api_key = None;
        config.endpoint_url = None;
        config.region = None;
        config.response_format = None;
        config.additional_params = None;
    }
    config.fallbacks = Vec::new();
    match &instead.model {
        Some(model) => config.model.clone_from(model),
        None if config.provider == Provider::Scripted => {}
        None => config.model = format!("scripts/{}.yml", definition.name),
    }
    config.provider = instead.provider;
    config
}

/// Each provider that is asked, with how many agents ask it.
fn who_answers(settings: &Settings, agents: &[engine::Agent]) -> Vec<String> {
    let mut asking = std::collections::BTreeMap::<&str, usize>::new();
    for agent in agents {
        let config = asked(&agent.definition, settings.models.instead.as_ref());
        *asking.entry(config.provider.as_str()).or_default() += 1;
    }
    asking
        .into_iter()
        .map(|(provider, agents)| format!("{provider}, for {agents} agents"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn definition(config: serde_json::Value) -> Definition {
        serde_json::from_value(serde_json::json!({
            "name": "a", "execution_mode": "autonomous", "system_prompt": "x", "llm_config": config,
        }))
        .unwrap()
    }

    #[test]
    fn another_provider_gets_no_address_and_no_key_of_the_agents_own() {
        let agent = definition(serde_json::json!({
            "provider": "openai", "model": "m", "api_base": "http://internal/v1", "api_key": "${KEY}",
            "fallbacks": [{ "provider": "anthropic", "model": "n" }],
        }));
        let scripted = Instead {
            provider: Provider::Scripted,
            model: None,
        };
        let config = asked(&agent, Some(&scripted));
        assert_eq!(
            (config.provider, config.model.as_str()),
            (Provider::Scripted, "scripts/a.yml")
        );
        assert_eq!(
            (config.api_base, config.api_key, config.fallbacks),
            (None, None, Vec::new())
        );
        assert_eq!(asked(&agent, None), agent.llm_config);
    }
}
