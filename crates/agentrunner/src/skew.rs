//! A clock that a test sets wrong, as a virtual machine's is after it was moved, or one whose time server lies. Only in
//! builds with debug assertions; a shipped binary has none of it.
//!
//! With `TEST_CLOCK_FILE` set, the milliseconds in that file are added to the true time; none when it can't be read. The
//! time goes on meanwhile, and what is measured and not told (leases by their owner, time-outs, delays) is not touched:
//! a machine's monotonic clock does not jump either.

use std::path::PathBuf;
use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use engine::Clock;

/// The true time and what the file adds to it.
pub(crate) fn clock(file: String) -> Clock {
    let file = PathBuf::from(file);
    Arc::new(move || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let ahead = text.trim().parse().unwrap_or_default();
        let now = Utc::now();
        TimeDelta::try_milliseconds(ahead)
            .and_then(|ahead| now.checked_add_signed(ahead))
            .unwrap_or(now)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_sets_the_clock_while_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("clock");
        let clock = clock(file.to_str().unwrap().to_owned());
        let minute = TimeDelta::minutes(1);
        assert!((clock() - Utc::now()).abs() < minute / 2);
        std::fs::write(&file, "-60000").unwrap();
        assert!(Utc::now() - clock() >= minute);
        std::fs::write(&file, "60000").unwrap();
        assert!(clock() - Utc::now() > minute / 2);
    }
}
