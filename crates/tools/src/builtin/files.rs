//! What the file tools share: the folder that they cannot leave, and reading with bounds.
//!
//! A path is made canonical, so that no `..` and no link is left in it, and must then lie in the canonical root. A
//! file is looked at again once it is open: had someone put a link into its way meanwhile, it would not be the one.

use std::fs::{self, File, Metadata};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::time::Instant;

use globset::{GlobBuilder, GlobMatcher};

use super::{Answer, Failure};
use crate::Call;

/// How many entries are looked at before a walk gives up.
const MAX_WALK: usize = 200_000;
/// How deep a walk goes.
const MAX_DEPTH: usize = 64;

/// A folder that is not left. Its methods block.
pub(super) struct Jail {
    root: PathBuf,
}

/// A regular file, open.
pub(super) struct Opened {
    pub(super) reader: BufReader<File>,
    pub(super) size: u64,
}

/// An entry that a walk found.
pub(super) struct Found {
    /// Where, relative to the root.
    pub(super) path: String,
    pub(super) metadata: Metadata,
}

/// Does blocking work for a call, with the root as its jail and the instant at which the work must end.
pub(super) async fn in_jail<F>(root: PathBuf, call: &Call<'_>, work: F) -> Result<Answer, Failure>
where
    F: FnOnce(Jail, Instant) -> Result<Answer, Failure> + Send + 'static,
{
    let until = Instant::now() + call.timeout;
    let work = tokio::task::spawn_blocking(move || work(Jail::at(&root)?, until));
    match tokio::time::timeout(call.timeout, work).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(Failure::failed("reading the files failed")),
        Err(_) => Err(Failure::failed("reading the files took too long")),
    }
}

impl Jail {
    fn at(root: &Path) -> Result<Self, Failure> {
        let root = root.canonicalize().map_err(|error| {
            Failure::failed(format!(
                "the root of this tool can't be opened: {}",
                words(&error)
            ))
        })?;
        Ok(Self { root })
    }

    /// The canonical path of something below the root.
    pub(super) fn resolve(&self, path: &str) -> Result<PathBuf, Failure> {
        let path = if path.is_empty() { "." } else { path };
        let real = self
            .root
            .join(path)
            .canonicalize()
            .map_err(|error| Failure::failed(format!("{path:?}: {}", words(&error))))?;
        if real.starts_with(&self.root) {
            Ok(real)
        } else {
            Err(outside(path))
        }
    }

    /// Opens a regular file below the root.
    pub(super) fn open(&self, path: &str) -> Result<Opened, Failure> {
        let real = self.resolve(path)?;
        let failed = |error: io::Error| Failure::failed(format!("{path:?}: {}", words(&error)));
        let metadata = fs::metadata(&real).map_err(failed)?;
        // Before opening: a pipe would block until someone writes to it.
        if metadata.is_dir() {
            return Err(Failure::failed(format!(
                "{path:?} is a folder; list_files shows it"
            )));
        }
        if !metadata.is_file() {
            return Err(Failure::failed(format!("{path:?} is not a regular file")));
        }
        let file = File::open(&real).map_err(failed)?;
        let opened = file.metadata().map_err(failed)?;
        let now = self.resolve(path)?;
        let there = fs::metadata(&now).map_err(failed)?;
        if !same_file(&opened, &there) {
            return Err(outside(path));
        }
        Ok(Opened {
            reader: BufReader::with_capacity(64 << 10, file),
            size: opened.len(),
        })
    }

    /// A path as the model knows it: relative to the root.
    pub(super) fn shown(&self, path: &Path) -> String {
        let relative = path.strip_prefix(&self.root).unwrap_or(path);
        match relative.to_string_lossy().into_owned() {
            empty if empty.is_empty() => ".".to_owned(),
            shown => shown,
        }
    }

