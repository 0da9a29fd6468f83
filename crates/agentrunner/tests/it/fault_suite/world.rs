//! Everything that takes part: real servers that may be killed, a proxy between each process and each server, the
//! stand-ins for model and tools, and the processes of the product.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use testkit::servers::{Kind, Server, by_way_of};
use testkit::slack::SIGNING_SECRET;
use testkit::{EffectsStandIn, FaultProxy, ProviderStandIn, Weather};

use super::disk::SmallDisk;
use super::model::{self, Arrivals};
use super::process::Process;
use super::role::{Door, Role};
use crate::backing;

/// All servers.
pub(super) const SERVERS: [Kind; 3] = [Kind::Postgres, Kind::RabbitMq, Kind::Redis];
/// How long the product may take to serve after everything is well.
const PATIENCE: Duration = Duration::from_secs(120);

/// Everything that takes part.
pub(super) struct World {
    pub(super) servers: BTreeMap<&'static str, Server>,
    pub(super) disk: Result<SmallDisk, String>,
    pub(super) effects: Arc<EffectsStandIn>,
    pub(super) provider: ProviderStandIn,
    pub(super) arrivals: Arrivals,
    pub(super) processes: Vec<Process>,
    /// One for each process and server.
    links: Vec<BTreeMap<&'static str, FaultProxy>>,
    pub(super) client: reqwest::Client,
    /// What must not have happened, as it happened.
    complaints: Mutex<Vec<String>>,
}

/// A server's name.
pub(super) const fn name(server: Kind) -> &'static str {
    match server {
        Kind::Postgres => "PostgreSQL",
        Kind::RabbitMq => "RabbitMQ",
        Kind::Redis => "Redis",
    }
}

impl World {
    /// Starts everything but the processes; these get `more` variables.
    pub(super) async fn new(
        roles: &[Role],
        lease: Duration,
        more: &[(&'static str, &str)],
    ) -> Self {
        let (postgres, rabbitmq, redis) = tokio::join!(
            Server::start(Kind::Postgres),
            Server::start(Kind::RabbitMq),
            Server::start(Kind::Redis)
        );
        ask_for_passwords_plainly(&postgres).await;
        let disk = SmallDisk::under(&postgres).await;
        let servers = BTreeMap::from([
            (name(Kind::Postgres), postgres),
            (name(Kind::RabbitMq), rabbitmq),
            (name(Kind::Redis), redis),
        ]);
        let effects = Arc::new(EffectsStandIn::start());
        let arrivals = Arrivals::default();
        let provider = model::provider(&effects, &arrivals);
        let mut world = Self {
            servers,
            disk,
            effects,
            provider,
            arrivals,
            processes: Vec::new(),
            links: Vec::new(),
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            complaints: Mutex::default(),
        };
        for role in roles {
            let links: BTreeMap<&'static str, FaultProxy> = world
                .servers
                .iter()
                .map(|(name, server)| (*name, FaultProxy::start(server.address())))
                .collect();
            let mut variables = world.variables(&links, lease);
            variables.extend(
                more.iter()
                    .map(|(name, value)| (*name, (*value).to_owned())),
            );
            let process = Process::new(*role, &world.effects.url(), variables);
            world.processes.push(process);
            world.links.push(links);
        }
        world
    }

    fn variables(
        &self,
        links: &BTreeMap<&'static str, FaultProxy>,
        lease: Duration,
    ) -> Vec<(&'static str, String)> {
        let mut variables: Vec<(&'static str, String)> = SERVERS
            .into_iter()
            .map(|server| {
                let url = by_way_of(&self.server(server).url(), links[name(server)].address());
                (server.variable(), url)
            })
            .collect();
        variables.extend([
            ("OPENAI_API_KEY", super::SECRET.to_owned()),
            ("SLACK_SIGNING_SECRET", SIGNING_SECRET.to_owned()),
            ("OPENAI_BASE_URL", self.provider.openai_url()),
            // Small enough that all processes have some of the work.
            ("AGENT_CAPACITY", "30".to_owned()),
            ("AGENT_LEASE_SECONDS", lease.as_secs().to_string()),
            // Also those that serve one part: whoever is first makes the schema.
            ("AUTO_MIGRATE", "true".to_owned()),
            // Kills come so often that an execution may well meet many of them in a row.
            ("AGENT_RESTART_MAX_ATTEMPTS", "1000".to_owned()),
            ("LOG_LEVEL", "WARNING".to_owned()),
            ("LOG_FORMAT", "text".to_owned()),
        ]);
        variables
    }

    pub(super) fn server(&self, kind: Kind) -> &Server {
        &self.servers[name(kind)]
    }

    /// Changes the weather between a process and a server.
    pub(super) fn set_weather(&self, process: usize, server: Kind, weather: Weather) {
        self.links[process][name(server)].set(weather);
    }

    /// Where somebody answers at such a door at this moment, in turns from `n`.
    pub(super) fn any_url(&self, door: Door, n: usize) -> Option<String> {
        let count = self.processes.len();
        (0..count).find_map(|i| self.processes[(n + i) % count].url(door))
    }

    /// Says that something happened which must not.
    pub(super) fn complain(&self, what: impl Into<String>) {
        self.complaints.lock().unwrap().push(what.into());
    }

    pub(super) fn complaints(&self) -> Vec<String> {
        self.complaints.lock().unwrap().clone()
    }

    /// Waits until all processes serve.
    pub(super) async fn all_serve(&self) -> bool {
        self.eventually(|| std::future::ready(self.processes.iter().all(Process::serves)))
            .await
    }

    /// Waits until each process says that it is ready, its servers included.
    pub(super) async fn all_ready(&self) -> bool {
        let mut all = self.all_serve().await;
        for process in &self.processes {
            all &= self
                .eventually(async || process.is_ready(&self.client).await)
                .await;
        }
        all
    }

    async fn eventually<F: Future<Output = bool>>(&self, is_so: impl Fn() -> F) -> bool {
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if is_so().await {
                return true;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        false
    }
}

/// Lets passwords be sent as they are, on loopback. SCRAM makes the client reckon for long, and in a build without
/// optimisation so long that on a busy machine dozens of connections after a restart take each other's time until none
/// comes about within its five seconds.
async fn ask_for_passwords_plainly(postgres: &Server) {
    let session = backing::session(&postgres.url()).await;
    let row = session.query_one("SHOW hba_file", &[]).await.unwrap();
    std::fs::write(
        row.get::<_, String>(0),
        "host all all 127.0.0.1/32 password\n",
    )
    .unwrap();
    session
        .batch_execute("SELECT pg_reload_conf()")
        .await
        .unwrap();
}
