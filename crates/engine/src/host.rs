//! What the built-in functions need of the system around them.

use std::sync::Arc;

use async_trait::async_trait;
use domain::{AgentName, Event, ExecutionId};
use serde_json::Value;
use store::{SharedAnswer, SharedWrite, Store};
use tools::{Host, Share, Shared};

use crate::Clock;

/// Gives tools the store.
pub struct StoreHost {
    store: Arc<dyn Store>,
    clock: Clock,
}

impl StoreHost {
    /// A host on a store.
    pub fn new(store: Arc<dyn Store>, clock: Clock) -> Self {
        Self { store, clock }
    }
}

#[async_trait]
impl Host for StoreHost {
    async fn remember(
        &self,
        agent: &AgentName,
        key: &str,
        value: &Value,
        idempotency_key: &str,
    ) -> Result<(), String> {
        let now = (self.clock)();
        self.store
            .remember(agent, key, value, idempotency_key, now)
            .await
            .map_err(|error| error.to_string())
    }

    async fn recall(
        &self,
        agent: &AgentName,
        like: &str,
        limit: usize,
    ) -> Result<Vec<(String, Value)>, String> {
        self.store
            .recall(agent, like, limit)
            .await
            .map_err(|error| error.to_string())
    }

    async fn share(&self, share: Share<'_>) -> Result<Shared, String> {
        let write = SharedWrite {
            team: share.team,
            key: share.key.to_owned(),
            value: share.value.clone(),
            expected: share.expected,
            by: share.by,
            idempotency_key: share.idempotency_key.to_owned(),
            now: (self.clock)(),
        };
        let answer = self.store.share(write).await;
        Ok(match answer.map_err(|error| error.to_string())? {
            SharedAnswer::Written { version } => Shared::Written { version },
            SharedAnswer::Conflict { version } => Shared::Refused(format!(
                "not written: {:?} is at version {version} by now; read it again",
                share.key
            )),
            SharedAnswer::Full => Shared::Refused(format!(
                "not written: a team writes at most {} times",
                SharedWrite::MOST
            )),
            SharedAnswer::Over => {
                Shared::Refused("not written: the team's task is over".to_owned())
            }
        })
    }

    async fn shared(
        &self,
        team: ExecutionId,
        keys: &[String],
    ) -> Result<Vec<(String, u64, Value)>, String> {
        let found = self.store.shared(team, keys).await;
        let found = found.map_err(|error| error.to_string())?.into_iter();
        Ok(found.map(|v| (v.key, v.version, v.value)).collect())
    }

    async fn publish(&self, event: Event) -> Result<(), String> {
        self.store
            .publish(&[event])
            .await
            .map_err(|error| error.to_string())
    }
}
