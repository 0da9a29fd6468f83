//! `health`: whether the services can work.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use serde_json::{Value, json};
use services::Service;
use tokio::net::TcpStream;

use super::backend::beside;
use crate::cli::{Context, Exit, block_on};
use crate::client::{Client, Unreachable};
use crate::screen::{Column, Screen, chain};
use crate::settings::{Settings, Trust};

/// How long one service may take to answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// Asks each service whether it can work.
///
/// Exit code 0 when all can, 1 when one can't or does not answer, 3 when none answers.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentrunner health
  agentrunner health --server http://agents.example.com:8003     that machine's five services
  agentrunner health --json | jq '.[] | select(.status != \"ready\")'
  agentrunner health --self                                      in a container: what listens in it")]
pub(crate) struct Health {
    /// Ask what of AgentRunner listens on this machine or in this container, whichever part it is, and nothing else
    #[arg(long = "self", conflicts_with = "server")]
    pub(crate) own: bool,
}

impl Health {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        let settings = &context.settings;
        let base = settings.server_url();
        let listen = &settings.listen;
        let all = Service::ALL.map(|service| {
            let url = match service {
                Service::AgentOrchestrator => base.clone(),
                other => beside(&base, listen.port(other)),
            };
            (service, url)
        });
        ask_all(all.to_vec(), &settings.trust, &context.screen)
    }

    /// The check of a container: by the settings of the listeners alone, so that it costs little, asks no keeper of
    /// secrets, and does not fail for what is none of its business.
    pub(crate) fn run_own(
        flags: &BTreeMap<String, String>,
        screen: &Screen,
    ) -> anyhow::Result<Exit> {
        let settings = Settings::of_listeners(flags)?;
        let listen = &settings.listen;
        let scheme = if listen.tls.is_some() {
            "https"
        } else {
            "http"
        };
        let services = Service::ALL.into_iter().chain([Service::AgentPool]);
        let here = services.map(|service| {
            let address = SocketAddr::new(listen.own_address(), listen.port(service));
            async move {
                let connected = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await;
                let refused = matches!(connected, Ok(Err(_)));
                (!refused).then(|| (service, format!("{scheme}://{address}")))
            }
        });
        let here = block_on(async { Ok(join_all(here).await) })?;
        let here: Vec<_> = here.into_iter().flatten().collect();
        if here.is_empty() {
            screen.note("no part of AgentRunner listens here");
            return Ok(Exit::Unreachable);
        }
        ask_all(here, &settings.trust, screen)
    }
}

/// Asks, shows, judges.
fn ask_all(
    services: Vec<(Service, String)>,
    trust: &Trust,
    screen: &Screen,
) -> anyhow::Result<Exit> {
    let rows = block_on(async {
        let asked = services
            .iter()
            .map(|(service, url)| ask(*service, url, trust));
        Ok(join_all(asked).await)
    })?;
    let dependency = |name: &'static str| {
        Column::of(name, move |row| {
            let found = row.pointer(&format!("/dependencies/{name}"));
            found.and_then(Value::as_str).unwrap_or("-").to_owned()
        })
    };
    let columns = [
        Column::field("service", "service"),
        Column::field("address", "address"),
        Column::field("status", "status"),
        dependency("database"),
        dependency("cache"),
        dependency("message_queue"),
        dependency("slack"),
    ];
    screen.table(&rows, &columns);
    if !screen.wants_json() {
        for row in &rows {
            let reasons = ["failing", "degraded"]
                .iter()
                .filter_map(|name| row.get(name));
            for reason in reasons.filter_map(Value::as_array).flatten() {
                let text = |name: &str| row.get(name).and_then(Value::as_str).unwrap_or_default();
                let reason = reason.as_str().unwrap_or_default();
                screen.note(format_args!("{}: {reason}", text("service")));
            }
        }
    }
    Ok(verdict(rows.iter().map(|row| {
        row.get("status")
            .and_then(Value::as_str)
            .unwrap_or_default()
    })))
}

const READY: &str = "ready";
const UNREACHABLE: &str = "unreachable";

/// A row about a service: what it answers, or why it does not.
async fn ask(service: Service, url: &str, trust: &Trust) -> Value {
    let asked = async {
        let client = Client::new(url, trust)?;
        let (_, body) = tokio::time::timeout(PATIENCE, client.readiness())
            .await
            .map_err(|_| anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs()))??;
        anyhow::Ok(body)
    };
    let (status, mut row) = match asked.await {
        Ok(Value::Object(mut body)) => {
            let status = body.remove("status");
            (status.unwrap_or_else(|| "not AgentRunner".into()), body)
        }
        Ok(_) => ("not AgentRunner".into(), serde_json::Map::new()),
        Err(error) => {
            let reason = match error.downcast_ref::<Unreachable>() {
                Some(unreachable) => unreachable.to_string(),
                None => chain(&error),
            };
            let why = serde_json::Map::from_iter([("failing".to_owned(), json!([reason]))]);
            (UNREACHABLE.into(), why)
        }
    };
    row.insert("service".to_owned(), service.as_str().into());
    row.insert("address".to_owned(), url.trim_end_matches('/').into());
    row.insert("status".to_owned(), status);
    Value::Object(row)
}

fn verdict<'a>(statuses: impl Iterator<Item = &'a str>) -> Exit {
    let statuses: Vec<_> = statuses.collect();
    if statuses.iter().all(|status| *status == READY) {
        Exit::Done
    } else if statuses.iter().all(|status| *status == UNREACHABLE) {
        Exit::Unreachable
    } else {
        Exit::Failed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_code_tells_all_from_some_from_none() {
        let of = |statuses: &[&'static str]| verdict(statuses.iter().copied());
        assert_eq!(of(&["ready", "ready"]), Exit::Done);
        assert_eq!(of(&["ready", "not_ready"]), Exit::Failed);
        assert_eq!(of(&["ready", "unreachable"]), Exit::Failed);
        assert_eq!(of(&["not_ready", "unreachable"]), Exit::Failed);
        assert_eq!(of(&["unreachable", "unreachable"]), Exit::Unreachable);
        assert_eq!(of(&["ready", "not AgentRunner"]), Exit::Failed);
    }
}
