//! Keys of the API.

use std::cmp::Reverse;

use async_trait::async_trait;
use domain::access::key::KeyStatus;
use domain::{ApiKey, KeyId, Time};
use store::{KeyFilter, Keys, Result};

use super::Tables;
use crate::simulation::store::{Reached, Way};

impl Tables {
    fn add_key(&mut self, key: ApiKey) -> bool {
        let is_taken = |known: &ApiKey| known.id == key.id || known.hash == key.hash;
        let is_free = !self.api_keys.iter().any(is_taken);
        if is_free {
            self.api_keys.push(key);
        }
        is_free
    }

    fn find_keys(&self, filter: &KeyFilter) -> Vec<ApiKey> {
        let place = |key: &ApiKey| Reverse((key.created_at, key.id.to_string()));
        let mut keys = self.api_keys.clone();
        if let Some(now) = filter.active_at {
            keys.retain(|key| key.status(now) == KeyStatus::Active);
        }
        if let Some(after) = &filter.page.after {
            keys.retain(|key| place(key) > Reverse(after.clone()));
        }
        keys.sort_by_key(place);
        keys.truncate(filter.page.limit);
        keys
    }

    fn revoke_key(&mut self, id: KeyId, by: &str, now: Time) -> bool {
        let Some(key) = self.api_keys.iter_mut().find(|key| key.id == id) else {
            return false;
        };
        if key.revoked_at.is_none() {
            key.revoked_at = Some(now);
            key.revoked_by = Some(by.to_owned());
        }
        true
    }

    fn note_key_use(&mut self, uses: &[(KeyId, Time)]) {
        for (id, at) in uses {
            if let Some(key) = self.api_keys.iter_mut().find(|key| key.id == *id) {
                key.last_used_at = key.last_used_at.max(Some(*at));
            }
        }
    }
}

#[async_trait]
impl<W: Way> Keys for Reached<W> {
    async fn add_key(&self, key: ApiKey) -> Result<bool> {
        let add = move |t: &mut Tables| Ok(t.add_key(key));
        self.way.carry("add_key", add).await
    }
    async fn keys(&self, filter: KeyFilter) -> Result<Vec<ApiKey>> {
        let find = move |t: &mut Tables| Ok(t.find_keys(&filter));
        self.way.carry("keys", find).await
    }
    async fn revoke_key(&self, id: KeyId, by: &str, now: Time) -> Result<bool> {
        let by = by.to_owned();
        let revoke = move |t: &mut Tables| Ok(t.revoke_key(id, &by, now));
        self.way.carry("revoke_key", revoke).await
    }
    async fn note_key_use(&self, uses: &[(KeyId, Time)]) -> Result<()> {
        let uses = uses.to_vec();
        let note = move |t: &mut Tables| {
            t.note_key_use(&uses);
            Ok(())
        };
        self.way.carry("note_key_use", note).await
    }
}
