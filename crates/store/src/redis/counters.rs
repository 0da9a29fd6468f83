//! Counters that processes share; each counts for itself while the server is away.

use std::sync::LazyLock;
use std::time::Duration;

use ::redis::{Script, cmd};
use async_trait::async_trait;
use uuid::Uuid;

use super::Redis;
use super::trouble::Fault;
use crate::counters::{Counters, LONGEST_PAUSE, Limit, Taken};

static TAKE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("take.lua")));
static PAUSE: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("pause.lua")));

/// The longest name that is written out.
const LONGEST_NAME: usize = 256;

#[async_trait]
impl Counters for Redis {
    async fn take(&self, key: &str, limit: Limit) -> Taken {
        let name = self.link.key("count", &short(key));
        let (interval, tolerance) = (limit.interval_micros(), limit.tolerance_micros());
        let arguments = [interval.to_string(), tolerance.to_string()];
        let arguments = arguments.each_ref().map(String::as_bytes);
        match self.link.run::<(i64, i64)>(&TAKE, &name, &arguments).await {
            Ok((1, left)) => Taken::Allowed {
                left: u32::try_from(left).unwrap_or_default(),
            },
            Ok((_, micros)) => Taken::Refused {
                retry_after: Duration::from_micros(u64::try_from(micros).unwrap_or_default()),
            },
            Err(fault) => {
                if matches!(fault, Fault::Foreign) {
                    self.link.ask::<()>(cmd("UNLINK").arg(&name)).await.ok();
                }
                self.link.local.take(key, limit).await
            }
        }
    }

    async fn pause(&self, key: &str, lasting: Duration) {
        let (key, lasting) = (short(key), lasting.min(LONGEST_PAUSE));
        self.link.local.pause_now(&key, lasting);
        let millis = lasting.as_millis().to_string();
        let name = self.link.key("pauses", "all");
        // Without a server this process at least knows it.
        self.link
            .run::<i64>(&PAUSE, &name, &[key.as_bytes(), millis.as_bytes()])
            .await
            .ok();
    }

    fn paused(&self, key: &str) -> Option<Duration> {
        self.link.local.paused(&short(key))
    }
}

/// A key as it is written down: a long one by its hash.
fn short(key: &str) -> String {
    if key.len() <= LONGEST_NAME {
        key.to_owned()
    } else {
        Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).to_string()
    }
}
