//! Database, message queue and cache: whether they can be used, which they are, and what lies in them.

use std::sync::Arc;

use anyhow::Context as _;
use bus::rabbitmq::Depth;
use bus::{Bus as _, RabbitMq};
use store::cache::Cache as _;
use store::postgres::Postgres;
use store::redis::Redis;
use store::{Page, Store};

use super::clocks::Told;
use super::{Finding, count};
use crate::screen::chain;
use crate::settings::Settings;
use crate::wiring;

/// How many dead letters are counted.
const COUNTED: usize = 100;
/// From how many waiting events on nobody seems to take them.
const MANY_WAIT: u32 = 1000;

/// The database, and what its clock says.
pub(super) async fn database(settings: &Settings) -> (Vec<Finding>, Option<Told>) {
    match open(settings).await {
        Ok((shown, store, told)) => {
            let mut findings = vec![match store.check().await {
                Ok(()) => Finding::good("database", format!("{shown} opens and can be written")),
                Err(error) => cant_be_used(settings, format!("{shown}: {error}")),
            }];
            findings.extend(dead_letters(&*store).await);
            // What was read is read.
            drop(store.close().await);
            (findings, told)
        }
        Err(error) => (vec![cant_be_used(settings, chain(&error))], None),
    }
}

async fn open(settings: &Settings) -> anyhow::Result<(String, Arc<dyn Store>, Option<Told>)> {
    let Some(server) = settings.servers.postgres.clone() else {
        let path = wiring::database(settings).display().to_string();
        return Ok((path, wiring::open_store(settings).await?, None));
    };
    let place = &settings.servers.postgres_place;
    let what = || format!("PostgreSQL at {place} can't be used");
    let store = Postgres::connect(server).await.with_context(what)?;
    let version = store.server_version().await.with_context(what)?;
    let ours = wiring::own_clock(settings);
    let told = Told::exactly("PostgreSQL", store.clock().now(), ours());
    let shown = format!("PostgreSQL {version} at {place}");
    Ok((shown, Arc::new(store), Some(told)))
}

fn cant_be_used(settings: &Settings, found: String) -> Finding {
    let advice = match settings.servers.postgres {
        Some(_) => {
            "the message says what to do; unset POSTGRES_HOST and DATABASE_URL to use the embedded store"
        }
        None => {
            "the message says what to do; a copy of the file (with -wal and -shm) keeps what is in it"
        }
    };
    Finding::failed("database", found, advice)
}

async fn dead_letters(store: &dyn Store) -> Option<Finding> {
    let page = Page {
        limit: COUNTED,
        after: None,
    };
    let given_up = match store.dead_letters(page).await.ok()?.len() {
        0 => return None,
        COUNTED => format!("{COUNTED} events or more were given up"),
        n => format!("{} given up", count(n, "event was", "events were")),
    };
    Some(Finding::warning(
        "dead letters",
        given_up,
        "agentrunner dead-letters; then `agentrunner dead-letters replay` or `delete ID`",
    ))
}

/// RabbitMQ, when it is named.
pub(super) async fn message_queue(settings: &Settings) -> Option<Finding> {
    let server = settings.servers.rabbitmq.clone()?;
    let (what, place) = ("message queue", &settings.servers.rabbitmq_place);
    let check = async {
        let bus = RabbitMq::connect(server).await;
        let bus = bus.with_context(|| format!("RabbitMQ at {place} can't be used"))?;
        let checked = async {
            bus.check().await?;
            bus.depth(engine::QUEUE).await
        };
        let checked = checked.await;
        bus.close().await;
        anyhow::Ok(checked?)
    };
    Some(match check.await {
        Ok(depth) => in_queue(what, place, depth),
        Err(error) => Finding::failed(
            what,
            chain(&error),
            "the message says what to do; unset RABBITMQ_HOST and RABBITMQ_URL to use the bus in the process",
        ),
    })
}

fn in_queue(what: &str, place: &str, depth: Option<Depth>) -> Finding {
    let answers = format!("RabbitMQ at {place} answers");
    let queue = engine::QUEUE;
    match depth {
        None => Finding::good(what, answers),
        Some(Depth { dead, .. }) if dead > 0 => Finding::warning(
            what,
            format!(
                "{answers}; {} in {queue}.dlq for a process that takes them in",
                count(dead, "dead letter waits", "dead letters wait")
            ),
            "start one (`agentrunner up`); then `agentrunner dead-letters` lists them",
        ),
        Some(Depth { waiting, .. }) if waiting > MANY_WAIT => Finding::warning(
            what,
            format!("{answers}; {waiting} events wait in {queue}"),
            "`agentrunner health` says whether those who take them can work; start more of them",
        ),
        Some(Depth { waiting, .. }) => Finding::good(
            what,
            format!(
                "{answers}; {}",
                count(waiting, "event waits", "events wait")
            ),
        ),
    }
}

/// Redis, when it is named. A start does without it; whoever named it wants to know.
pub(super) async fn cache(settings: &Settings) -> Option<Finding> {
    let url = settings.servers.redis.clone()?;
    let (what, place) = ("cache", &settings.servers.redis_place);
    // Nobody else's copies are looked at.
    let own = uuid::Uuid::now_v7().simple().to_string();
    let settings = store::redis::Settings::new(url, place.clone(), own);
    let redis = match Redis::connect(settings).await {
        Ok(redis) => redis,
        Err(error) => {
            return Some(Finding::failed(
                what,
                error.to_string(),
                "correct REDIS_URL",
            ));
        }
    };
    Some(match redis.health() {
        Ok(()) => {
            let version = redis.server_version().await;
            let version = version.map_or_else(String::new, |version| format!(" {version}"));
            let found = format!("Redis{version} at {place} can be read and written");
            Finding::good(what, found)
        }
        Err(away) => Finding::failed(
            what,
            format!("Redis at {place} can't be used: {away}"),
            "until then everything works and some reading takes longer; unset REDIS_HOST and REDIS_URL to use the cache in the process",
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::super::State;
    use super::*;

    #[test]
    fn what_nobody_takes_is_told() {
        let of = |waiting, dead| in_queue("q", "rabbit:5672", Some(Depth { waiting, dead }));
        assert_eq!(of(1000, 0).state, State::Good);
        assert!(of(1, 0).found.ends_with("1 event waits"));
        assert_eq!(of(1001, 0).state, State::Warning);
        let dead = of(0, 2);
        assert_eq!(dead.state, State::Warning);
        assert!(dead.found.contains("2 dead letters wait"), "{dead:?}");
        assert_eq!(in_queue("q", "rabbit:5672", None).state, State::Good);
    }
}
