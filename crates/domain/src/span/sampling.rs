//! Which traces are recorded.

use crate::id::TraceId;

/// How many bits of a trace id are taken for chance: its last 32. In ours a time and a counter come before, which many ids of
/// one millisecond have in common.
const BITS: u32 = 32;

/// A share of all traces. Which ones depends on their ids alone, so all processes take the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sampling {
    /// Those below are taken.
    below: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self::ALL
    }
}

impl Sampling {
    /// Every trace.
    pub const ALL: Self = Self { below: 1 << BITS };

    /// A share from 0 to 1; none when it is no such number.
    pub fn share(share: f64) -> Option<Self> {
        let is_share = (0.0..=1.0).contains(&share);
        is_share.then(|| Self {
            below: (share * (1_u64 << BITS) as f64).round() as u64,
        })
    }

    /// Whether a trace is recorded. Whoever began it has said so, or not; else its id decides.
    pub fn takes(self, trace: &TraceId, said: Option<bool>) -> bool {
        let drawn = || {
            let last = trace.as_str().get(32 - BITS as usize / 4..);
            let number = last.and_then(|digits| u64::from_str_radix(digits, 16).ok());
            number.is_some_and(|number| number < self.below)
        };
        said.unwrap_or_else(drawn)
    }
}
