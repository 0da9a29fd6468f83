//! Clock, disk, database, agents and tool servers.

use std::path::Path;

use chrono::{Datelike, Utc};
use domain::Definition;
use tokio::process::Command;
use tools::Toolbox;

use super::Finding;
use crate::commands::validate;
use crate::settings::Settings;
use crate::wiring;

/// Below this the database may soon be full.
const LITTLE_SPACE_MIB: u64 = 500;
/// No release is older: an earlier date is a wrong clock.
const EARLIEST_YEAR: i32 = 2026;

pub(super) fn clock() -> Finding {
    let now = Utc::now();
    if now.year() < EARLIEST_YEAR || now.year() > EARLIEST_YEAR + 30 {
        let found = format!("it says {}", now.format("%Y-%m-%d %H:%M UTC"));
        return Finding::failed(
            "clock",
            found,
            "set the clock, best by NTP: leases and schedules live by it",
        );
    }
    Finding::good("clock", now.format("%Y-%m-%d %H:%M UTC").to_string())
}

pub(super) async fn data_dir(settings: &Settings) -> Vec<Finding> {
    let dir = &settings.data_dir;
    let what = "data folder";
    let write = || -> std::io::Result<()> {
        std::fs::create_dir_all(dir)?;
        let probe = dir.join(format!(".doctor-{}", uuid::Uuid::now_v7().simple()));
        std::fs::write(&probe, b"doctor")?;
        std::fs::remove_file(&probe)
    };
    if let Err(error) = write() {
        let found = format!("{} can't be written: {error}", dir.display());
        let advice = format!(
            "sudo chown \"$USER\" {}; or set DATA_DIR to another folder",
            dir.display()
        );
        return vec![Finding::failed(what, found, advice)];
    }
    let mut findings = vec![Finding::good(
        what,
        format!("{} can be written", dir.display()),
    )];
    match free_mib(dir).await {
        Some(free) if free < LITTLE_SPACE_MIB => findings.push(Finding::failed(
            "disk",
            format!("only {free} MiB are free for {}", dir.display()),
            "delete something, or set DATA_DIR to a folder on another disk",
        )),
        Some(free) => findings.push(Finding::good("disk", format!("{free} MiB are free"))),
        None => {}
    }
    findings
}

/// As `df` tells; `None` where there is no `df`.
async fn free_mib(dir: &Path) -> Option<u64> {
    let output = Command::new("df").arg("-Pk").arg(dir).output().await.ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let kib: u64 = text
        .lines()
        .nth(1)?
        .split_whitespace()
        .nth(3)?
        .parse()
        .ok()?;
    Some(kib / 1024)
}

pub(super) async fn database(settings: &Settings) -> Finding {
    let (shown, advice) = match settings.servers.postgres {
        Some(_) => (
            format!("PostgreSQL at {}", settings.servers.postgres_place),
            "the message says what to do; unset POSTGRES_HOST and DATABASE_URL to use the embedded store",
        ),
        None => (
            wiring::database(settings).display().to_string(),
            "the message says what to do; a copy of the file (with -wal and -shm) keeps what is in it",
        ),
    };
    let check = async {
        let store = wiring::open_store(settings).await?;
        let checked = store.check().await;
        store.close().await?;
        anyhow::Ok(checked?)
    };
    match check.await {
        Ok(()) => Finding::good("database", format!("{shown} opens and can be written")),
        Err(error) => {
            let found = format!("{shown}: {}", crate::screen::chain(&error));
            Finding::failed("database", found, advice)
        }
    }
}

/// RabbitMQ, when it is named.
pub(super) async fn message_queue(settings: &Settings) -> Option<Finding> {
    settings.servers.rabbitmq.as_ref()?;
    let what = "message queue";
    let check = async {
        let bus = wiring::open_bus(settings).await?;
        let checked = bus.check().await;
        bus.close().await;
        anyhow::Ok(checked?)
    };
    Some(match check.await {
        Ok(()) => {
            let place = &settings.servers.rabbitmq_place;
            Finding::good(what, format!("RabbitMQ at {place} answers"))
        }
        Err(error) => Finding::failed(
            what,
            crate::screen::chain(&error),
            "the message says what to do; unset RABBITMQ_HOST and RABBITMQ_URL to use the bus in the process",
        ),
    })
}

