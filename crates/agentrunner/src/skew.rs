//! A clock that a test sets wrong, as a virtual machine's is after it was moved, or one whose time server lies. Only in
//! builds with debug assertions; a shipped binary has none of it.
//!
//! With `TEST_CLOCK_FILE` set, the milliseconds in that file are added to the time that the system goes by, wherever it
//! has that from; none when the file can't be read. What is measured and not told (time-outs, delays) is not touched: a
//! machine's monotonic counter does not jump either.

use std::path::PathBuf;
use std::sync::Arc;

use chrono::TimeDelta;
use engine::Clock;

/// What `right` says and what the file adds to it.
pub(crate) fn clock(file: String, right: Clock) -> Clock {
    let file = PathBuf::from(file);
    Arc::new(move || {
        let text = std::fs::read_to_string(&file).unwrap_or_default();
        let ahead = text.trim().parse().unwrap_or_default();
        let now = right();
        TimeDelta::try_milliseconds(ahead)
            .and_then(|ahead| now.checked_add_signed(ahead))
            .unwrap_or(now)
    })
}

#[cfg(test)]
mod tests {
    use chrono::DateTime;

    use super::*;

    #[test]
    fn the_file_sets_the_clock_while_it_runs() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("clock");
        let right = DateTime::from_timestamp(1_000_000, 0).unwrap();
        let clock = clock(file.to_str().unwrap().to_owned(), Arc::new(move || right));
        assert_eq!(clock(), right);
        for minutes in [-1, 1] {
            std::fs::write(&file, (minutes * 60_000).to_string()).unwrap();
            assert_eq!(clock(), right + TimeDelta::minutes(minutes));
        }
    }
}
