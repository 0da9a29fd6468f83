//! The HTTP clients behind the guard: one for each clearance, with and without kept connections.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::EgressError;
use super::policy::{Clearance, EgressPolicy};
use super::resolve::{GuardedDns, Resolver};

/// How long an unused connection is kept. Shorter than what servers usually keep theirs (5 s and more), so that a
/// request is seldom sent on a connection that is just being closed.
const KEEP: Duration = Duration::from_secs(4);

/// The clients, each built when it is first needed: reading the trusted certificates takes a while.
pub(super) struct Clients {
    named: [Lazy; 2],
    public: [Lazy; 2],
}

struct Lazy {
    dns: Arc<GuardedDns>,
    connect_timeout: Duration,
    reuse: bool,
    client: OnceLock<reqwest::Client>,
}

impl Clients {
    pub(super) fn new(
        policy: &Arc<EgressPolicy>,
        resolver: &Arc<dyn Resolver>,
        connect_timeout: Duration,
    ) -> Self {
        let pair = |clearance| {
            let dns = Arc::new(GuardedDns::new(resolver.clone(), policy.clone(), clearance));
            [false, true].map(|reuse| Lazy {
                dns: dns.clone(),
                connect_timeout,
                reuse,
                client: OnceLock::new(),
            })
        };
        Self {
            named: pair(Clearance::Named),
            public: pair(Clearance::Public),
        }
    }

    pub(super) fn get(
        &self,
        clearance: Clearance,
        reuse: bool,
    ) -> Result<reqwest::Client, EgressError> {
        let [fresh, kept] = match clearance {
            Clearance::Named => &self.named,
            Clearance::Public => &self.public,
        };
        let lazy = if reuse { kept } else { fresh };
        if let Some(client) = lazy.client.get() {
            return Ok(client.clone());
        }
        let client = lazy
            .build()
            .map_err(|error| EgressError::Unreachable(format!("no HTTP client: {error}")))?;
        Ok(lazy.client.get_or_init(|| client).clone())
    }
}

impl Lazy {
    fn build(&self) -> reqwest::Result<reqwest::Client> {
        reqwest::Client::builder()
            .user_agent(concat!("agentrunner/", env!("CARGO_PKG_VERSION")))
            .dns_resolver(self.dns.clone())
            .redirect(reqwest::redirect::Policy::none())
            .referer(false)
            .no_proxy()
            .connect_timeout(self.connect_timeout)
            .pool_idle_timeout(KEEP)
            .pool_max_idle_per_host(if self.reuse { 32 } else { 0 })
            .tcp_nodelay(true)
            .build()
    }
}
