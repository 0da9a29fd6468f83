//! What every service shares: errors, bodies, queries, paging, tracing, limits, health, metrics.

pub mod access;
pub mod body;
pub mod caller;
pub(crate) mod describe;
pub mod door;
pub mod edge;
pub mod error;
pub mod guard;
pub mod health;
pub mod idempotency;
pub(crate) mod kept;
pub mod limits;
pub mod metrics;
pub mod page;
pub mod params;
mod passage;
pub mod peer;
pub mod trace;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use engine::{Engine, Traces};
use metrics_exporter_prometheus::PrometheusHandle;
use store::Vitals;
use store::cache::Cache;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tools::egress::{Egress, EgressPolicy, SystemResolver};
use tower_http::CompressionLevel;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{
    DefaultPredicate, NotForContentType, Predicate, SizeAbove,
};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use crate::audit::Audit;
use crate::config::ConfigService;
use crate::mcp::sessions::Sessions;
use crate::orchestrator::fleet::Fleet;
use crate::redact::Redactor;
use crate::slack::Slack;
use door::{Door, Routes, Rules};
pub use error::{ApiError, Code};
use kept::Kept;

/// From how many bytes on an answer is compressed: less fits into one packet anyway.
const WORTH_COMPRESSING: u64 = 1024;

/// An answer of a handler.
pub type Answer<T> = Result<T, ApiError>;

/// How the services are served.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The largest body of a request, in bytes.
    pub max_body_bytes: usize,
    /// How long a request may take until its answer begins; waiting that a caller asks for comes on top.
    pub timeout: Duration,
    /// How many requests are worked on at once.
    pub max_requests: usize,
    /// How many streams and waiting requests are open at once.
    pub max_streams: usize,
    /// How often a quiet stream says that it is alive.
    pub heartbeat: Duration,
    /// Names besides those of this machine under which a loopback listener may be asked.
    pub allowed_hosts: Vec<String>,
    /// Origins, such as `https://ops.example.com`, whose pages may use the API from a browser.
    pub allowed_origins: Vec<String>,
    /// The proxies whose word about where a request comes from is taken.
    pub proxies: peer::Proxies,
    /// Whether the process has anything to do with the message queue.
    pub uses_message_queue: bool,
    /// After how much silence a conversation is called idle, when its agent does not say.
    pub idle_timeout: Duration,
    /// How long what is over is kept.
    pub retention: Duration,
    /// The version of the program.
    pub version: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_body_bytes: 5 << 20,
            timeout: Duration::from_secs(30),
            max_requests: 1024,
            max_streams: 3072,
            heartbeat: Duration::from_secs(15),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            proxies: peer::Proxies::default(),
            uses_message_queue: true,
            idle_timeout: Duration::from_secs(600),
            retention: Duration::from_secs(30 * 24 * 60 * 60),
            version: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }
}

/// What handlers work with. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct App {
    /// The engine.
    pub engine: Engine,
    /// The configuration of agents.
    pub config: ConfigService,
    /// How the services are served.
    pub settings: Arc<Settings>,
    /// What makes reading fast, when there is anything.
    pub cache: Option<Arc<dyn Cache>>,
    /// The metrics of this process, when it keeps any.
    pub metrics: Option<PrometheusHandle>,
    /// Whether callers have to show keys, and which.
    pub access: access::Access,
    /// How often callers may ask.
    pub limits: limits::Limits,
    /// Where changes, refusals and decisions are written down.
    pub audit: Audit,
    /// Slack, in a process that serves it.
    pub slack: Option<Slack>,
    /// Knows what may be in no body and no answer.
    pub redactor: Redactor,
    /// The only way out; it tells which addresses may be called back.
    pub egress: Arc<Egress>,
    /// Whether callbacks can be signed, and so be promised.
    pub calls_back: bool,
    /// Where the spans of requests go, when any are told.
    pub traces: Option<Traces>,
    /// When the process began.
    pub started: Instant,
    /// The sessions of MCP clients.
    pub(crate) mcp: Arc<Sessions>,
    /// How agents stand, for lists of them.
    pub(crate) fleet: Arc<Kept<Fleet>>,
    /// What of all processes the metrics tell.
    pub(crate) vitals: Arc<Kept<Vitals>>,
    /// Ends streams when the process is to end.
    pub shutdown: CancellationToken,
    /// Places for requests that end soon.
    pub(crate) requests: Arc<Semaphore>,
    /// Places for streams and waiting requests.
    pub(crate) streams: Arc<Semaphore>,
}

