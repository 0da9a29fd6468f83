//! Whether the ports are free, and if not, who is there.

use std::io::ErrorKind;

use tokio::net::TcpListener;

use super::Finding;
use crate::client::Client;
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
        let address = std::net::SocketAddr::new(listen.address, port);
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
    let scheme = if settings.listen.tls.is_some() {
        "https"
    } else {
        "http"
    };
    let answers = match Client::new(&format!("{scheme}://127.0.0.1:{port}"), &settings.trust) {
        Ok(client) => client.answers().await,
        Err(_) => false,
    };
    if answers {
        Finding::good(what, "an AgentRunner answers there")
    } else {
        Finding::failed(
            what,
            "another program listens there",
            format!(
                "`ss -ltnp 'sport = :{port}'` tells which; end it, or set {name} to a free port"
            ),
        )
    }
}
