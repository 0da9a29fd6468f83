//! A database for each test, on the PostgreSQL of all.

use std::time::Duration;

use store::postgres::{Postgres, Schema, Settings};
use testkit::servers::{self, Kind, with_database};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

/// A session behind the store's back.
pub(crate) async fn session(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(async move { connection.await.ok() });
    client
}

/// The URL of an empty database that no other test uses.
pub(crate) async fn empty_database() -> String {
    create_database("template0").await
}

/// The URL of a database with the current schema that no other test uses.
pub(crate) async fn database() -> String {
    static TEMPLATE: OnceCell<String> = OnceCell::const_new();
    let make = || async {
        let url = empty_database().await;
        Schema::connect(&settings(&url))
            .await
            .unwrap()
            .up()
            .await
            .unwrap();
        url.rsplit('/').next().unwrap().to_owned()
    };
    create_database(TEMPLATE.get_or_init(make).await).await
}

async fn create_database(template: &str) -> String {
    let url = servers::shared(Kind::Postgres).await;
    let name = servers::unique_name();
    let sql = format!("CREATE DATABASE {name} TEMPLATE {template}");
    let client = session(url).await;
    // Whoever made the template may still be leaving it.
    for attempt in 0.. {
        match client.batch_execute(&sql).await {
            Ok(()) => break,
            Err(error) => assert!(attempt < 50, "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    with_database(url, &name)
}

pub(crate) fn settings(url: &str) -> Settings {
    Settings {
        url: Some(url.to_owned().into()),
        pool_size: 6,
        // A loaded machine is no failure.
        connect_timeout: Duration::from_secs(20),
        statement_timeout: Duration::from_secs(60),
        ..Settings::default()
    }
}

pub(crate) async fn connect(url: &str) -> Postgres {
    Postgres::connect(settings(url)).await.unwrap()
}
