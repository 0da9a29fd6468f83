//! Copies.

use std::time::Duration;

use ::redis::cmd;
use async_trait::async_trait;

use super::Redis;
use super::trouble::Fault;
use crate::cache::{Away, Cache, MAX_VALUE_BYTES};

const KIND: &str = "copy";
/// How many keys are looked at in one step of clearing.
const SCAN: usize = 500;

#[async_trait]
impl Cache for Redis {
    async fn get(&self, key: &str) -> Option<Vec<u8>> {
        let name = self.link.key(KIND, key);
        // Not GET: whatever somebody may have put there, no more than this comes over.
        let mut command = cmd("GETRANGE");
        command.arg(&name).arg(0).arg(MAX_VALUE_BYTES);
        match self.link.ask::<Vec<u8>>(&command).await {
            Ok(value) => (!value.is_empty()).then_some(value),
            Err(Fault::Foreign) => {
                tracing::warn!(key, "the cache has something foreign there; it is removed");
                self.remove(key).await;
                None
            }
            Err(Fault::Away) => None,
        }
    }

    async fn put(&self, key: &str, value: Vec<u8>, lifetime: Duration) {
        let millis = u64::try_from(lifetime.as_millis())
            .unwrap_or(u64::MAX)
            .max(1);
        let mut command = cmd("SET");
        command
            .arg(self.link.key(KIND, key))
            .arg(value)
            .arg("PX")
            .arg(millis);
        // That there is no server is known, and was said.
        self.link.ask::<()>(&command).await.ok();
    }

    async fn remove(&self, key: &str) {
        let mut command = cmd("UNLINK");
        command.arg(self.link.key(KIND, key));
        self.link.ask::<()>(&command).await.ok();
    }

    async fn clear(&self) -> Result<u64, Away> {
        let (mut cursor, mut count) = (0u64, 0u64);
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(cursor)
                .arg("MATCH")
                .arg(self.link.key(KIND, "*"))
                .arg("COUNT")
                .arg(SCAN);
            let found = self.link.ask::<(u64, Vec<Vec<u8>>)>(&scan).await;
            let (next, keys) = found.map_err(|_| self.why_away())?;
            if !keys.is_empty() {
                let mut command = cmd("UNLINK");
                command.arg(keys);
                let gone = self.link.ask::<u64>(&command).await;
                count += gone.map_err(|_| self.why_away())?;
            }
            if next == 0 {
                return Ok(count);
            }
            cursor = next;
        }
    }

    fn health(&self) -> Result<(), Away> {
        self.link.health()
    }
}

impl Redis {
    fn why_away(&self) -> Away {
        match self.link.health() {
            Err(away) => away,
            Ok(()) => Away("Redis did not answer; ask again".to_owned()),
        }
    }
}
