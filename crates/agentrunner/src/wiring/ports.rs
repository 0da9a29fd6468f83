//! Store, cache and bus, on the servers that the settings name or in this process. Each choice is made on its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use bus::{Bus, InProcess, RabbitMq};
use chrono::{TimeDelta, Utc};
use engine::Clock;
use store::cache::{Cache, Memory};
use store::counters::{Counters, LocalCounters};
use store::postgres::Postgres;
use store::redis::Redis;
use store::sqlite::{Options, Sqlite};
use store::{Class, Store};

use super::part::Role;
use crate::settings::Settings;

/// Between the first two tries to use a server, and the longest between two.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// From where on a host's clock is worth a warning.
const BAD_CLOCK: TimeDelta = TimeDelta::seconds(2);

/// The file of the embedded database.
pub(crate) fn database(settings: &Settings) -> PathBuf {
    settings.data_dir.join("agentrunner.db")
}

/// Opens the store: PostgreSQL when it is named, else the file.
///
/// # Errors
/// It can't be reached or opened, or its schema is not the one of this program. The message says what to do.
pub(crate) async fn open_store(settings: &Settings) -> anyhow::Result<Arc<dyn Store>> {
    Ok(open_store_and_clock(settings).await?.0)
}

/// Opens the store, with the clock that all who share it go by: the server's, or this host's.
///
/// # Errors
/// As for [`open_store`].
pub(super) async fn open_store_and_clock(
    settings: &Settings,
) -> anyhow::Result<(Arc<dyn Store>, Clock)> {
    let (store, clock): (Arc<dyn Store>, Clock) = match &settings.servers.postgres {
        Some(server) => {
            let place = &settings.servers.postgres_place;
            let what = format!("PostgreSQL at {place} can't be used");
            let may_pass = |error: &store::Error| error.class() == Class::Unavailable;
            let connect = async || Postgres::connect(server.clone()).await;
            let store = patiently(settings.servers.patience, &what, may_pass, connect).await;
            let store = store.context(what)?;
            let clock = store.clock();
            warn_of_hosts_clock(clock.now() - Utc::now());
            (Arc::new(store), Arc::new(move || clock.now()))
        }
        None => {
            let path = database(settings);
            let options = Options {
                compress_above: settings.state.compress_above,
                ..Options::default()
            };
            let store = Sqlite::open(&path, options);
            let store =
                store.with_context(|| format!("the database {} can't be used", path.display()))?;
            (Arc::new(store), Arc::new(Utc::now))
        }
    };
    Ok((held(settings, store), clock))
}

/// Harmless for the work, and bad for whoever reads the logs of several hosts side by side.
fn warn_of_hosts_clock(behind: TimeDelta) {
    if behind.abs() > BAD_CLOCK {
        let way = if behind > TimeDelta::zero() {
            "behind"
        } else {
            "ahead of"
        };
        tracing::warn!(
            "this host's clock is {} s {way} PostgreSQL's; PostgreSQL's is gone by, but the lines of this log carry the host's: let NTP set it",
            behind.num_seconds().abs()
        );
    }
}

/// Copies of what was read, and counters.
pub(crate) struct Shared {
    pub(crate) cache: Arc<dyn Cache>,
    pub(crate) counters: Arc<dyn Counters>,
}

impl Shared {
    /// In this process.
    pub(crate) fn here() -> Self {
        Self {
            cache: Arc::new(Memory::default()),
            counters: Arc::new(LocalCounters::default()),
        }
    }
}

/// Connects to Redis when it is named, for the store of that identity. One that can't be used now is gone past until it
/// can: its health tells.
///
/// # Errors
/// The address can't be understood.
pub(crate) async fn open_shared(
    settings: &Settings,
    store: Option<String>,
) -> anyhow::Result<Shared> {
    let Some(url) = settings.servers.redis.clone() else {
        return Ok(Shared::here());
    };
    // A store that can't say who it is shares nothing with others, nor with the next start.
    let store = store.unwrap_or_else(|| uuid::Uuid::now_v7().simple().to_string());
    let place = settings.servers.redis_place.clone();
    let redis = Redis::connect(store::redis::Settings::new(url, place, store)).await;
    let redis = redis.context("REDIS_URL can't be used")?;
    Ok(Shared {
        cache: Arc::new(redis.clone()),
        counters: Arc::new(redis),
    })
}

