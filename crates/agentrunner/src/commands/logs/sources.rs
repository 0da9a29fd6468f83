//! Where log lines are read from.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The longest line that is looked at; of a longer one, the beginning.
const LONGEST: u64 = 1 << 20;
const NAME: &str = "agentrunner.log";
const PACKED: [&str; 4] = ["gz", "zst", "xz", "bz2"];

pub(super) enum Source {
    Input,
    File(PathBuf),
}

#[derive(Default)]
pub(super) struct Sources {
    pub(super) sources: Vec<Source>,
    /// Files that are there and can't be read as they are.
    pub(super) packed: Vec<String>,
}

impl Sources {
    pub(super) fn named(files: &[PathBuf]) -> Self {
        let sources = files.iter().map(|file| match file.to_str() {
            Some("-") => Source::Input,
            _ => Source::File(file.clone()),
        });
        Self {
            sources: sources.collect(),
            packed: Vec::new(),
        }
    }

    /// The log and what was moved away beside it.
    ///
    /// # Errors
    /// The folder can't be read, or there is no log in it.
    pub(super) fn of_folder(folder: &Path) -> anyhow::Result<Self> {
        let shown = folder.display();
        let entries = std::fs::read_dir(folder)
            .with_context(|| format!("{shown} (LOG_DIR) can't be read"))?;
        let mut found = Self::default();
        for entry in entries.flatten() {
            let path = entry.path();
            let name = entry.file_name().to_string_lossy().into_owned();
            if !name.starts_with(NAME) || !path.is_file() {
                continue;
            }
            let ending = path.extension().and_then(|ending| ending.to_str());
            if ending.is_some_and(|ending| PACKED.contains(&ending)) {
                found.packed.push(path.display().to_string());
            } else {
                found.sources.push(Source::File(path));
            }
        }
        found.packed.sort();
        found.sources.sort_by_key(Source::name);
        anyhow::ensure!(
            !found.sources.is_empty() || !found.packed.is_empty(),
            "there is no {NAME} in {shown} (LOG_DIR); name the files, or pipe the log in: … | agentrunner logs --trace ID -"
        );
        Ok(found)
    }
}

impl Source {
    pub(super) fn name(&self) -> String {
        match self {
            Self::Input => "standard input".to_owned(),
            Self::File(path) => path.display().to_string(),
        }
    }

    /// # Errors
    /// It can't be read, or what is done with a line fails.
    pub(super) fn each_line(
        &self,
        mut act: impl FnMut(&str) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let failed = || format!("{} can't be read", self.name());
        let mut input: Box<dyn BufRead> = match self {
            Self::Input => Box::new(std::io::stdin().lock()),
            Self::File(path) => Box::new(BufReader::new(File::open(path).with_context(failed)?)),
        };
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let mut bounded = (&mut input).take(LONGEST);
            if bounded.read_until(b'\n', &mut bytes).with_context(failed)? == 0 {
                return Ok(());
            }
            let text = String::from_utf8_lossy(&bytes);
            let text = text.trim_end();
            if !text.is_empty() {
                act(text)?;
            }
        }
    }
}
