//! Finds and reads scripts: below one folder, never outside of it, and read again when the file changes.

use std::collections::HashMap;
use std::fs;
use std::io::Read;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use super::script::{Rule, Script};
use crate::Error;
use crate::error::quote;

/// The largest script, in bytes.
const LARGEST: u64 = 4 << 20;
/// How many scripts are kept in memory.
const MOST_KEPT: usize = 256;

/// The scripts below a folder.
#[derive(Debug)]
pub(super) struct Scripts {
    root: PathBuf,
    kept: Mutex<HashMap<String, Kept>>,
}

#[derive(Debug, Clone)]
struct Kept {
    path: PathBuf,
    stamp: Stamp,
    script: Arc<Script>,
}

/// What changes when a file does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
}

impl Scripts {
    pub(super) fn new(root: PathBuf) -> Self {
        Self {
            root,
            kept: Mutex::default(),
        }
    }

    /// The script of this name.
    ///
    /// # Errors
    /// Invalid request: it is not there, not allowed, or wrong, with file, line and column.
    pub(super) async fn get(&self, name: &str) -> Result<Arc<Script>, Error> {
        let kept = self.lock().get(name).cloned();
        // One look at the file's stamp takes microseconds; a detour over a thread pool would take longer.
        if let Some(kept) = kept
            && stamp(&kept.path).is_ok_and(|stamp| stamp == kept.stamp)
        {
            return Ok(kept.script);
        }
        let (root, wanted) = (self.root.clone(), name.to_owned());
        let read = tokio::task::spawn_blocking(move || read(&root, &wanted)).await;
        let kept = read
            .map_err(|error| Error::unavailable("the script could not be read").because(error))??;
        let script = kept.script.clone();
        let mut all = self.lock();
        if all.len() >= MOST_KEPT {
            all.clear();
        }
        all.insert(name.to_owned(), kept);
        Ok(script)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Kept>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(root: &Path, name: &str) -> Result<Kept, Error> {
    let path = find(root, name)?;
    let missing = |error: std::io::Error| {
        Error::invalid(format!("the script {} can't be read", quote(name))).because(error)
    };
    let stamp = stamp(&path).map_err(missing)?;
    if stamp.length > LARGEST {
        return Err(Error::invalid(format!(
            "the script {} has {} bytes; at most {LARGEST} are allowed",
            quote(name),
            stamp.length
        )));
    }
    let mut text = String::new();
    let file = fs::File::open(&path).map_err(missing)?;
    file.take(LARGEST)
        .read_to_string(&mut text)
        .map_err(missing)?;
    let script = if name.ends_with(".jsonl") {
        jsonl(name, &text)?
    } else {
        yaml(name, &text)?
    };
    if script.rules.is_empty() {
        return Err(Error::invalid(format!(
            "the script {} has no rules: write a list, each entry with a reply, tool_calls or an error",
            quote(name)
        )));
    }
    Ok(Kept {
        path,
        stamp,
        script: Arc::new(script),
    })
}

/// The file that a name means. Neither the name nor a link may lead out of the folder.
fn find(root: &Path, name: &str) -> Result<PathBuf, Error> {
    let wrong = |reason: &str| {
        Error::invalid(format!(
            "the script {} of llm_config.model {reason}",
            quote(name)
        ))
    };
    let is_plain = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if name.is_empty() || !Path::new(name).components().all(is_plain) {
        return Err(wrong(
            "must be a path below the scripts' folder, without `..`",
        ));
    }
    if ![".yaml", ".yml", ".jsonl"]
        .iter()
        .any(|end| name.ends_with(end))
    {
        return Err(wrong(
            "must end with .yaml, .yml or .jsonl: with provider scripted, the model is a script below CONFIG_DIR, \
             such as scripts/NAME.yml",
        ));
    }
    let shown = root.display();
    let root = root.canonicalize().map_err(|error| {
        wrong(&format!("can't be found: there is no folder {shown}")).because(error)
    })?;
    let path = root
        .join(name)
        .canonicalize()
        .map_err(|error| missing(name, &shown.to_string()).because(error))?;
    if !path.starts_with(&root) {
        return Err(wrong("is a link that leads out of the scripts' folder"));
    }
    if !path.is_file() {
        return Err(wrong("is not a file"));
    }
    Ok(path)
}

/// Nobody has written it. Which of the two ways led here is not known: an agent's own file, or a setting for all agents.
fn missing(name: &str, folder: &str) -> Error {
    Error::invalid(format!(
        "there is no script {} in {folder}: write it, a list such as `- reply: Hello.` (docs/models.md); or write \
         another into the agent's file, llm_config: {{ provider: scripted, model: scripts/NAME.yml }}; or, where \
         AGENTRUNNER_PROVIDER=scripted is set, unset it, and agents ask the models of their files",
        quote(name)
    ))
}

fn stamp(path: &Path) -> std::io::Result<Stamp> {
    let metadata = fs::metadata(path)?;
    Ok(Stamp {
        modified: metadata.modified().ok(),
        length: metadata.len(),
    })
}

fn yaml(name: &str, text: &str) -> Result<Script, Error> {
    serde_saphyr::from_str(text).map_err(|error| {
        let plain = error.without_snippet();
        let (line, column) = plain
            .location()
            .map_or((1, 1), |location| (location.line(), location.column()));
        Error::invalid(format!("{name}:{line}:{column}: {plain}"))
    })
}

fn jsonl(name: &str, text: &str) -> Result<Script, Error> {
    let lines = text.lines().enumerate();
    let rules = lines
        .filter(|(_, line)| !line.trim().is_empty())
        .map(|(at, line)| {
            serde_json::from_str::<Rule>(line).map_err(|error| {
                // serde_json counts lines within the text it is given, which is one line.
                let reason = error.to_string();
                let reason = reason.split(" at line ").next().unwrap_or_default();
                let column = error.column();
                Error::invalid(format!("{name}:{}:{column}: {reason}", at + 1))
            })
        })
        .collect::<Result<_, _>>()?;
    Ok(Script { rules })
}