/// Connects to RabbitMQ when it is named, else makes a bus in this process.
///
/// # Errors
/// The broker can't be reached, does not answer, or does not let us in. The message says what to do.
pub(crate) async fn open_bus(settings: &Settings) -> anyhow::Result<Arc<dyn Bus>> {
    let Some(server) = &settings.servers.rabbitmq else {
        return Ok(Arc::new(InProcess::default()));
    };
    let place = &settings.servers.rabbitmq_place;
    let what = format!("RabbitMQ at {place} can't be used");
    let may_pass = |error: &bus::Error| matches!(error, bus::Error::Unavailable { .. });
    let connect = async || RabbitMq::connect(server.clone()).await;
    let bus = patiently(settings.servers.patience, &what, may_pass, connect).await;
    Ok(Arc::new(bus.with_context(|| {
        format!("{what}; start it, correct RABBITMQ_*, or unset them for the bus in this process")
    })?))
}

/// Tries until it succeeds, fails for good, or no patience is left. Each failure is told.
async fn patiently<T, E: std::error::Error>(
    patience: Duration,
    what: &str,
    may_pass: impl Fn(&E) -> bool,
    connect: impl AsyncFn() -> Result<T, E>,
) -> Result<T, E> {
    let began = Instant::now();
    let mut pause = FIRST_PAUSE;
    loop {
        let tried = connect().await;
        let left = patience.saturating_sub(began.elapsed());
        match tried {
            Err(error) if may_pass(&error) && left > pause => {
                tracing::warn!("{what}: {error}; tried again for {} s more", left.as_secs());
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            other => return other,
        }
    }
}

/// Logs what was chosen, a line each.
pub(super) fn say_what_was_chosen(settings: &Settings, role: &Role) {
    let servers = &settings.servers;
    match servers.postgres {
        Some(_) => tracing::info!("store: PostgreSQL at {}", servers.postgres_place),
        None => tracing::info!("store: embedded SQLite at {}", database(settings).display()),
    }
    match servers.redis {
        Some(_) => tracing::info!("cache: Redis at {}", servers.redis_place),
        None => tracing::info!("cache: in this process"),
    }
    match servers.rabbitmq {
        _ if !role.uses_bus() => tracing::info!("bus: not needed"),
        Some(_) => tracing::info!("bus: RabbitMQ at {}", servers.rabbitmq_place),
        None => tracing::info!("bus: in this process"),
    }
}

/// For tests: the store with somebody before it who stops executions where a test wants it.
#[cfg(debug_assertions)]
fn held(settings: &Settings, store: Arc<dyn Store>) -> Arc<dyn Store> {
    match settings.values.lookup("TEST_HOLD_DIR") {
        Some(folder) => {
            let hold = crate::hold::Hold::new(folder.into());
            Arc::new(store::intercept::Intercepted::new(store, hold))
        }
        None => store,
    }
}

#[cfg(not(debug_assertions))]
fn held(_settings: &Settings, store: Arc<dyn Store>) -> Arc<dyn Store> {
    store
}

/// This host's clock.
pub(crate) fn own_clock(settings: &Settings) -> Clock {
    perhaps_wrong(settings, Arc::new(Utc::now))
}

/// For tests: a clock that goes wrong when a test says so.
#[cfg(debug_assertions)]
pub(super) fn perhaps_wrong(settings: &Settings, clock: Clock) -> Clock {
    match settings.values.lookup("TEST_CLOCK_FILE") {
        Some(file) => crate::skew::clock(file, clock),
        None => clock,
    }
}

#[cfg(not(debug_assertions))]
pub(super) fn perhaps_wrong(_settings: &Settings, clock: Clock) -> Clock {
    clock
}
