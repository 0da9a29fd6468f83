//! Whether the ports are free, and if not, who is there.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};

use tokio::net::TcpListener;

use super::Finding;
use crate::port_holder::{holder, is_agentrunner};
use crate::settings::Settings;

pub(super) async fn check(settings: &Settings) -> Vec<Finding> {
    let listen = &settings.listen;
    let ports = [
        ("STATE_MANAGER_PORT", listen.state_manager),
        ("CONFIG_SERVICE_PORT", listen.config_service),
        ("ORCHESTRATOR_PORT", listen.orchestrator),
        ("SCHEDULER_SERVICE_PORT", listen.scheduler),
        ("SLACK_GATEWAY_PORT", listen.slack),
    ];
    let mut findings = Vec::new();
    for (name, port) in ports.into_iter().filter(|(_, port)| *port != 0) {
        let address = SocketAddr::new(listen.address, port);
        let what = format!("port {port}");
        findings.push(match TcpListener::bind(address).await {
            Ok(_) => Finding::good(&what, format!("{address} is free")),
            Err(error) if error.kind() == ErrorKind::AddrInUse => {
                taken(settings, &what, name, port).await
            }
            Err(error) => Finding::failed(
                &what,
                format!("{address} can't be listened on: {error}"),
                format!(
                    "set BIND_ADDRESS to an address of this machine, or {name} to a port above 1023"
                ),
            ),
        });
    }
    findings
}

async fn taken(settings: &Settings, what: &str, name: &str, port: u16) -> Finding {
    let holder = holder(port);
    if is_agentrunner(settings, port).await {
        let who = holder.map_or_else(String::new, |holder| format!(" (pid {})", holder.pid));
        return Finding::good(what, format!("AgentRunner answers there{who}"));
    }
    let other = match free_one(settings.listen.address, port).await {
        Some(free) => format!("put {name}={free} into .env"),
        None => format!("set {name} to a free port"),
    };
    match holder {
        Some(holder) => Finding::failed(
            what,
            format!("{} (pid {}) listens there", holder.name, holder.pid),
            format!("`kill {}` ends it; or {other}", holder.pid),
        ),
        None => Finding::failed(
            what,
            "another program listens there, one of another user or container",
            format!("`sudo ss -ltnp 'sport = :{port}'` tells which: end it; or {other}"),
        ),
    }
}

/// A free port that looks like the one that is not.
async fn free_one(address: IpAddr, port: u16) -> Option<u16> {
    for step in 1..=20 {
        let near = port.checked_add(step * 10)?;
        if TcpListener::bind(SocketAddr::new(address, near))
            .await
            .is_ok()
        {
            return Some(near);
        }
    }
    None
}
