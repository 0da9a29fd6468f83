//! What the agents of a team know together.

use domain::ExecutionId;
use store::{SharedAnswer, SharedValue, SharedWrite};

use super::Tables;

impl Tables {
    pub(crate) fn share(&mut self, write: SharedWrite) -> SharedAnswer {
        let of_team = |other: &&SharedWrite| other.team == write.team;
        let written: Vec<&SharedWrite> = self.shared.iter().filter(of_team).collect();
        let version_at = |key: &str, upto: usize| {
            let upto = written.iter().take(upto);
            upto.filter(|other| other.key == key).count() as u64
        };
        let once = |other: &&SharedWrite| other.idempotency_key == write.idempotency_key;
        if let Some(at) = written.iter().position(once) {
            let version = version_at(&written[at].key, at + 1);
            return SharedAnswer::Written { version };
        }
        if self.rows.get(&write.team).is_none_or(|row| row.is_over()) {
            return SharedAnswer::Over;
        }
        let version = version_at(&write.key, usize::MAX);
        if let Some(refusal) = write.refusal(version, written.len() as u64) {
            return refusal;
        }
        self.shared.push(write);
        SharedAnswer::Written {
            version: version + 1,
        }
    }

    pub(crate) fn shared(&self, team: ExecutionId, keys: &[String]) -> Vec<SharedValue> {
        let mut latest: std::collections::BTreeMap<&str, SharedValue> = Default::default();
        for write in self.shared.iter().filter(|write| write.team == team) {
            let version = latest
                .get(write.key.as_str())
                .map_or(0, |value| value.version);
            let value = SharedValue {
                key: write.key.clone(),
                version: version + 1,
                value: write.value.clone(),
                by: write.by,
            };
            latest.insert(&write.key, value);
        }
        let wanted = latest.into_values();
        wanted
            .filter(|value| keys.is_empty() || keys.contains(&value.key))
            .collect()
    }
}
