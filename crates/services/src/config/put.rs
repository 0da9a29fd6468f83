//! Takes the text of an agent's file from the API into the folder of agents: checked first, written whole or not at all,
//! and nowhere else.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::path::{Component, Path, PathBuf};

use domain::definition::Severity;
use domain::{AgentName, ConfigVersion};
use engine::Agent;
use uuid::Uuid;

use super::commands;
use super::diagnostic::Diagnostic;
use super::document::{Flaw, Mark};
use super::parse::{Parsed, name_in};
use super::reload::{ConfigService, ReloadError};

/// What is to become of a file that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Present {
    /// It stays, and its name is taken.
    Keep,
    /// It is replaced: if it has this version, or whatever it has when `None`.
    Replace(Option<ConfigVersion>),
}

/// What came of it.
#[derive(Debug, Clone)]
pub struct Put {
    /// The agent as it is now.
    pub agent: Agent,
    /// The version before; `None` when there was none.
    pub before: Option<ConfigVersion>,
    /// What its author should know.
    pub warnings: Vec<Diagnostic>,
}

/// Why a text was not taken; nothing was changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PutError {
    /// It can't be used.
    #[error("the configuration can't be used")]
    Invalid(Vec<Diagnostic>),
    /// The name is taken.
    #[error("there is an agent {name} already, in {path}")]
    Taken {
        /// By which.
        name: AgentName,
        /// Its file.
        path: String,
        /// Its version, when it is in use.
        version: Option<ConfigVersion>,
    },
    /// It is another version than the caller has seen.
    #[error("the version of {name} is {present}, and not the one that was to be replaced")]
    Moved {
        /// Which.
        name: AgentName,
        /// What there is.
        present: ConfigVersion,
    },
    /// There is no such agent to replace.
    #[error("there is no agent {0}")]
    Absent(AgentName),
    /// The folder takes no files from here: a mount for reading, rights, or a link.
    #[error(
        "the folder of agents can't be written from here ({0}); change the file where it comes from"
    )]
    ReadOnly(String),
    /// It can't be written.
    #[error("the file can't be written: {0}")]
    Io(#[source] io::Error),
    /// It was written, and can't be taken into use.
    #[error(transparent)]
    Reload(#[from] ReloadError),
}

impl ConfigService {
    /// Writes an agent's file and takes it into use. When this answers, it is on disk, and new executions in this process
    /// begin with it.
    ///
    /// # Errors
    /// Why not; nothing was changed then, but for [`PutError::Reload`].
    pub async fn put(&self, text: &str, present: Present) -> Result<Put, PutError> {
        let parsed = self.validate(text, "body").map_err(PutError::Invalid)?;
        let name = parsed.definition.name.clone();
        let _turn = self.writing().lock().await;
        let agent = self.agent(&name);
        self.check_commands(text, &parsed, agent.as_ref())?;
        let (path, may_replace) = match (&agent, present) {
            (Some(agent), Present::Keep) => return Err(taken(agent)),
            (Some(agent), Present::Replace(seen)) => {
                let present = agent.version.clone();
                if seen.is_some_and(|seen| seen != present) {
                    return Err(PutError::Moved { name, present });
                }
                (agent.path.clone(), true)
            }
            (None, Present::Replace(Some(_))) => return Err(PutError::Absent(name)),
            (None, _) => (self.free_path(&name).await?, false),
        };
        let old = self.write(&path, text, may_replace).await?;
        self.reload().await?;
        let version = parsed.definition.content_hash();
        match self.agent(&name).filter(|agent| agent.version == version) {
            Some(now) => Ok(Put {
                agent: now,
                before: agent.map(|agent| agent.version),
                warnings: parsed.warnings,
            }),
            None => self.take_back(&path, old).await,
        }
    }

    /// Makes an earlier version of an agent the present one again: writes its text into the agent's file.
    ///
    /// # Errors
    /// As for [`ConfigService::put`].
    pub async fn roll_back(&self, name: &AgentName, source: &str) -> Result<Put, PutError> {
        let present = self.agent(name).map(|agent| agent.version);
        let present = present.ok_or_else(|| PutError::Absent(name.clone()))?;
        self.put(source, Present::Replace(Some(present))).await
    }

    fn agent(&self, name: &AgentName) -> Option<Agent> {
        self.engine().agents().get(name)
    }

    /// Refuses programs that the agent's file does not start already.
    fn check_commands(
        &self,
        text: &str,
        parsed: &Parsed,
        agent: Option<&Agent>,
    ) -> Result<(), PutError> {
        let file = agent.map(|agent| &*agent.definition);
        let Some((path, command)) = commands::added(&parsed.definition, file) else {
            return Ok(());
        };
        let shown: String = command.chars().take(80).collect();
        let message = format!("the program {shown:?} can't be named through the API");
        let hint = "write it into the agent's file on the server, or use a server with a url";
        let flaw = Flaw::new(Mark::START, path, message, hint);
        let diagnostic = Diagnostic::new("body", text, flaw, Severity::Error);
        Err(PutError::Invalid(vec![diagnostic]))
    }

    /// The path of a new agent's file; a name that a broken file gives is taken, too.
    async fn free_path(&self, name: &AgentName) -> Result<String, PutError> {
        let claimed = self.known_texts().await.into_iter();
        let mut claimed = claimed.filter(|(_, text)| name_in(text).as_ref() == Some(name));
        match claimed.next() {
            Some((path, _)) => Err(PutError::Taken {
                name: name.clone(),
                path,
                version: None,
            }),
            None => Ok(format!("{name}.yml")),
        }
    }

    /// Writes the file; answers what was there.
    async fn write(
        &self,
        path: &str,
        text: &str,
        may_replace: bool,
    ) -> Result<Option<Vec<u8>>, PutError> {
        let (root, path, bytes) = (
            self.settings().folder.clone(),
            path.to_owned(),
            text.as_bytes().to_vec(),
        );
        let written = tokio::task::spawn_blocking(move || {
            let place = Place::find(&root, &path)?;
            place.write(&bytes, may_replace)
        });
        let written = written.await.map_err(io::Error::other);
        written.flatten().map_err(|error| match error.kind() {
            ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied => {
                PutError::ReadOnly("it is read-only".to_owned())
            }
            ErrorKind::InvalidInput => PutError::ReadOnly(error.to_string()),
            ErrorKind::AlreadyExists => {
                let message = "a file of that name is there, and gives no agent that can be used";
                PutError::ReadOnly(message.to_owned())
            }
            _ => PutError::Io(error),
        })
    }

    /// Puts back what was there, after the files together did not allow it.
    async fn take_back(&self, path: &str, old: Option<Vec<u8>>) -> Result<Put, PutError> {
        let found = self.report().errors.into_iter();
        let found: Vec<Diagnostic> = found.filter(|found| found.file == path).collect();
        let (root, path) = (self.settings().folder.clone(), path.to_owned());
        let restored = tokio::task::spawn_blocking(move || {
            let place = Place::find(&root, &path)?;
            match old {
                Some(old) => place.write(&old, true).map(drop),
                None => fs::remove_file(&place.target),
            }
        });
        let restored = restored.await.map_err(io::Error::other);
        restored.flatten().map_err(PutError::Io)?;
        self.reload().await?;
        Err(PutError::Invalid(found))
    }
}

fn taken(agent: &Agent) -> PutError {
    PutError::Taken {
        name: agent.definition.name.clone(),
        path: agent.path.clone(),
        version: Some(agent.version.clone()),
    }
}

/// Where a file goes: below the folder of agents, whatever links there are.
struct Place {
    folder: PathBuf,
    target: PathBuf,
}

impl Place {
    /// # Errors
    /// `InvalidInput` for a path that leads elsewhere or to a link.
    fn find(root: &Path, path: &str) -> io::Result<Self> {
        let elsewhere = |what: &str| io::Error::new(ErrorKind::InvalidInput, what);
        let relative = Path::new(path);
        let is_plain = relative
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        let Some(name) = relative.file_name().filter(|_| is_plain) else {
            return Err(elsewhere("the path leads out of the folder"));
        };
        fs::create_dir_all(root)?;
        let root = root.canonicalize()?;
        let folder = root.join(relative.parent().unwrap_or(Path::new("")));
        let folder = folder.canonicalize()?;
        if !folder.starts_with(&root) {
            return Err(elsewhere("the path leads out of the folder"));
        }
        let target = folder.join(name);
        match fs::symlink_metadata(&target) {
            Ok(metadata) if !metadata.is_file() => {
                Err(elsewhere("what is there is a link, or no file"))
            }
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            Ok(_) | Err(_) => Ok(Self { folder, target }),
        }
    }

    /// Writes beside it, flushes, and puts it in its place in one step; answers what was there.
    fn write(&self, bytes: &[u8], may_replace: bool) -> io::Result<Option<Vec<u8>>> {
        let old = if may_replace {
            Some(fs::read(&self.target)?)
        } else {
            None
        };
        // Hidden, so that no reader of the folder takes it for an agent's.
        let beside = self
            .folder
            .join(format!(".{}.tmp", Uuid::new_v4().simple()));
        let put = self.put(&beside, bytes, may_replace);
        if put.is_err() || !may_replace {
            // Else it has the new name already.
            match fs::remove_file(&beside) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    tracing::warn!(%error, "a temporary file is left in the folder of agents");
                }
                Ok(()) | Err(_) => {}
            }
        }
        put?;
        File::open(&self.folder)?.sync_all()?;
        Ok(old)
    }

    fn put(&self, beside: &Path, bytes: &[u8], may_replace: bool) -> io::Result<()> {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .open(beside)?;
        file.write_all(bytes)?;
        if may_replace {
            file.set_permissions(fs::metadata(&self.target)?.permissions())?;
        }
        file.sync_all()?;
        if may_replace {
            return fs::rename(beside, &self.target);
        }
        // Unlike a renaming, this fails when the name was taken in the meantime.
        fs::hard_link(beside, &self.target)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_goes_nowhere_else() {
        let outside = tempfile::tempdir().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        #[cfg(unix)]
        {
            use std::os::unix::fs::symlink;
            fs::write(outside.path().join("x.yml"), "theirs").unwrap();
            symlink(outside.path(), root.join("link")).unwrap();
            symlink(outside.path().join("x.yml"), root.join("x.yml")).unwrap();
        }
        for path in [
            "../x.yml",
            "/etc/x.yml",
            "a/../../x.yml",
            "link/x.yml",
            "x.yml",
            "",
        ] {
            let error = Place::find(root, path).map(drop).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{path}");
        }
        assert_eq!(fs::read(outside.path().join("x.yml")).unwrap(), b"theirs");
    }

    #[test]
    fn it_is_written_whole_and_nothing_is_left_beside_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("agents");
        let place = || Place::find(&root, "a.yml").unwrap();
        assert_eq!(place().write(b"one", false).unwrap(), None);
        let again = place().write(b"two", false).unwrap_err();
        assert_eq!(again.kind(), ErrorKind::AlreadyExists);
        assert_eq!(place().write(b"two", true).unwrap(), Some(b"one".to_vec()));
        assert_eq!(fs::read(root.join("a.yml")).unwrap(), b"two");
        assert_eq!(fs::read_dir(&root).unwrap().count(), 1);
    }
}
