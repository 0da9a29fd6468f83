//! Connections to Redis for tests.

use std::time::Duration;

use store::redis::{Redis, Settings};
use testkit::servers::{self, Kind};

/// The URL of the server for tests that do it no harm. Each of them has keys of its own.
pub(crate) async fn shared() -> &'static str {
    servers::shared(Kind::Redis).await
}

/// Settings with keys that no other test has.
pub(crate) fn settings(url: &str) -> Settings {
    Settings {
        // A loaded machine is no failure.
        patience: Duration::from_secs(20),
        connect_timeout: Duration::from_secs(20),
        ..Settings::new(
            url.into(),
            "the test's place".to_owned(),
            servers::unique_name(),
        )
    }
}

pub(crate) async fn connect(url: &str) -> Redis {
    Redis::connect(settings(url)).await.unwrap()
}

/// A session behind the cache's back.
pub(crate) async fn session(url: &str) -> ::redis::aio::MultiplexedConnection {
    let client = ::redis::Client::open(url).unwrap();
    client.get_multiplexed_async_connection().await.unwrap()
}
