//! Which servers are used instead of what is embedded.

use std::fmt::Write as _;
use std::time::Duration;

use secrecy::SecretString;
use store::cache::Lifetimes;

use super::values::Values;

/// The servers. Each may be missing: then its place is taken by something in this process.
#[derive(Debug, Clone)]
pub(crate) struct Servers {
    pub(crate) postgres: Option<store::postgres::Settings>,
    pub(crate) rabbitmq: Option<bus::rabbitmq::Settings>,
    /// The address of Redis.
    pub(crate) redis: Option<SecretString>,
    /// Where they are, without passwords, for people.
    pub(crate) postgres_place: String,
    pub(crate) rabbitmq_place: String,
    pub(crate) redis_place: String,
    /// How long copies of what was read are kept, wherever they are.
    pub(crate) lifetimes: Lifetimes,
    /// How long a start goes on trying to use them.
    pub(crate) patience: Duration,
}

impl Servers {
    pub(super) fn read(values: &Values) -> Self {
        let is_set = |name| values.text(name).is_some();
        Self {
            postgres: (is_set("DATABASE_URL") || is_set("POSTGRES_HOST")).then(|| postgres(values)),
            rabbitmq: (is_set("RABBITMQ_URL") || is_set("RABBITMQ_HOST")).then(|| rabbitmq(values)),
            redis: (is_set("REDIS_URL") || is_set("REDIS_HOST")).then(|| redis(values)),
            postgres_place: place(values, "DATABASE_URL", "POSTGRES_HOST", "POSTGRES_PORT"),
            rabbitmq_place: place(values, "RABBITMQ_URL", "RABBITMQ_HOST", "RABBITMQ_PORT"),
            redis_place: place(values, "REDIS_URL", "REDIS_HOST", "REDIS_PORT"),
            lifetimes: Lifetimes {
                state: Duration::from_secs(values.number("REDIS_STATE_TTL")),
                other: Duration::from_secs(values.number("REDIS_CACHE_TTL")),
            },
            patience: Duration::ZERO,
        }
    }
}

fn postgres(values: &Values) -> store::postgres::Settings {
    let text = |name| values.text(name).unwrap_or_default().to_owned();
    let count = |name| usize::try_from(values.number(name)).unwrap_or(usize::MAX);
    store::postgres::Settings {
        url: values.text("DATABASE_URL").map(SecretString::from),
        host: text("POSTGRES_HOST"),
        port: values.port("POSTGRES_PORT"),
        database: text("POSTGRES_DB"),
        user: text("POSTGRES_USER"),
        password: text("POSTGRES_PASSWORD").into(),
        pool_size: count("DB_POOL_SIZE"),
        max_overflow: count("DB_MAX_OVERFLOW"),
        auto_migrate: values.text("AUTO_MIGRATE").is_none() || values.switch("AUTO_MIGRATE"),
        compress_above: count("STATE_COMPRESSION_THRESHOLD"),
        // A broker tells of all work already.
        tells_others: values.text("RABBITMQ_URL").is_none()
            && values.text("RABBITMQ_HOST").is_none(),
        ..store::postgres::Settings::default()
    }
}

fn rabbitmq(values: &Values) -> bus::rabbitmq::Settings {
    let url = values
        .text("RABBITMQ_URL")
        .map_or_else(|| rabbitmq_url(values), str::to_owned);
    let prefetch = values.text("RABBITMQ_PREFETCH_COUNT");
    bus::rabbitmq::Settings {
        prefetch: prefetch.and_then(|count| count.parse().ok()),
        ..bus::rabbitmq::Settings::new(url.into())
    }
}

fn rabbitmq_url(values: &Values) -> String {
    let text = |name| values.text(name).unwrap_or_default();
    format!(
        "amqp://{}:{}@{}:{}/{}",
        encoded(text("RABBITMQ_USER")),
        encoded(text("RABBITMQ_PASSWORD")),
        host_of_url(text("RABBITMQ_HOST")),
        values.port("RABBITMQ_PORT"),
        encoded(text("RABBITMQ_VHOST")),
    )
}

fn redis(values: &Values) -> SecretString {
    let url = values.text("REDIS_URL").map(str::to_owned);
    url.unwrap_or_else(|| redis_url(values)).into()
}

fn redis_url(values: &Values) -> String {
    let text = |name| values.text(name).unwrap_or_default();
    let password = match text("REDIS_PASSWORD") {
        "" => String::new(),
        password => format!(":{}@", encoded(password)),
    };
    format!(
        "redis://{password}{}:{}/{}",
        host_of_url(text("REDIS_HOST")),
        values.port("REDIS_PORT"),
        values.number("REDIS_DB"),
    )
}

/// An IPv6 address stands in brackets there.
fn host_of_url(host: &str) -> String {
    if host.contains(':') && !host.starts_with('[') {
        format!("[{host}]")
    } else {
        host.to_owned()
    }
}

/// Any text as a part of a URL.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut url, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            url.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            write!(url, "%{byte:02X}").ok();
        }
        url
    })
}

/// Host and port; of a URL nothing else is shown, since the rest may be secret.
fn place(values: &Values, url: &str, host: &str, port: &str) -> String {
    let Some(url_text) = values.text(url) else {
        let host = values.text(host).unwrap_or_default();
        return format!("{}:{}", host_of_url(host), values.port(port));
    };
    let parsed = reqwest::Url::parse(url_text).ok();
    let host = parsed.as_ref().and_then(reqwest::Url::host_str);
    match (host, parsed.as_ref().and_then(reqwest::Url::port)) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => format!("the place that {url} names"),
    }
}
