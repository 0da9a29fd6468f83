//! Keys of the API, as a store keeps them.

use async_trait::async_trait;
use domain::{ApiKey, KeyId, Time};

use crate::{Page, Result};

/// Which keys.
#[derive(Debug, Clone, Default)]
pub struct KeyFilter {
    /// Only those that may be used at this time.
    pub active_at: Option<Time>,
    /// Which part of them.
    pub page: Page,
}

/// The part of a store that keeps keys. What a caller holds is never given to it: it keeps hashes.
#[async_trait]
pub trait Keys: Send + Sync + 'static {
    /// Keeps a key, unless there is one with its id or its hash; tells whether it was kept.
    async fn add_key(&self, key: ApiKey) -> Result<bool>;

    /// Keys, the newest first. One that can't be read is left out: nobody is let in by it.
    async fn keys(&self, filter: KeyFilter) -> Result<Vec<ApiKey>>;

    /// Ends a key; tells whether there is one. The first word stands. May be repeated.
    async fn revoke_key(&self, id: KeyId, by: &str, now: Time) -> Result<bool>;

    /// Notes when keys were last used; an earlier time changes nothing.
    async fn note_key_use(&self, uses: &[(KeyId, Time)]) -> Result<()>;
}
