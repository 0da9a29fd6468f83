//! What the built-in functions need of the system around them.

use std::sync::Arc;

use async_trait::async_trait;
use domain::{AgentName, Event};
use serde_json::Value;
use store::Store;
use tools::Host;

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

    async fn publish(&self, event: Event) -> Result<(), String> {
        self.store
            .publish(&[event])
            .await
            .map_err(|error| error.to_string())
    }
}
