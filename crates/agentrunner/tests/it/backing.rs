//! What makes the product use a server.

use testkit::servers::{self, Kind};
use tokio_postgres::{Client, NoTls};

/// Variables that make the product use a server.
pub(crate) type Variables = Vec<(&'static str, String)>;

/// As the helpers that start the product take them.
pub(crate) fn borrowed(variables: &Variables) -> Vec<(&str, &str)> {
    variables
        .iter()
        .map(|(name, value)| (*name, value.as_str()))
        .collect()
}

/// An empty database of one's own on the PostgreSQL of all tests.
pub(crate) async fn postgres() -> Variables {
    let url = servers::shared(Kind::Postgres).await;
    let name = servers::unique_name();
    let sql = format!("CREATE DATABASE {name} TEMPLATE template0");
    session(url).await.batch_execute(&sql).await.unwrap();
    let url = servers::with_database(url, &name);
    vec![(Kind::Postgres.variable(), url)]
}

/// The RabbitMQ of all tests. Its messages are hints, so tests may hear each other.
pub(crate) async fn rabbitmq() -> Variables {
    let url = servers::shared(Kind::RabbitMq).await;
    vec![(Kind::RabbitMq.variable(), url.to_owned())]
}

/// A session behind the product's back.
pub(crate) async fn session(url: &str) -> Client {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.unwrap();
    tokio::spawn(async move { connection.await.ok() });
    client
}
