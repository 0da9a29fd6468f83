//! A wrong wall clock for one process, which can be set while it runs.

use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

/// The wall clock of one process.
pub(super) struct Skew {
    folder: TempDir,
}

impl Skew {
    /// One that is off by so many seconds.
    pub(super) fn of(seconds: i64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/fleet/skew.c");
        let made = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-o"])
            .arg(folder.path().join("skew.so"))
            .arg(source)
            .status()
            .unwrap();
        assert!(made.success());
        let skew = Self { folder };
        skew.set(seconds);
        skew
    }

    /// Lets it jump.
    pub(super) fn set(&self, seconds: i64) {
        // Whole or not at all, for whoever reads at this moment.
        let (new, file) = (self.path("new"), self.path("seconds"));
        std::fs::write(&new, seconds.to_string()).unwrap();
        std::fs::rename(new, file).unwrap();
    }

    /// What gives it to a process.
    pub(super) fn variables(&self) -> [(&'static str, String); 2] {
        let text = |name: &str| self.path(name).to_str().unwrap().to_owned();
        [
            ("LD_PRELOAD", text("skew.so")),
            ("CLOCK_SKEW", text("seconds")),
        ]
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}
