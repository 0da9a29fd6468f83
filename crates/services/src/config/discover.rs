//! Finds the files of agents below a folder.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use super::document::MAX_BYTES;

/// How deep folders may be nested.
const MAX_DEPTH: usize = 16;
/// How many files are taken at most.
const MAX_FILES: usize = 10_000;

/// A file of an agent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Relative to the folder, with `/` between its parts.
    pub path: String,
    /// What it holds, or why it can't be read.
    pub content: Result<Vec<u8>, String>,
}

/// Reads all `*.yml` and `*.yaml` below `root`, sorted by path. Hidden files, editors' backups (`*~`) and symbolic
/// links that lead out of the folder are left out.
///
/// # Errors
/// The folder can't be read. A single file that can't is part of the answer.
pub fn discover(root: &Path) -> io::Result<Vec<Found>> {
    let root = root.canonicalize()?;
    let mut walk = Walk {
        root: root.clone(),
        seen: BTreeSet::new(),
        found: Vec::new(),
    };
    walk.folder(&root, "", 0)?;
    walk.found.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(walk.found)
}

struct Walk {
    root: PathBuf,
    /// Folders that were walked, so that links can't make it go round.
    seen: BTreeSet<PathBuf>,
    found: Vec<Found>,
}

impl Walk {
    fn folder(&mut self, folder: &Path, prefix: &str, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH || !self.seen.insert(folder.to_owned()) {
            return Ok(());
        }
        let mut entries: Vec<_> = fs::read_dir(folder)?.flatten().collect();
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            let Some(name) = entry.file_name().to_str().map(str::to_owned) else {
                continue;
            };
            if name.starts_with('.') || name.ends_with('~') || self.found.len() >= MAX_FILES {
                continue;
            }
            let path = if prefix.is_empty() {
                name.clone()
            } else {
                format!("{prefix}/{name}")
            };
            // Whatever the links on the way: what is opened lies below the root.
            let Ok(real) = entry.path().canonicalize() else {
                continue;
            };
            if !real.starts_with(&self.root) {
                tracing::warn!(path, "left out: the link leads out of the folder of agents");
                continue;
            }
            let Ok(metadata) = real.metadata() else {
                continue;
            };
            if metadata.is_dir() {
                // A folder that can't be read does not hide the others.
                if let Err(error) = self.folder(&real, &path, depth + 1) {
                    tracing::warn!(path, %error, "left out: the folder can't be read");
                }
            } else if metadata.is_file() && is_yaml(&name) {
                let content = read(&real).map_err(|error| format!("it can't be read: {error}"));
                self.found.push(Found { path, content });
            }
        }
        Ok(())
    }
}

fn is_yaml(name: &str) -> bool {
    let extension = Path::new(name).extension().and_then(|e| e.to_str());
    extension.is_some_and(|e| e.eq_ignore_ascii_case("yml") || e.eq_ignore_ascii_case("yaml"))
}

/// Reads a file up to one byte more than is allowed: the reader of the text then says that it is too large.
fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    fs::File::open(path)?
        .take(MAX_BYTES as u64 + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_found_below_the_folder_and_nowhere_else() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret.yml"), "x").unwrap();
        let root = tempfile::tempdir().unwrap();
        let at = |name: &str| root.path().join(name);
        fs::create_dir_all(at("b/deep")).unwrap();
        fs::create_dir_all(at(".hidden")).unwrap();
        for name in [
            "z.yml",
            "b/deep/a.YAML",
            "b/x.yml~",
            ".hidden/h.yml",
            ".x.yml",
            "readme.md",
        ] {
            fs::write(at(name), name).unwrap();
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::symlink;
            symlink(outside.path().join("secret.yml"), at("leak.yml")).unwrap();
            symlink(outside.path(), at("leak")).unwrap();
            symlink(root.path(), at("b/loop")).unwrap();
            symlink(at("z.yml"), at("link.yml")).unwrap();
        }
        let found = discover(root.path()).unwrap();
        let paths: Vec<_> = found.iter().map(|found| found.path.as_str()).collect();
        let links: &[&str] = if cfg!(unix) { &["link.yml"] } else { &[] };
        assert_eq!(paths, [&["b/deep/a.YAML"], links, &["z.yml"]].concat());
        assert!(discover(&at("none")).is_err());
    }
}