    /// Visits what is below a folder, sorted, links not followed, until `visit` says that it is enough. Tells whether
    /// all was seen.
    pub(super) fn walk(
        &self,
        from: &Path,
        depth: usize,
        until: Instant,
        visit: &mut dyn FnMut(Found) -> bool,
    ) -> bool {
        let mut left = MAX_WALK;
        self.walk_folder(from, depth.min(MAX_DEPTH), until, &mut left, visit)
    }

    fn walk_folder(
        &self,
        folder: &Path,
        depth: usize,
        until: Instant,
        left: &mut usize,
        visit: &mut dyn FnMut(Found) -> bool,
    ) -> bool {
        // A folder that can't be read is like an empty one: the others are still worth seeing.
        let Ok(entries) = fs::read_dir(folder) else {
            return true;
        };
        let mut paths: Vec<PathBuf> = entries
            .take(*left)
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        paths.sort();
        for path in paths {
            if *left == 0 || Instant::now() >= until {
                return false;
            }
            *left -= 1;
            let Ok(metadata) = fs::symlink_metadata(&path) else {
                continue;
            };
            let is_dir = metadata.is_dir();
            let found = Found {
                path: self.shown(&path),
                metadata,
            };
            if !visit(found) {
                return false;
            }
            let goes_on = is_dir && depth > 1 && !path.ends_with(".git");
            if goes_on && !self.walk_folder(&path, depth - 1, until, left, visit) {
                return false;
            }
        }
        true
    }
}

/// A glob for paths. Without a `/` it means the file's name, wherever the file is.
pub(super) fn glob(pattern: &str) -> Result<GlobMatcher, Failure> {
    let whole = if pattern.contains('/') {
        pattern.to_owned()
    } else {
        format!("**/{pattern}")
    };
    GlobBuilder::new(&whole)
        .literal_separator(true)
        .build()
        .map(|glob| glob.compile_matcher())
        .map_err(|error| Failure::refused(format!("pattern: {error}")))
}

/// Whether the next bytes of a file look like no text.
pub(super) fn is_binary(reader: &mut BufReader<File>) -> io::Result<bool> {
    let front = reader.fill_buf()?;
    Ok(front.iter().take(8192).any(|&byte| byte == 0))
}

/// Reads a line without its end; of a longer one only the first `max` bytes. `None` at the end of the file.
pub(super) fn next_line(reader: &mut BufReader<File>, max: usize) -> io::Result<Option<Vec<u8>>> {
    let mut line = Vec::new();
    let mut any = false;
    loop {
        let chunk = reader.fill_buf()?;
        if chunk.is_empty() {
            return Ok(any.then_some(line));
        }
        any = true;
        let end = chunk.iter().position(|&byte| byte == b'\n');
        let part = chunk.get(..end.unwrap_or(chunk.len())).unwrap_or_default();
        let room = max.saturating_sub(line.len()).min(part.len());
        line.extend_from_slice(part.get(..room).unwrap_or_default());
        let consumed = end.map_or(chunk.len(), |end| end + 1);
        reader.consume(consumed);
        if end.is_some() {
            if line.last() == Some(&b'\r') {
                line.pop();
            }
            return Ok(Some(line));
        }
    }
}

/// An error of the file system in words that tell nothing of the machine.
fn words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "there is no such file or folder".to_owned(),
        io::ErrorKind::PermissionDenied => "it may not be read".to_owned(),
        kind => kind.to_string(),
    }
}

fn outside(path: &str) -> Failure {
    Failure::refused(format!(
        "{path:?} leads out of the folder that this tool may read"
    ))
}

#[cfg(unix)]
fn same_file(a: &Metadata, b: &Metadata) -> bool {
    use std::os::unix::fs::MetadataExt;
    (a.dev(), a.ino()) == (b.dev(), b.ino())
}

#[cfg(not(unix))]
fn same_file(a: &Metadata, b: &Metadata) -> bool {
    (a.len(), a.modified().ok()) == (b.len(), b.modified().ok())
}
