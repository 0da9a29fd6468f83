//! The HTTP services: bound first, served when everything behind them is ready.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use engine::Engine;
use metrics_exporter_prometheus::PrometheusHandle;
use services::config::ConfigService;
use services::tls::Tls;
use services::{App, BindError, Server, Service};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::System;
use crate::port_holder::{holder, is_agentrunner};
use crate::settings::Settings;

/// The services of this process.
pub(super) struct Listeners {
    addresses: BTreeMap<Service, SocketAddr>,
    bound: Option<Server>,
    scheme: &'static str,
}

impl Listeners {
    /// At the addresses of the settings.
    ///
    /// # Errors
    /// One can't be had; it is named with its variable.
    pub(super) async fn bind(settings: &Settings, services: &[Service]) -> anyhow::Result<Self> {
        let listen = &settings.listen;
        // Read first: the message about a certificate is worth more than one about a port.
        let tls = listen.tls.clone().map(Tls::open).transpose()?;
        let address = |service| SocketAddr::new(listen.address, listen.port(service));
        match Self::at(services, address, tls).await {
            Ok(listeners) => Ok(listeners),
            Err(error) => Err(name_the_other(settings, error).await),
        }
    }

    /// At free ports of loopback.
    ///
    /// # Errors
    /// None is free.
    pub(super) async fn private(services: &[Service]) -> anyhow::Result<Self> {
        let any = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        Self::at(services, |_| any, None).await
    }

    async fn at(
        services: &[Service],
        address: impl Fn(Service) -> SocketAddr,
        tls: Option<Tls>,
    ) -> anyhow::Result<Self> {
        let wanted = services.iter().map(|service| (*service, address(*service)));
        let server = Server::bind(&wanted.collect()).await?;
        Ok(Self {
            addresses: server.addresses(),
            scheme: if tls.is_some() { "https" } else { "http" },
            bound: Some(server.with_tls(tls)),
        })
    }

    /// Begins to serve, until the app's shutdown.
    pub(super) fn serve(&mut self, app: App, tasks: &TaskTracker, drain: Duration) {
        if let Some(server) = self.bound.take() {
            tasks.spawn(server.serve(app, drain));
        }
    }

    /// The address of a service, as a client spells it.
    pub(super) fn url(&self, service: Service) -> String {
        self.addresses
            .get(&service)
            .map(|address| format!("{}://{address}", self.scheme))
            .unwrap_or_default()
    }

    /// A line for each listener.
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.addresses.keys().map(|service| {
            let url = self.url(*service);
            format!("{}: {url}, API at {url}/docs", service.as_str())
        })
    }
}

/// An error that says who has the port, where that can be told.
async fn name_the_other(settings: &Settings, error: anyhow::Error) -> anyhow::Error {
    let Some(taken) = error
        .downcast_ref::<BindError>()
        .filter(|error| error.is_taken())
    else {
        return error;
    };
    let (port, variable) = (
        settings.listen.port(taken.service),
        taken.service.port_variable(),
    );
    let service = taken.service.as_str();
    let who = holder(port);
    let kill = who.as_ref().map_or_else(String::new, |holder| {
        format!("end it (kill {}), or ", holder.pid)
    });
    if is_agentrunner(settings, port).await {
        return anyhow::anyhow!(
            "port {port} of {service} is in use: AgentRunner answers there already, and `agentrunner health` asks it; {kill}set {variable} to another port"
        );
    }
    match who {
        Some(holder) => anyhow::anyhow!(
            "port {port} of {service} is in use by {} (pid {}); {kill}set {variable} to another port",
            holder.name,
            holder.pid
        ),
        None => error,
    }
}

impl System {
    /// Where AgentOrchestrator listens; empty when nothing does.
    pub(crate) fn orchestrator_url(&self) -> String {
        self.url(Service::AgentOrchestrator)
    }

    /// Where StateManager listens; empty when nothing does.
    pub(crate) fn state_manager_url(&self) -> String {
        self.url(Service::StateManager)
    }

    /// Where ConfigService listens; empty when nothing does.
    pub(crate) fn config_service_url(&self) -> String {
        self.url(Service::ConfigService)
    }

    /// Where SchedulerService listens; empty when nothing does.
    pub(crate) fn scheduler_url(&self) -> String {
        self.url(Service::SchedulerService)
    }

    pub(super) fn url(&self, service: Service) -> String {
        self.listeners
            .as_ref()
            .map(|listeners| listeners.url(service))
            .unwrap_or_default()
    }
}

/// What the services' handlers work with.
pub(super) fn app(
    engine: &Engine,
    config: &ConfigService,
    settings: &Settings,
    shutdown: &CancellationToken,
    uses_message_queue: bool,
    metrics: Option<PrometheusHandle>,
) -> App {
    let (requests, retention) = (&settings.requests, settings.state.retention);
    let settings = services::http::Settings {
        max_body_bytes: requests.max_body_bytes,
        allowed_hosts: requests.allowed_hosts.clone(),
        allowed_origins: requests.allowed_origins.clone(),
        proxies: settings.access.proxies.clone(),
        uses_message_queue,
        idle_timeout: requests.idle_timeout,
        retention,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        ..services::http::Settings::default()
    };
    App::new(
        engine.clone(),
        config.clone(),
        settings,
        metrics,
        shutdown.clone(),
    )
}

/// Keeps metrics from now on.
///
/// # Errors
/// Another part of the process keeps them already.
pub(super) fn keep_metrics() -> anyhow::Result<PrometheusHandle> {
    let recorder = services::http::metrics::recorder()?;
    let handle = recorder.handle();
    metrics::set_global_recorder(recorder)
        .map_err(|_| anyhow::anyhow!("metrics are kept already"))?;
    Ok(handle)
}