/// Redis, when it is named. A start does without it; whoever named it wants to know.
pub(super) async fn cache(settings: &Settings) -> Option<Finding> {
    settings.servers.redis.as_ref()?;
    let (what, place) = ("cache", &settings.servers.redis_place);
    let opened = wiring::open_shared(settings, None).await;
    Some(match opened.map(|shared| shared.cache.health()) {
        Ok(Ok(())) => Finding::good(what, format!("Redis at {place} can be read and written")),
        Ok(Err(away)) => Finding::failed(
            what,
            format!("Redis at {place} can't be used: {away}"),
            "until then everything works and some reading takes longer; unset REDIS_HOST and REDIS_URL to use the cache in the process",
        ),
        Err(error) => Finding::failed(what, crate::screen::chain(&error), "correct REDIS_URL"),
    })
}

pub(super) fn agents(settings: &Settings) -> (Vec<Definition>, Vec<Finding>) {
    let values = settings.values.clone();
    let checked = match validate::check(&settings.agents_dir(), &move |name: &str| {
        values.lookup(name)
    }) {
        Ok(checked) => checked,
        Err(error) => {
            let found = crate::screen::chain(&error);
            return (
                Vec::new(),
                vec![Finding::failed("agents", found, "agentrunner init")],
            );
        }
    };
    let mut findings: Vec<_> = checked
        .errors
        .iter()
        .map(|diagnostic| Finding::failed("agents", diagnostic.to_string(), "agentrunner validate"))
        .collect();
    if checked.agents.is_empty() && findings.is_empty() {
        let found = format!("there are none in {}", settings.agents_dir().display());
        findings.push(Finding::failed("agents", found, "agentrunner init"));
    } else if findings.is_empty() {
        findings.push(Finding::good(
            "agents",
            format!("{} are valid", checked.agents.len()),
        ));
    }
    let agents = checked
        .agents
        .into_iter()
        .map(|parsed| parsed.definition)
        .collect();
    (agents, findings)
}

/// Starts and asks every tool server, each as an agent would.
pub(super) async fn tool_servers(settings: &Settings, agents: &[Definition]) -> Vec<Finding> {
    let clock: engine::Clock = std::sync::Arc::new(Utc::now);
    let opened = async {
        let store = wiring::open_store(settings).await?;
        let toolkit = wiring::toolkit(settings, &store, &clock)?;
        anyhow::Ok((store, toolkit))
    };
    let (_store, toolkit) = match opened.await {
        Ok(opened) => opened,
        Err(error) => {
            let found = crate::screen::chain(&error);
            return vec![Finding::failed(
                "tools",
                found,
                "see docs/settings.md: EGRESS_ALLOW and EGRESS_DENY",
            )];
        }
    };
    let mut findings = Vec::new();
    for agent in agents.iter().filter(|agent| !agent.tools.is_empty()) {
        let what = format!("tools of {}", agent.name);
        let expanded = match wiring::expand(settings)(agent) {
            Ok(expanded) => expanded,
            Err(missing) => {
                findings.push(Finding::failed(
                    &what,
                    missing.to_string(),
                    format!("put {}=... into .env", missing.name),
                ));
                continue;
            }
        };
        findings.push(
            match toolkit
                .offers(&agent.name, &agent.content_hash(), &expanded.tools)
                .await
            {
                Ok(offers) => Finding::good(&what, format!("{} are offered", offers.len())),
                Err(error) => Finding::failed(
                    &what,
                    error.to_string(),
                    "start the server, or correct the entry",
                ),
            },
        );
    }
    toolkit.shutdown().await;
    findings
}