impl App {
    /// Puts together what handlers need.
    pub fn new(
        engine: Engine,
        config: ConfigService,
        settings: Settings,
        metrics: Option<PrometheusHandle>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            engine,
            config,
            requests: Arc::new(Semaphore::new(settings.max_requests)),
            streams: Arc::new(Semaphore::new(settings.max_streams)),
            settings: Arc::new(settings),
            cache: None,
            access: access::Access::open(),
            limits: limits::Limits::none(),
            audit: Audit::none(),
            slack: None,
            redactor: Redactor::default(),
            egress: Arc::new(Egress::new(
                EgressPolicy::default(),
                Arc::new(SystemResolver),
                Duration::from_secs(5),
            )),
            calls_back: false,
            traces: None,
            metrics,
            started: Instant::now(),
            mcp: Arc::new(Sessions::new()),
            fleet: Arc::default(),
            vitals: Arc::default(),
            shutdown,
        }
    }

    /// The same, with the cache that is in front of the engine's store.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<dyn Cache>) -> Self {
        self.cache = Some(cache);
        self
    }

    /// The same, for callers who show keys.
    #[must_use]
    pub fn with_access(mut self, access: access::Access) -> Self {
        self.access = access;
        self
    }

    /// The same, for callers who may ask only so often.
    #[must_use]
    pub fn with_limits(mut self, limits: limits::Limits) -> Self {
        self.limits = limits;
        self
    }

    /// The same, for a process that serves Slack.
    #[must_use]
    pub fn with_slack(mut self, slack: Slack) -> Self {
        self.slack = Some(slack);
        self
    }

    /// The same, taking known secrets out of what comes in and goes out.
    #[must_use]
    pub fn with_redactor(mut self, redactor: Redactor) -> Self {
        self.redactor = redactor;
        self
    }

    /// The same, that sends callbacks out by this way.
    #[must_use]
    pub fn with_callbacks(mut self, egress: Arc<Egress>, calls_back: bool) -> Self {
        self.egress = egress;
        self.calls_back = calls_back;
        self
    }

    /// The same, telling traces of its requests.
    #[must_use]
    pub fn with_traces(mut self, traces: Option<Traces>) -> Self {
        self.traces = traces;
        self
    }

    /// The same, with what happens written down.
    #[must_use]
    pub fn with_audit(mut self, audit: Audit) -> Self {
        self.audit = audit;
        self
    }
}

/// One of the services.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    /// Journals and state.
    StateManager,
    /// Definitions and their versions.
    ConfigService,
    /// Agents and tasks.
    AgentOrchestrator,
    /// Schedules.
    SchedulerService,
    /// Slack.
    SlackGateway,
    /// Health and metrics of a process that performs executions and serves nothing else.
    AgentPool,
}

impl Service {
    /// Those that a process which serves everything listens for.
    pub const ALL: [Self; 5] = [
        Self::StateManager,
        Self::ConfigService,
        Self::AgentOrchestrator,
        Self::SchedulerService,
        Self::SlackGateway,
    ];

