//! What it means for work that the database came from a backup.
//!
//! A restore is a crash of everything at the moment of the backup, and something worse: what was done between that moment
//! and the loss is forgotten. A model may be asked again, and what only reads may be read again. A call that must not
//! happen twice may have happened, and no journal tells. So whatever was *caused* before the restore carries the moment of
//! the backup from then on ([`crate::Execution::restored`]): what was unfinished, what such executions delegate, what events
//! and fire times from before start. Their unsafe calls are not made before a person has said that they did not happen
//! ([`crate::decide()`]). What is asked for after the restore is not in doubt.

use serde::{Deserialize, Serialize};

use crate::Time;
use crate::id::Epoch;

/// By how much epochs rise. Those that leases had after the backup are forgotten, and one who held such a lease may still
/// live: more leases than this can't have been given to one execution meanwhile.
const GAP: u32 = 1_000_000;

/// A restore of this database.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Restored {
    /// When it was done.
    pub at: Time,
    /// The moment of the backup: what came after it is forgotten.
    pub backup: Time,
}

impl Restored {
    /// What an execution carries that was caused at that time; nothing when the cause is younger than the restore.
    pub fn doubt(self, cause: Time) -> Option<Time> {
        (cause <= self.at).then_some(self.backup)
    }
}

impl Epoch {
    /// The one that an unfinished execution goes on from when it is restored: above all that were given after the backup.
    #[must_use]
    pub const fn after_restore(self) -> Self {
        Self::new(self.get().saturating_add(GAP))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_caused_before_the_restore_is_in_doubt() {
        let time = |text: &str| text.parse::<Time>().unwrap();
        let restored = Restored {
            at: time("2026-11-30T09:00:00Z"),
            backup: time("2026-11-30T02:00:00Z"),
        };
        for cause in [
            "2026-11-29T00:00:00Z",
            "2026-11-30T05:00:00Z",
            "2026-11-30T09:00:00Z",
        ] {
            assert_eq!(restored.doubt(time(cause)), Some(restored.backup));
        }
        assert_eq!(restored.doubt(time("2026-11-30T09:00:00.000001Z")), None);
    }

    #[test]
    fn epochs_rise_above_those_that_are_forgotten() {
        let restored = Epoch::new(7).after_restore();
        assert!(restored > Epoch::new(500_000));
        assert!(restored.after_restore() > restored);
        assert!(Epoch::new(u32::MAX).after_restore() >= Epoch::new(u32::MAX));
    }
}
