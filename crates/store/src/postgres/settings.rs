//! Where the server is, and how it is used.

use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tokio_postgres::config::{Host, SslMode};

use super::fault::Outcome;
use crate::error::unavailable;

/// Where the server is, and how it is used.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `postgres://user:password@host:port/database`; when it is given, the next five are not looked at.
    pub url: Option<SecretString>,
    /// The server's name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// The database.
    pub database: String,
    /// Who connects.
    pub user: String,
    /// With which password.
    pub password: SecretString,
    /// How many connections are kept open, those that write in batches included.
    pub pool_size: usize,
    /// How many more are opened while all of them are busy.
    pub max_overflow: usize,
    /// How long a caller waits for a connection when all are busy.
    pub pool_timeout: Duration,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long a statement may take.
    pub statement_timeout: Duration,
    /// How many connections append at the same time: while one waits for the disk, the next one's batch is written.
    pub append_lanes: usize,
    /// Tasks, steps, results, messages and facts longer than this are kept compressed, in bytes.
    pub compress_above: usize,
    /// Whether processes tell one another of work through the server; not needed where a bus does.
    pub tells_others: bool,
    /// Whether missing migrations are made on connecting; without it, they are an error.
    pub auto_migrate: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: None,
            host: "localhost".to_owned(),
            port: 5432,
            database: "agentrunner".to_owned(),
            user: "agentrunner".to_owned(),
            password: SecretString::default(),
            pool_size: 10,
            max_overflow: 20,
            pool_timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(30),
            append_lanes: 2,
            compress_above: 1 << 20,
            tells_others: true,
            auto_migrate: true,
        }
    }
}

/// The same, as the driver wants it.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) config: tokio_postgres::Config,
    /// Its name in messages.
    pub(super) name: String,
    /// Who connects, in messages.
    pub(super) user: String,
    /// The database, in messages.
    pub(super) database: String,
    /// What is to be resolved, when it is one name.
    pub(super) host: Option<(String, u16)>,
    pub(super) connect_timeout: Duration,
    pub(super) statement_timeout: Duration,
}

impl Server {
    pub(super) fn new(settings: &Settings) -> Outcome<Self> {
        let mut config = match &settings.url {
            // The driver's complaint is not passed on: it might quote the password.
            Some(url) => tokio_postgres::Config::from_str(url.expose_secret()).map_err(|_| {
                unavailable(
                    "the database's URL can't be read; it looks like postgres://user:password@host:5432/database",
                )
            })?,
            None => {
                let mut config = tokio_postgres::Config::new();
                config
                    .host(&settings.host)
                    .port(settings.port)
                    .dbname(&settings.database)
                    .user(&settings.user)
                    .password(settings.password.expose_secret());
                config
            }
        };
        if config.get_ssl_mode() == SslMode::Require {
            return Err(unavailable(
                "the database's URL asks for sslmode=require, and this program can't encrypt the connection yet; use a network that you trust, or a local proxy that encrypts",
            )
            .into());
        }
        config
            .ssl_mode(SslMode::Disable)
            .application_name("agentrunner")
            .connect_timeout(settings.connect_timeout)
            .tcp_user_timeout(settings.statement_timeout)
            .keepalives(true)
            .keepalives_idle(Duration::from_secs(15))
            .keepalives_interval(Duration::from_secs(5))
            .keepalives_retries(3);
        let port = config.get_ports().first().copied().unwrap_or(5432);
        let host = match config.get_hosts() {
            [Host::Tcp(host)] => Some((host.clone(), port)),
            _ => None,
        };
        let name = host.as_ref().map_or_else(
            || "the server".to_owned(),
            |(host, port)| format!("{host}:{port}"),
        );
        Ok(Self {
            name,
            user: config.get_user().unwrap_or("?").to_owned(),
            database: config.get_dbname().unwrap_or("?").to_owned(),
            host,
            connect_timeout: settings.connect_timeout,
            statement_timeout: settings.statement_timeout,
            config,
        })
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("name", &self.name)
            .field("database", &self.database)
            .field("user", &self.user)
            .finish_non_exhaustive()
    }
}
