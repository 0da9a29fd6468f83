//! The [`Toolbox`] over everything that can be called.

mod check;
mod offers;

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use domain::definition::{Builtin, Effect, Tool, ToolKind};
use domain::{AgentName, ConfigVersion, ToolOutcome};

use crate::builtin::Builtins;
use crate::egress::{Egress, EgressPolicy, Resolver, SystemResolver};
use crate::mcp::{self, Mcp};
use crate::secret::without_secrets;
use crate::text::{failed, lost, refused};
use crate::{Call, Checked, Clock, Error, Host, Offer, Toolbox, api};
use offers::Offers;

/// How tools are reached. Nothing of it is read from the surroundings.
#[derive(Clone)]
pub struct ToolkitSettings {
    /// Where requests may go.
    pub egress: EgressPolicy,
    /// Who finds the addresses of hosts.
    pub resolver: Arc<dyn Resolver>,
    /// What the roots of file tools are relative to, and where MCP servers start.
    pub working_dir: PathBuf,
    /// The `PATH` that MCP servers are found in and inherit.
    pub path: Option<OsString>,
    /// The `HOME` that MCP servers inherit.
    pub home: Option<OsString>,
    /// How long connecting to a host may take.
    pub connect_timeout: Duration,
    /// How long starting or reaching an MCP server may take, new tries included.
    pub mcp_connect_timeout: Duration,
    /// How long an MCP server is kept that nobody calls.
    pub mcp_idle_timeout: Duration,
    /// What time it is.
    pub clock: Clock,
}

impl ToolkitSettings {
    /// The usual settings: only public addresses may be asked, MCP servers inherit nothing.
    pub fn new(working_dir: impl Into<PathBuf>, clock: Clock) -> Self {
        Self {
            egress: EgressPolicy::default(),
            resolver: Arc::new(SystemResolver),
            working_dir: working_dir.into(),
            path: None,
            home: None,
            connect_timeout: Duration::from_secs(5),
            mcp_connect_timeout: Duration::from_secs(20),
            mcp_idle_timeout: Duration::from_secs(600),
            clock,
        }
    }
}

/// All tools: APIs, MCP servers, built-in functions. Starts and connects nothing before it is needed.
pub struct Toolkit {
    egress: Arc<Egress>,
    mcp: Mcp,
    builtins: Builtins,
    offers: Offers,
}

impl Toolkit {
    /// Puts the tools together; `host` is what the built-in functions reach the system by.
    pub fn new(settings: ToolkitSettings, host: Arc<dyn Host>) -> Self {
        let egress = Arc::new(Egress::new(
            settings.egress,
            settings.resolver,
            settings.connect_timeout,
        ));
        let inherited = [("PATH", settings.path), ("HOME", settings.home)];
        let mcp_settings = mcp::Settings {
            working_dir: settings.working_dir.clone(),
            inherited: inherited
                .into_iter()
                .filter_map(|(name, value)| Some((name, value?)))
                .collect(),
            connect_timeout: settings.mcp_connect_timeout,
            idle_timeout: settings.mcp_idle_timeout,
        };
        Self {
            mcp: Mcp::new(mcp_settings, egress.clone()),
            builtins: Builtins {
                egress: egress.clone(),
                host,
                clock: settings.clock,
                working_dir: settings.working_dir,
            },
            egress,
            offers: Offers::default(),
        }
    }

    /// The guard, for other requests whose address someone else may influence.
    pub fn egress(&self) -> &Arc<Egress> {
        &self.egress
    }

    /// Ends all MCP servers and waits until they have, a few seconds at most. Calls fail after this.
    pub async fn shutdown(&self) {
        self.mcp.shutdown().await;
    }

    async fn dispatch(&self, call: &Call<'_>) -> ToolOutcome {
        match &call.entry.kind {
            ToolKind::Mcp(mcp) => self.mcp.call(mcp, call).await,
            ToolKind::Api(api) => {
                let effect = call.entry.effect_of(call.tool);
                api::call(&self.egress, api, effect, call).await
            }
            ToolKind::Function(function) => match call.entry.builtin() {
                Some(builtin) => self.builtins.call(builtin, function, call).await,
                None => refused(format!("there is no function {}", call.entry.name)),
            },
            ToolKind::Agent(_) => refused("an agent is started by the engine, not by a call"),
        }
    }
}

#[async_trait]
impl Toolbox for Toolkit {
    async fn offers(
        &self,
        agent: &AgentName,
        version: &ConfigVersion,
        entries: &[Tool],
    ) -> Result<Arc<Vec<Offer>>, Error> {
        if let Some(known) = self.offers.known(version) {
            return Ok(known);
        }
        tracing::debug!(%agent, %version, "the tools of an agent are gathered");
        self.offers.gather(&self.mcp, version, entries).await
    }

    async fn call(&self, call: Call<'_>) -> ToolOutcome {
        // Each kind keeps to the time itself and knows what a late answer means; this is the last resort.
        let margin = Duration::from_millis(250);
        match tokio::time::timeout(call.timeout + margin, self.dispatch(&call)).await {
            Ok(outcome) => without_secrets(call.entry, outcome),
            Err(_) => late(&call),
        }
    }

    async fn check(&self, call: Call<'_>, check_entry: &Tool) -> Checked {
        check::check(self, &call, check_entry).await
    }
}

impl Drop for Toolkit {
    fn drop(&mut self) {
        self.mcp.stop();
    }
}

fn late(call: &Call<'_>) -> ToolOutcome {
    let message = "there was no result in time";
    match call.entry.builtin() {
        Some(Builtin::PublishEvent | Builtin::Remember | Builtin::SharedStateSet) => {
            lost(Effect::Idempotent, message)
        }
        Some(_) => failed(message),
        None => lost(call.entry.effect_of(call.tool), message),
    }
}
