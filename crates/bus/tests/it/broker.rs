//! The broker of the tests, and what a test does behind the back of the bus.

use std::time::Duration;

use bus::RabbitMq;
use bus::rabbitmq::Settings;
use testkit::servers::{self, Kind};

/// The URL of the broker for tests that do it no harm.
pub(crate) async fn url() -> &'static str {
    servers::shared(Kind::RabbitMq).await
}

/// A prefix that no other test has, on this broker or by another run.
pub(crate) fn prefix() -> String {
    format!("{}.", servers::unique_name())
}

pub(crate) fn settings(url: &str, prefix: &str) -> Settings {
    Settings {
        prefix: prefix.to_owned(),
        // A loaded machine is no failure.
        timeout: Duration::from_secs(20),
        patience: Duration::from_secs(60),
        // Most tests make queues, and few kill their broker.
        settling: Duration::ZERO,
        ..Settings::new(url.into())
    }
}

pub(crate) async fn connect(prefix: &str) -> RabbitMq {
    RabbitMq::connect(settings(url().await, prefix))
        .await
        .unwrap()
}

pub(crate) async fn channel(url: &str) -> lapin::Channel {
    let connection = lapin::Connection::connect(url, lapin::ConnectionProperties::default());
    // The channel keeps it open.
    connection.await.unwrap().create_channel().await.unwrap()
}
