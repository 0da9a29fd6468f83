//! The file of the log. Whoever keeps logs moves it away and expects a new one in its place, as logrotate does.

use std::fs::{File, OpenOptions};
use std::io::{Result, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How often it is looked whether the file is still where it was.
const PERIOD: Duration = Duration::from_secs(1);

/// A file that is appended to, and opened anew when it was moved away or deleted.
pub(super) struct LogFile {
    path: PathBuf,
    file: File,
    looked: Instant,
    period: Duration,
}

impl LogFile {
    /// `agentrunner.log` in this folder, which is made when it is missing.
    ///
    /// # Errors
    /// It can't be written.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        std::fs::create_dir_all(dir)?;
        let path = dir.join("agentrunner.log");
        Ok(Self {
            file: append(&path)?,
            path,
            looked: Instant::now(),
            period: PERIOD,
        })
    }

    fn look(&mut self) {
        if self.looked.elapsed() < self.period {
            return;
        }
        self.looked = Instant::now();
        let is_there = match (std::fs::metadata(&self.path), self.file.metadata()) {
            (Ok(there), Ok(ours)) => (there.dev(), there.ino()) == (ours.dev(), ours.ino()),
            _ => false,
        };
        // One that can't be had leaves the lines in the old file, which is better than nowhere.
        if !is_there && let Ok(file) = append(&self.path) {
            self.file = file;
        }
    }
}

fn append(path: &Path) -> Result<File> {
    OpenOptions::new().create(true).append(true).open(path)
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> Result<usize> {
        self.look();
        self.file.write(line)
    }

    fn flush(&mut self) -> Result<()> {
        self.file.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_go_to_a_new_file_when_the_old_one_was_moved_away() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agentrunner.log");
        let read = |path: &Path| std::fs::read_to_string(path).unwrap();
        let mut log = LogFile::open(folder.path()).unwrap();
        log.period = Duration::ZERO;
        log.write_all(b"one\n").unwrap();
        log.write_all(b"two\n").unwrap();
        let old = folder.path().join("agentrunner.log.1");
        std::fs::rename(&path, &old).unwrap();
        log.write_all(b"three\n").unwrap();
        assert_eq!(
            (read(&old), read(&path)),
            ("one\ntwo\n".into(), "three\n".into())
        );
        // Somebody else has put one there already (`create`).
        std::fs::rename(&path, &old).unwrap();
        std::fs::write(&path, "theirs\n").unwrap();
        log.write_all(b"four\n").unwrap();
        assert_eq!(read(&path), "theirs\nfour\n");
        // There is no place for a new one.
        std::fs::rename(&path, &old).unwrap();
        std::fs::create_dir(&path).unwrap();
        log.write_all(b"five\n").unwrap();
        assert_eq!(read(&old), "theirs\nfour\nfive\n");
    }
}
