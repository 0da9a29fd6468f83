//! What is known of each file: its text, what it says, and what was logged of it.

use std::collections::BTreeMap;
use std::path::Path;

use domain::definition::Severity;
use sha2::{Digest, Sha256};

use super::diagnostic::{Diagnostic, render};
use super::discover::Found;
use super::document::{Flaw, Mark};
use super::parse::{Lookup, Parsed, decode, parse};
use super::plan::Report;

/// What is known of a file.
#[derive(Clone)]
pub(super) struct File {
    hash: [u8; 32],
    pub(super) text: String,
    pub(super) outcome: Result<Parsed, Vec<Diagnostic>>,
    /// What was last logged of it.
    logged: String,
}

pub(super) fn read_file(
    found: Found,
    known: &BTreeMap<String, File>,
    lookup: &Lookup,
) -> (String, File) {
    let path = found.path;
    let bytes = match found.content {
        Ok(bytes) => bytes,
        Err(message) => {
            let flaw = Flaw::new(Mark::START, "", message, "check its permissions");
            let outcome = Err(vec![Diagnostic::new(&path, "", flaw, Severity::Error)]);
            return (path, File::new([0; 32], String::new(), outcome));
        }
    };
    let hash: [u8; 32] = Sha256::digest(&bytes).into();
    if let Some(file) = known.get(&path).filter(|file| file.hash == hash) {
        return (path, file.clone());
    }
    let (text, outcome) = match decode(&bytes, &path) {
        Ok(text) => (text.to_owned(), parse(text, &path, lookup)),
        Err(diagnostic) => (String::new(), Err(vec![*diagnostic])),
    };
    (path, File::new(hash, text, outcome))
}

impl File {
    fn new(hash: [u8; 32], text: String, outcome: Result<Parsed, Vec<Diagnostic>>) -> Self {
        Self {
            hash,
            text,
            outcome,
            logged: String::new(),
        }
    }
}

/// Logs what is wrong with each file, once as long as it stays the same.
pub(super) fn log_news(
    folder: &Path,
    known: &BTreeMap<String, File>,
    mut files: BTreeMap<String, File>,
    report: &Report,
) -> BTreeMap<String, File> {
    for (path, file) in &mut files {
        let about = |list: &[Diagnostic]| {
            let own = list.iter().filter(|diagnostic| &diagnostic.file == path);
            // As an editor finds it.
            let file = folder.join(path).display().to_string();
            let own = own.cloned().map(|diagnostic| Diagnostic {
                file: file.clone(),
                ..diagnostic
            });
            render(&own.collect::<Vec<_>>())
        };
        let (errors, warnings) = (about(&report.errors), about(&report.warnings));
        let text = format!("{errors}\n{warnings}");
        if known.get(path).is_none_or(|before| before.logged != text) {
            if !errors.is_empty() {
                tracing::error!(
                    "{path} can't be used; the last good version stays, if there is one\n{errors}"
                );
            }
            if !warnings.is_empty() {
                tracing::warn!("{warnings}");
            }
        }
        file.logged = text;
    }
    files
}
