//! What every service shares: errors, bodies, queries, paging, tracing, limits, health, metrics.

pub mod body;
pub mod edge;
pub mod error;
pub mod guard;
pub mod health;
pub mod idempotency;
pub mod metrics;
pub mod page;
pub mod params;

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use engine::Engine;
use metrics_exporter_prometheus::PrometheusHandle;
use store::cache::Cache;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tower_http::compression::CompressionLayer;
use tower_http::compression::predicate::{DefaultPredicate, NotForContentType, Predicate};
use tower_http::cors::{AllowOrigin, Any, CorsLayer};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_swagger_ui::SwaggerUi;

use crate::config::ConfigService;
pub use error::{ApiError, Code};

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
    /// Whether the process has anything to do with the message queue.
    pub uses_message_queue: bool,
    /// After how much silence a conversation is called idle, when its agent does not say.
    pub idle_timeout: Duration,
    /// The version of the program.
    pub version: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            max_body_bytes: 5 << 20,
            timeout: Duration::from_secs(30),
            max_requests: 1024,
            max_streams: 1024,
            heartbeat: Duration::from_secs(15),
            allowed_hosts: Vec::new(),
            allowed_origins: Vec::new(),
            uses_message_queue: true,
            idle_timeout: Duration::from_secs(600),
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
    /// When the process began.
    pub started: Instant,
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
            metrics,
            started: Instant::now(),
            shutdown,
        }
    }

    /// The same, with the cache that is in front of the engine's store.
    #[must_use]
    pub fn with_cache(mut self, cache: Arc<dyn Cache>) -> Self {
        self.cache = Some(cache);
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
    /// Health and metrics of a process that performs executions and serves nothing else.
    AgentPool,
}

impl Service {
    /// Those that a process which serves everything listens for.
    pub const ALL: [Self; 4] = [
        Self::StateManager,
        Self::ConfigService,
        Self::AgentOrchestrator,
        Self::SchedulerService,
    ];

    /// The name on the command line, in logs and in compose.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::StateManager => "state-manager",
            Self::ConfigService => "config-service",
            Self::AgentOrchestrator => "agent-orchestrator",
            Self::SchedulerService => "scheduler-service",
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
            Self::AgentPool => "Health and metrics of a worker.",
        }
    }

    fn routes(self) -> OpenApiRouter<App> {
        match self {
            Self::StateManager => crate::state::routes(),
            Self::ConfigService => crate::config_api::routes(),
            Self::AgentOrchestrator => crate::orchestrator::routes().merge(crate::openai::routes()),
            Self::SchedulerService => crate::scheduler::routes(),
            Self::AgentPool => OpenApiRouter::new(),
        }
    }
}

/// The whole of a service, ready to be served: its own routes and the shared ones, behind the edge. `loopback` tells
/// that it is bound to a loopback address, and is to be asked under a local name only.
pub fn router(service: Service, app: App, loopback: bool) -> Router {
    let (routes, api) = api(service, &app.settings.version).split_for_parts();
    let edge = edge::Edge::new(service, app.clone(), loopback);
    let no_streams = NotForContentType::new("text/event-stream");
    let mut router = routes
        .merge(SwaggerUi::new("/docs").url("/openapi.json", api))
        .fallback(error::no_route)
        .method_not_allowed_fallback(error::no_method)
        .layer(CompressionLayer::new().compress_when(DefaultPredicate::new().and(no_streams)))
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
    let info = utoipa::openapi::InfoBuilder::new()
        .title(format!("AgentRunner {}", service.as_str()))
        .version(version)
        .description(Some(service.summary()))
        .build();
    let doc = utoipa::openapi::OpenApiBuilder::new().info(info).build();
    let mut router = OpenApiRouter::with_openapi(doc)
        .merge(service.routes())
        .merge(health::routes())
        .merge(metrics::routes());
    describe_refusals(router.get_openapi_mut());
    router
}

/// Adds to each operation the refusals that it shares with all others, so that no handler has to repeat them.
fn describe_refusals(api: &mut OpenApi) {
    let error = |path: &str, description: &str| {
        let shape = if crate::openai::is_ours(path) {
            "OpenAiError"
        } else {
            "ErrorBody"
        };
        let schema = Content::new(Some(Ref::from_schema_name(shape)));
        let response = ResponseBuilder::new().description(description);
        RefOr::from(response.content("application/json", schema).build())
    };
    let shared = [
        ("403", "The caller or its origin may not do this."),
        ("500", "Something in AgentRunner went wrong."),
        (
            "503",
            "Something that is needed can't be reached, or there is no place now.",
        ),
        ("504", "The answer did not begin in time."),
    ];
    let of_bodies = [
        (
            "400",
            "The body can't be understood; the message names the field.",
        ),
        ("413", "The body is too large."),
        ("415", "The content type is not taken."),
    ];
    for (path, item) in &mut api.paths.paths {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.patch,
            &mut item.delete,
        ];
        for operation in operations.into_iter().flatten() {
            let has_body = operation.request_body.is_some();
            let of_bodies = of_bodies.iter().filter(|_| has_body);
            let shared = shared.iter().filter(|_| !path.starts_with("/health"));
            for (status, description) in shared.chain(of_bodies) {
                let responses = &mut operation.responses.responses;
                let entry = responses.entry((*status).to_owned());
                entry.or_insert_with(|| error(path, description));
            }
        }
    }
}