    /// The name on the command line, in logs and in compose.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StateManager => "state-manager",
            Self::ConfigService => "config-service",
            Self::AgentOrchestrator => "agent-orchestrator",
            Self::SchedulerService => "scheduler-service",
            Self::SlackGateway => "slack-gateway",
            Self::AgentPool => "agent-pool",
        }
    }

    /// The port that it has when nothing else is said.
    pub const fn default_port(self) -> u16 {
        match self {
            Self::StateManager => 8001,
            Self::ConfigService => 8002,
            Self::AgentOrchestrator => 8003,
            Self::SchedulerService => 8004,
            Self::SlackGateway => 8005,
            Self::AgentPool => 8006,
        }
    }

    /// The variable that sets its port.
    pub const fn port_variable(self) -> &'static str {
        match self {
            Self::StateManager => "STATE_MANAGER_PORT",
            Self::ConfigService => "CONFIG_SERVICE_PORT",
            Self::AgentOrchestrator => "ORCHESTRATOR_PORT",
            Self::SchedulerService => "SCHEDULER_SERVICE_PORT",
            Self::SlackGateway => "SLACK_GATEWAY_PORT",
            Self::AgentPool => "AGENT_POOL_PORT",
        }
    }

    const fn summary(self) -> &'static str {
        match self {
            Self::StateManager => "Executions and their journals.",
            Self::ConfigService => "Definitions of agents, their versions, checks and reloads.",
            Self::AgentOrchestrator => {
                "Agents, tasks, their events and results, questions to people."
            }
            Self::SchedulerService => "When agents work by themselves: schedules and their runs.",
            Self::SlackGateway => "Slack's events, commands and buttons, and messages to Slack.",
            Self::AgentPool => "Health and metrics of a worker.",
        }
    }

    fn routes(self) -> Routes {
        match self {
            Self::StateManager => crate::state::routes(),
            Self::ConfigService => crate::config_api::routes(),
            Self::AgentOrchestrator => crate::orchestrator::routes()
                .merge(crate::openai::routes())
                .merge(crate::mcp::routes()),
            Self::SchedulerService => crate::scheduler::routes(),
            Self::SlackGateway => crate::slack::routes(),
            Self::AgentPool => Routes::new(),
        }
    }
}

/// The whole of a service, ready to be served: its own routes and the shared ones, behind the edge. `loopback` tells
/// that it is bound to a loopback address, and is to be asked under a local name only.
pub fn router(service: Service, app: App, loopback: bool) -> Router {
    let routes = described(service, &app.settings.version);
    let door = Door::new(routes.rules);
    let (routes, mut api) = routes.router.split_for_parts();
    if app.access.is_open() {
        describe::open(&mut api);
    }
    let edge = edge::Edge::new(service, app.clone(), door, loopback);
    // JSON shrinks to a tenth at the lowest level already; the default one takes four times as long for a little more.
    let compression = CompressionLayer::new()
        .quality(CompressionLevel::Fastest)
        .compress_when(
            SizeAbove::new(WORTH_COMPRESSING)
                .and(DefaultPredicate::new())
                .and(NotForContentType::new("text/event-stream")),
        );
    let mut router = routes
        .merge(SwaggerUi::new("/docs").url("/openapi.json", api))
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        .layer(axum::middleware::map_response_with_state(
            app.redactor.clone(),
            body::masked,
        ))
        .layer(compression)
        .layer(axum::middleware::from_fn_with_state(edge, edge::pass));
    let origins: Vec<_> = app
        .settings
        .allowed_origins
        .iter()
        .filter_map(|origin| origin.parse().ok())
        .collect();
    if !origins.is_empty() {
        let cors = CorsLayer::new()
            .allow_origin(AllowOrigin::list(origins))
            .allow_methods(Any)
            .allow_headers(Any)
            .expose_headers(Any);
        router = router.layer(cors);
    }
    router.with_state(app)
}

/// The routes of a service with their description.
pub fn api(service: Service, version: &str) -> OpenApiRouter<App> {
    described(service, version).router
}

/// What each route of a service needs, by path.
pub fn rules(service: Service) -> Rules {
    described(service, "").rules
}

fn described(service: Service, version: &str) -> Routes {
    let info = utoipa::openapi::InfoBuilder::new()
        .title(format!("AgentRunner {}", service.as_str()))
        .version(version)
        .description(Some(service.summary()))
        .build();
    let doc = utoipa::openapi::OpenApiBuilder::new().info(info).build();
    let mut all = Routes::new()
        .merge(service.routes())
        .merge(health::routes())
        .merge(metrics::routes());
    all.router = OpenApiRouter::with_openapi(doc).merge(all.router);
    describe::complete(&mut all);
    all
}
