//! Which backups are kept: their names say when they were made.

use std::fs;
use std::path::{Path, PathBuf};

use domain::{Time, TimeDelta};

/// What their names begin with.
pub(super) const BEFORE: &str = "agentrunner-";
const AFTER: &str = ".tar.zst";
const UNFINISHED: &str = ".part";
const MOMENT: &str = "%Y%m%dT%H%M%SZ";

/// Which older ones are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Keep {
    /// All.
    All,
    /// The newest so many.
    Newest(usize),
    /// Those that are not older than so many days.
    Days(u32),
}

/// What a backup of that moment is called.
pub(super) fn file_name(taken_at: Time) -> String {
    format!("{BEFORE}{}{AFTER}", taken_at.format(MOMENT))
}

/// What it is called while it is written.
pub(super) fn unfinished_name(name: &str) -> String {
    format!(".{name}{UNFINISHED}")
}

/// Whether a name is that of a backup that is being written, or that nobody finished.
pub(super) fn is_unfinished(name: &str) -> bool {
    let name = name
        .strip_prefix('.')
        .and_then(|name| name.strip_suffix(UNFINISHED));
    name.is_some_and(|name| moment(name).is_some())
}

/// Of which moment a backup of that name is; none when it is not ours.
fn moment(name: &str) -> Option<Time> {
    let moment = name.strip_prefix(BEFORE)?.strip_suffix(AFTER)?;
    let moment = chrono::NaiveDateTime::parse_from_str(moment, MOMENT).ok()?;
    Some(moment.and_utc())
}

/// The newest of these.
pub(super) fn newest(names: impl IntoIterator<Item = String>) -> Option<String> {
    names
        .into_iter()
        .filter(|name| moment(name).is_some())
        .max()
}

/// Those that go. The newest stays, however old it is.
pub(super) fn old(names: impl IntoIterator<Item = String>, keep: Keep, now: Time) -> Vec<String> {
    let mut dated: Vec<(Time, String)> = names
        .into_iter()
        .filter_map(|name| Some((moment(&name)?, name)))
        .collect();
    dated.sort_unstable_by(|a, b| b.cmp(a));
    let goes = |place: usize, made: Time| match keep {
        Keep::All => false,
        Keep::Newest(most) => place >= most.max(1),
        Keep::Days(days) => place > 0 && now - made > TimeDelta::days(days.into()),
    };
    let dated = dated.into_iter().enumerate();
    dated
        .filter(|(place, (made, _))| goes(*place, *made))
        .map(|(_, (_, name))| name)
        .collect()
}

/// Deletes the backups of a folder that are not kept; answers their paths.
///
/// # Errors
/// The folder can't be read, or one can't be deleted.
pub(crate) fn forget_old(folder: &Path, keep: Keep, now: Time) -> std::io::Result<Vec<PathBuf>> {
    if keep == Keep::All {
        return Ok(Vec::new());
    }
    let files = fs::read_dir(folder)?.flatten();
    let names = files.filter_map(|file| file.file_name().into_string().ok());
    let mut gone = Vec::new();
    for name in old(names, keep, now) {
        let path = folder.join(name);
        fs::remove_file(&path)?;
        gone.push(path);
    }
    Ok(gone)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn day(day: u32) -> Time {
        format!("2026-11-{day:02}T02:00:00Z").parse().unwrap()
    }

    fn gone(days: &[u32], keep: Keep) -> Vec<String> {
        let ours = days.iter().map(|n| file_name(day(*n)));
        let others = ["agentrunner-notes.tar.zst", "photos.tar.zst"].map(str::to_owned);
        old(ours.chain(others), keep, day(30))
    }

    #[test]
    fn the_newest_or_the_youngest_are_kept_and_never_none() {
        let days = [3, 30, 28, 29];
        assert_eq!(gone(&days, Keep::All), [""; 0]);
        assert_eq!(gone(&days, Keep::Newest(3)), [file_name(day(3))]);
        assert_eq!(gone(&days, Keep::Newest(0)).len(), 3);
        assert_eq!(
            gone(&days, Keep::Days(1)),
            [file_name(day(28)), file_name(day(3))]
        );
        assert_eq!(gone(&[3], Keep::Days(1)), [""; 0], "it is the only one");
    }
}
