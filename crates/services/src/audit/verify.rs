//! Checking a chain: which line was changed, which are missing, which stand in another place.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use serde::Deserialize;

use super::chain::{End, NOTHING, Seal, head, split};

/// How many flaws are told at most; a file of another key is nothing but flaws.
const MOST: usize = 100;

/// What is wrong with a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flaw {
    /// Of which file.
    pub file: PathBuf,
    /// Which, from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// What came of checking.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// How many lines were looked at.
    pub lines: u64,
    /// The numbers of the first and the last one.
    pub span: Option<(u64, u64)>,
    /// What is wrong, the first hundred.
    pub flaws: Vec<Flaw>,
}

#[derive(Deserialize)]
struct Link {
    seq: u64,
    prev: String,
}

/// The log and those that were rotated away beside it, the oldest first, as far as they are not compressed.
///
/// # Errors
/// The folder can't be read.
pub fn files_of(path: &Path) -> io::Result<Vec<PathBuf>> {
    let name = path
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned();
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let mut files = Vec::new();
    for entry in std::fs::read_dir(folder.unwrap_or(Path::new(".")))? {
        let entry = entry?;
        let other = entry.file_name().to_string_lossy().into_owned();
        let rest = other.strip_prefix(&name);
        let is_rotated = |rest: &str| {
            rest.starts_with(['.', '-'])
                && rest
                    .bytes()
                    .all(|b| b.is_ascii_digit() || b".-_".contains(&b))
        };
        if rest.is_some_and(|rest| rest.is_empty() || is_rotated(rest)) {
            files.push(entry.path());
        }
    }
    Ok(files)
}

/// Checks files of one chain, in the order of their lines' numbers. With the log's own `path`, also that nothing is
/// missing at its end.
///
/// # Errors
/// A file can't be read.
pub fn verify(
    files: &[PathBuf],
    key: Option<&SecretString>,
    path: Option<&Path>,
) -> io::Result<Verdict> {
    let mut sorted = Vec::with_capacity(files.len());
    for file in files {
        sorted.push((first(file)?, file));
    }
    sorted.sort();
    let mut check = Check::new(Seal::new(key), Verdict::default());
    for (_, file) in &sorted {
        check.file(file)?;
    }
    if let (Some(end), Some((_, file))) = (path.and_then(head), sorted.last()) {
        check.end(file, &end);
    }
    Ok(check.verdict)
}

/// The number of the first line that can be read; the last place for a file that has none.
fn first(file: &Path) -> io::Result<u64> {
    for line in BufReader::new(File::open(file)?).lines() {
        if let Ok(link) = serde_json::from_str::<Link>(&line?) {
            return Ok(link.seq);
        }
    }
    Ok(u64::MAX)
}

pub(super) struct Check {
    seal: Seal,
    /// The line before, as the next one should name it.
    expected: Option<End>,
    pub(super) verdict: Verdict,
}

impl Check {
    /// Of a chain whose beginning nobody knows; adds to a verdict.
    pub(super) const fn new(seal: Seal, verdict: Verdict) -> Self {
        Self {
            seal,
            expected: None,
            verdict,
        }
    }

    /// The next line comes after this.
    pub(super) fn expect(&mut self, end: End) {
        self.expected = Some(end);
    }

    fn file(&mut self, file: &Path) -> io::Result<()> {
        let mut reader = BufReader::new(File::open(file)?);
        let mut bytes = Vec::new();
        let mut number = 0;
        loop {
            bytes.clear();
            if reader.read_until(b'\n', &mut bytes)? == 0 {
                return Ok(());
            }
            number += 1;
            self.verdict.lines += 1;
            let text = String::from_utf8_lossy(&bytes);
            self.line(file, number, text.trim_end_matches('\n'));
        }
    }

    pub(super) fn line(&mut self, file: &Path, number: usize, text: &str) {
        let parts = split(text);
        let link = serde_json::from_str::<Link>(text).ok();
        let (Some((open, hash)), Some(link)) = (parts, link) else {
            let message = "it is no line of an audit log: it was changed".to_owned();
            self.flaw(file, number, message);
            // It stands for the one that should be here.
            if let Some(before) = &mut self.expected {
                before.seq += 1;
                before.hash.clear();
            }
            return;
        };
        let seq = link.seq;
        let is_whole = self.seal.of(open) == hash;
        if !is_whole {
            self.flaw(file, number, format!("line {seq} of the log was changed"));
        }
        match &self.expected {
            None if seq == 1 && link.prev != NOTHING => {
                self.flaw(file, number, "it is no first line of a log".to_owned());
            }
            // The beginning is elsewhere.
            None => {}
            Some(before) if seq > before.seq + 1 => {
                let missing = match (before.seq + 1, seq - 1) {
                    (one, last) if one == last => format!("line {one} of the log is missing"),
                    (one, last) => format!("lines {one} to {last} of the log are missing"),
                };
                self.flaw(file, number, format!("{missing} before this one"));
            }
            Some(before) if seq <= before.seq => {
                let message = format!(
                    "line {seq} of the log stands after line {}: it was moved or put in twice",
                    before.seq
                );
                self.flaw(file, number, message);
            }
            // One before that can't be read or was changed is told of already.
            Some(before) if !before.hash.is_empty() && link.prev != before.hash && is_whole => {
                let message = format!(
                    "line {seq} of the log does not follow the line before, which was changed or put in its place"
                );
                self.flaw(file, number, message);
            }
            Some(_) => {}
        }
        let (low, high) = self.verdict.span.unwrap_or((seq, seq));
        self.verdict.span = Some((low.min(seq), high.max(seq)));
        // What was moved here is not where the next one goes on.
        if self.expected.as_ref().is_none_or(|before| seq > before.seq) {
            let hash = hash.to_owned();
            self.expected = Some(End { seq, hash });
        }
    }

    /// Compares with what was written down of the end.
    pub(super) fn end(&mut self, file: &Path, end: &End) {
        let Some(last) = self.expected.clone() else {
            return;
        };
        let number = usize::try_from(self.verdict.lines).unwrap_or(usize::MAX);
        if end.seq > last.seq {
            let message = format!(
                "lines {} to {} of the log are missing at its end",
                last.seq + 1,
                end.seq
            );
            self.flaw(file, number, message);
        } else if end.seq == last.seq && end.hash != last.hash {
            self.flaw(
                file,
                number,
                format!("line {} is not the one that was written", end.seq),
            );
        }
    }

    pub(super) fn flaw(&mut self, file: &Path, line: usize, message: String) {
        if self.verdict.flaws.len() < MOST {
            self.verdict.flaws.push(Flaw {
                file: file.to_owned(),
                line,
                message,
            });
        }
    }
}
