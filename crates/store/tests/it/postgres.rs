//! PostgreSQL: the suite, and what only a server can do.

use std::sync::Arc;

use async_trait::async_trait;
use domain::{ExecutionId, Seq};
use store::Store;
use store::postgres::Postgres;

use crate::server::{connect, database, session};
use crate::suite::Fixture;

/// A store in a database of its own.
pub(crate) struct Served {
    store: Postgres,
    url: String,
}

impl Served {
    async fn behind_its_back(&self, sql: &str, id: ExecutionId, seq: u32) {
        let client = session(&self.url).await;
        let seq = i32::try_from(seq).unwrap();
        let changed = client.execute(sql, &[&id.as_uuid(), &seq]).await.unwrap();
        assert_eq!(changed, 1);
    }
}

#[async_trait]
impl Fixture for Served {
    async fn open() -> Self {
        let url = database().await;
        Self {
            store: connect(&url).await,
            url,
        }
    }

    fn store(&self) -> Arc<dyn Store> {
        Arc::new(self.store.clone())
    }

    async fn damage_step(&self, id: ExecutionId, seq: Seq) {
        let sql = "UPDATE steps SET body = '{\"kind\":\"nonsense\"}' WHERE execution_id = $1 AND seq = $2";
        self.behind_its_back(sql, id, seq.get()).await;
    }

    async fn remove_step(&self, id: ExecutionId, seq: Seq) {
        let sql = "DELETE FROM steps WHERE execution_id = $1 AND seq = $2";
        self.behind_its_back(sql, id, seq.get()).await;
    }

    async fn damage_task(&self, id: ExecutionId) {
        let sql = "UPDATE execution_specs SET spec = substr(spec, 1, $2) WHERE execution_id = $1";
        self.behind_its_back(sql, id, 30).await;
    }
}

behaviour!(Served);
