//! The files of the folder of agents: which are taken along, and what becomes of them on the way back.

use std::fs;
use std::io::{self, Write as _};
use std::path::{Component, Path, PathBuf};

use services::config::discover;

/// How long a path may be; what a plain header of tar holds.
const LONGEST: usize = 200;

/// The files below a folder of agents: YAML only, so neither keys nor certificates; links that lead out of it are not
/// followed.
pub(crate) fn below(folder: &Path) -> io::Result<Vec<(String, Vec<u8>)>> {
    let found = match discover(folder) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut files = Vec::new();
    for file in found {
        match file.content {
            Ok(content) if check(&file.path).is_ok() => files.push((file.path, content)),
            Ok(_) => tracing::warn!(path = file.path, "not in the backup: its path is too long"),
            Err(error) => tracing::warn!(path = file.path, "not in the backup: {error}"),
        }
    }
    Ok(files)
}

/// Refuses a path that could lead out of the folder, or that [`below`] would not have taken.
pub(crate) fn check(path: &str) -> Result<(), &'static str> {
    if path.is_empty() || path.len() > LONGEST {
        return Err("its path is empty or too long");
    }
    if path.contains(['\\', '\0', ':']) || path.chars().any(char::is_control) {
        return Err("its path has characters that no path of ours has");
    }
    let is_plain = |part: Component<'_>| match part {
        Component::Normal(name) => !name.to_string_lossy().starts_with('.'),
        Component::Prefix(_) | Component::RootDir | Component::CurDir | Component::ParentDir => {
            false
        }
    };
    if path.starts_with('/') || path.split('/').any(str::is_empty) {
        return Err("its path is not relative");
    }
    // The path as it is written, too: components are without `.`.
    if !Path::new(path).components().all(is_plain) || path.split('/').any(|part| part == ".") {
        return Err("its path could lead out of the folder");
    }
    let extension = Path::new(path).extension().and_then(|e| e.to_str());
    match extension {
        Some("yml" | "yaml") => Ok(()),
        _ => Err("it is not a YAML file"),
    }
}

/// What becomes of a file of a backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    /// It is not there and is written.
    Missing,
    /// It is there as it was.
    Same,
    /// Another one is there, and stays.
    Differs,
}

/// The files of a backup, compared with a folder.
pub(crate) struct Files {
    folder: PathBuf,
    missing: Vec<(String, Vec<u8>)>,
    held: usize,
    pub(crate) same: usize,
    pub(crate) differing: Vec<String>,
}

/// How much is held in memory at most, in bytes.
const HELD: usize = 64 << 20;

impl Files {
    pub(crate) fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            missing: Vec::new(),
            held: 0,
            same: 0,
            differing: Vec::new(),
        }
    }

    /// Looks at a file of a backup.
    ///
    /// # Errors
    /// There are more of them than anybody has.
    pub(crate) fn add(&mut self, path: &str, content: &[u8]) -> anyhow::Result<Fate> {
        match fs::read(self.folder.join(path)) {
            Ok(here) if here == content => {
                self.same += 1;
                Ok(Fate::Same)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                self.held += content.len();
                anyhow::ensure!(
                    self.held <= HELD,
                    "the files of agents are too large together"
                );
                self.missing.push((path.to_owned(), content.to_vec()));
                Ok(Fate::Missing)
            }
            Ok(_) | Err(_) => {
                self.differing.push(path.to_owned());
                Ok(Fate::Differs)
            }
        }
    }

    /// How many are missing.
    pub(crate) fn missing(&self) -> usize {
        self.missing.len()
    }

    /// Writes those that are missing.
    ///
    /// # Errors
    /// One can't be written, or a link leads its folder elsewhere.
    pub(crate) fn write(&self) -> io::Result<()> {
        if self.missing.is_empty() {
            return Ok(());
        }
        fs::create_dir_all(&self.folder)?;
        let root = self.folder.canonicalize()?;
        for (path, content) in &self.missing {
            let target = root.join(path);
            let folder = target.parent().unwrap_or(&root);
            fs::create_dir_all(folder)?;
            if !folder.canonicalize()?.starts_with(&root) {
                let message = format!("{path}: a link leads out of {}", root.display());
                return Err(io::Error::other(message));
            }
            // A link that leads nowhere is no missing file.
            let mut file = fs::OpenOptions::new()
                .write(true)
                .create_new(true)
                .open(&target)?;
            file.write_all(content)?;
            file.sync_all()?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_paths_below_the_folder_are_taken() {
        for good in [
            "agents/a.yml",
            "alerts.yml",
            "a/b/c/d.yaml",
            "agents/ä ö.yml",
        ] {
            assert_eq!(check(good), Ok(()), "{good}");
        }
        for bad in [
            "",
            "/etc/cron.d/a.yml",
            "../a.yml",
            "agents/../../a.yml",
            "agents/./a.yml",
            "agents//a.yml",
            "a\\..\\b.yml",
            "C:a.yml",
            "a\0.yml",
            "a\n.yml",
            ".hidden/a.yml",
            "agents/.a.yml",
            "key.pem",
            "agents/run.sh",
            &format!("{}.yml", "a".repeat(300)),
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn what_is_missing_is_written_and_what_is_there_stays() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("agents")).unwrap();
        fs::write(dir.path().join("agents/same.yml"), "same").unwrap();
        fs::write(dir.path().join("agents/mine.yml"), "mine").unwrap();
        let mut files = Files::new(dir.path());
        for (path, content, fate) in [
            ("agents/same.yml", "same", Fate::Same),
            ("agents/mine.yml", "theirs", Fate::Differs),
            ("teams/new.yml", "new", Fate::Missing),
        ] {
            assert_eq!(files.add(path, content.as_bytes()).unwrap(), fate);
        }
        files.write().unwrap();
        let read = |path: &str| fs::read_to_string(dir.path().join(path)).unwrap();
        assert_eq!(read("agents/mine.yml"), "mine");
        assert_eq!(read("teams/new.yml"), "new");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_does_not_lead_out_of_the_folder() {
        let (dir, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::os::unix::fs::symlink(elsewhere.path(), dir.path().join("agents")).unwrap();
        let mut files = Files::new(dir.path());
        files.add("agents/a.yml", b"a").unwrap();
        assert!(files.write().is_err());
        assert_eq!(fs::read_dir(elsewhere.path()).unwrap().count(), 0);
    }
}
