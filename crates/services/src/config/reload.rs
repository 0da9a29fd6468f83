//! Keeps the engine's agents as the files say, and never worse than they were.
//!
//! A reload reads all files, decides for each what it stands for, stores new versions, and only then puts the whole
//! set in the place of the old one. A file that can't be used leaves its last good version at work: the one of this
//! process, or after a restart the one in the store.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex as SyncMutex, OnceLock, PoisonError};
use std::time::Duration;

use domain::definition::Severity;
use domain::event::topics;
use domain::{AgentName, Event, TraceId};
use engine::{Agent, Engine};
use serde_json::json;
use store::ConfigRecord;
use tokio::sync::{Mutex, watch};
use uuid::Uuid;

use super::diagnostic::{Diagnostic, render};
use super::discover::discover;
use super::document::{Flaw, Mark};
use super::files::{File, log_news, read_file};
use super::parse::{Lookup, Parsed, name_in, parse};
use super::plan::{Change, Plan, Report};
use crate::audit::{Act, Audit};

/// How the configuration is read.
#[derive(Clone)]
pub struct Settings {
    /// The folder of agents.
    pub folder: PathBuf,
    /// Answers the variables that files refer to.
    pub lookup: Arc<Lookup>,
    /// How long files must be quiet before they are read.
    pub debounce: Duration,
    /// How often the folder is read without a notification: some file systems send none.
    pub rescan: Duration,
    /// Whether other processes are told of changes. Of all that read the same files, one is enough.
    pub announces: bool,
}

impl Settings {
    /// The customary times for `folder`.
    pub fn new(folder: impl Into<PathBuf>, lookup: Arc<Lookup>) -> Self {
        Self {
            folder: folder.into(),
            lookup,
            debounce: Duration::from_millis(200),
            rescan: Duration::from_secs(30),
            announces: true,
        }
    }
}

/// Why a reload changed nothing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReloadError {
    /// New versions can't be stored.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The folder can't be read. The agents that were loaded stay.
    #[error(
        "the folder of agents {} can't be read: {source}; make it with `agentrunner init` or `mkdir -p`, or set CONFIG_DIR",
        folder.display()
    )]
    Folder {
        /// Which.
        folder: PathBuf,
        /// Why not.
        #[source]
        source: std::io::Error,
    },
}

impl ReloadError {
    fn is_missing(&self) -> bool {
        matches!(self, Self::Folder { source, .. } if source.kind() == ErrorKind::NotFound)
    }
}

/// Keeps the agents current. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct ConfigService {
    inner: Arc<Inner>,
}

struct Inner {
    settings: Settings,
    engine: Engine,
    /// What is known of each file; locked for the length of a reload, so that two never overlap.
    files: Mutex<BTreeMap<String, File>>,
    /// Whoever writes a file has it from its check to its reload.
    writing: Mutex<()>,
    report: SyncMutex<Report>,
    reloads: watch::Sender<u64>,
    /// Whether it was said that the folder is missing.
    is_missing: AtomicBool,
    /// Where changes are written down, from when on they are.
    audit: OnceLock<Audit>,
}

impl ConfigService {
    /// A service that has read nothing yet.
    pub fn new(settings: Settings, engine: Engine) -> Self {
        Self {
            inner: Arc::new(Inner {
                settings,
                engine,
                files: Mutex::default(),
                writing: Mutex::default(),
                report: SyncMutex::default(),
                reloads: watch::Sender::new(0),
                is_missing: AtomicBool::new(false),
                audit: OnceLock::new(),
            }),
        }
    }

    /// From now on, changes are written down there.
    pub fn write_down_in(&self, audit: &Audit) {
        // The first word stands.
        drop(self.inner.audit.set(audit.clone()));
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.inner.settings
    }

    pub(super) fn engine(&self) -> &Engine {
        &self.inner.engine
    }

    pub(super) fn writing(&self) -> &Mutex<()> {
        &self.inner.writing
    }

    /// The files as they were read last: their paths and texts.
    pub(super) async fn known_texts(&self) -> Vec<(String, String)> {
        let files = self.inner.files.lock().await;
        let texts = files
            .iter()
            .map(|(path, file)| (path.clone(), file.text.clone()));
        texts.collect()
    }

    /// What came of the last reload that changed or confirmed the agents.
    pub fn report(&self) -> Report {
        let report = self.inner.report.lock();
        report.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Counts the reloads; changes after each.
    pub fn reloads(&self) -> watch::Receiver<u64> {
        self.inner.reloads.subscribe()
    }

    /// Reads the text of a file without keeping it.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn validate(&self, text: &str, file: &str) -> Result<Parsed, Vec<Diagnostic>> {
        parse(text, file, &*self.inner.settings.lookup)
    }

    /// Reads the folder and puts what it says in place: stored first, current then, told last. A folder that is
    /// missing holds no agents; one that goes away leaves those that were loaded.
    ///
    /// # Errors
    /// The folder can't be read or new versions can't be stored; then nothing was changed.
    pub async fn reload(&self) -> Result<Report, ReloadError> {
        let mut known = self.inner.files.lock().await;
        let files = match self.read(&known).await {
            Err(error) if error.is_missing() && self.inner.engine.agents().all().is_empty() => {
                return Ok(self.without_folder(&error));
            }
            read => read?,
        };
        self.inner.is_missing.store(false, Ordering::Relaxed);
        let mut plan = Plan::new(self.inner.engine.agents().all());
        self.settle_names(&files, &mut plan).await?;
        self.take_good(&files, &mut plan).await?;
        self.keep_last_good(&files, &mut plan).await?;
        let broken = self.broken(&files, &plan);
        let (report, next, changes) = plan.finish(&files);
        self.inner.engine.agents().replace_with(next, broken);
        *known = log_news(&self.inner.settings.folder, &known, files, &report);
        *self
            .inner
            .report
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = report.clone();
        self.announce(changes).await;
        self.inner.reloads.send_modify(|count| *count += 1);
        Ok(report)
    }

    /// A folder that is not there yet is no failure: it is said once, and the agents come when it does.
    fn without_folder(&self, error: &ReloadError) -> Report {
        if !self.inner.is_missing.swap(true, Ordering::Relaxed) {
            tracing::warn!("there are no agents: {error}");
        }
        self.inner.reloads.send_modify(|count| *count += 1);
        Report::default()
    }

    /// All files; those whose content is known are not parsed again.
    async fn read(
        &self,
        known: &BTreeMap<String, File>,
    ) -> Result<BTreeMap<String, File>, ReloadError> {
        let settings = self.inner.settings.clone();
        let known = known.clone();
        let read = tokio::task::spawn_blocking(move || {
            let found = discover(&settings.folder)?;
            Ok(found
                .into_iter()
                .map(|found| read_file(found, &known, &*settings.lookup))
                .collect())
        });
        read.await
            .unwrap_or_else(|panic| Err(std::io::Error::other(panic)))
            .map_err(|source| ReloadError::Folder {
                folder: self.inner.settings.folder.clone(),
                source,
            })
    }

    /// A name that several files give belongs to the one that had it; the others are refused, or all are when none
    /// had it.
    async fn settle_names(
        &self,
        files: &BTreeMap<String, File>,
        plan: &mut Plan,
    ) -> Result<(), ReloadError> {
        let mut by_name: BTreeMap<&AgentName, Vec<(&str, &File, usize)>> = BTreeMap::new();
        for (path, file) in files {
            if let Ok(parsed) = &file.outcome {
                let name = &parsed.definition.name;
                by_name
                    .entry(name)
                    .or_default()
                    .push((path, file, parsed.name_line));
            }
        }
        for (name, claims) in by_name.into_iter().filter(|(_, claims)| claims.len() > 1) {
            let owner = match plan.before.get(name) {
                Some(agent) => Some(agent.path.clone()),
                None => self.stored(name).await?.map(|agent| agent.path),
            };
            let owner = owner.filter(|owner| claims.iter().any(|(path, ..)| path == owner));
            for (path, file, line) in &claims {
                if owner.as_deref() == Some(*path) {
                    continue;
                }
                let others: Vec<String> = claims
                    .iter()
                    .filter(|(other, ..)| other != path)
                    .map(|(other, _, line)| format!("{other}:{line}"))
                    .collect();
                let mark = Mark {
                    line: *line,
                    column: 1,
                };
                let message = format!("the name {name} is taken by {}", others.join(" and "));
                let flaw = Flaw::new(mark, "name", message, "give each agent a name of its own");
                let diagnostic = Diagnostic::new(path, &file.text, flaw, Severity::Error);
                plan.refused.insert((*path).to_owned(), vec![diagnostic]);
            }
        }
        Ok(())
    }

    async fn take_good(
        &self,
        files: &BTreeMap<String, File>,
        plan: &mut Plan,
    ) -> Result<(), ReloadError> {
        for (path, file) in files {
            match &file.outcome {
                Ok(parsed) if !plan.refused.contains_key(path) => {
                    self.take(path, file, parsed, plan).await?;
                }
                Ok(_) => {}
                Err(found) => {
                    plan.refused.insert(path.clone(), found.clone());
                }
            }
        }
        Ok(())
    }

    async fn take(
        &self,
        path: &str,
        file: &File,
        parsed: &Parsed,
        plan: &mut Plan,
    ) -> Result<(), ReloadError> {
        let name = &parsed.definition.name;
        let version = parsed.definition.content_hash();
        if let Some(before) = plan
            .before
            .get(name)
            .filter(|agent| agent.version == version)
        {
            let agent = Agent {
                path: path.to_owned(),
                rejected: None,
                ..before.clone()
            };
            plan.keep(agent);
            return Ok(());
        }
        let store = self.inner.engine.store();
        let versions = store.config_versions(name).await?;
        let same = versions.iter().find(|summary| summary.version == version);
        let loaded_at = same.map_or_else(|| self.inner.engine.now(), |same| same.loaded_at);
        let agent = Agent {
            definition: Arc::new(parsed.definition.clone()),
            version: version.clone(),
            path: path.to_owned(),
            loaded_at,
            rejected: None,
            switched_off: None,
        };
        if same.is_some_and(|same| same.is_current) && !plan.before.contains_key(name) {
            // Known to the store from before, or by another process that was faster: no change, but worth a line here.
            tracing::info!(agent_name = %name, %version, "agent loaded");
            plan.restore(agent);
            return Ok(());
        }
        store
            .put_config(ConfigRecord {
                definition: parsed.definition.clone(),
                version,
                source: file.text.clone(),
                path: path.to_owned(),
                loaded_at,
            })
            .await?;
        plan.change(agent);
        Ok(())
    }

    /// A refused file leaves its last good version at work.
    async fn keep_last_good(
        &self,
        files: &BTreeMap<String, File>,
        plan: &mut Plan,
    ) -> Result<(), ReloadError> {
        let refused = plan.refused.clone();
        for (path, found) in &refused {
            let before = plan
                .before
                .values()
                .find(|agent| &agent.path == path)
                .cloned();
            let last = match before {
                Some(agent) => Some(agent),
                None => self.last_stored(path, files.get(path)).await?,
            };
            if let Some(agent) =
                last.filter(|agent| !plan.next.contains_key(&agent.definition.name))
            {
                let rejected = Some(render(found));
                plan.keep(Agent { rejected, ..agent });
            }
        }
        Ok(())
    }

    /// The agents that refused files were to give and nothing else gives, each with what its author has to mend first.
    fn broken(&self, files: &BTreeMap<String, File>, plan: &Plan) -> BTreeMap<AgentName, String> {
        let folder = &self.inner.settings.folder;
        let refused = plan.refused.iter().filter_map(|(path, found)| {
            let name = name_of(path, files.get(path))?;
            let first = found.first()?;
            let more = match found.len() - 1 {
                0 => String::new(),
                more => format!(" (and {more} more; `agentrunner validate` shows all)"),
            };
            let place = folder.join(path).display().to_string();
            (!plan.next.contains_key(&name)).then(|| (name, first.at(&place) + &more))
        });
        refused.collect()
    }

    /// The version that a file had in an earlier process.
    async fn last_stored(
        &self,
        path: &str,
        file: Option<&File>,
    ) -> Result<Option<Agent>, ReloadError> {
        let Some(name) = name_of(path, file) else {
            return Ok(None);
        };
        let agent = self.stored(&name).await?;
        Ok(agent.filter(|agent| agent.path == path))
    }

    async fn stored(&self, name: &AgentName) -> Result<Option<Agent>, ReloadError> {
        let store = self.inner.engine.store();
        let versions = store.config_versions(name).await?;
        let Some(current) = versions.into_iter().find(|summary| summary.is_current) else {
            return Ok(None);
        };
        let record = store.config(name, &current.version).await?;
        Ok(record.map(|record| Agent {
            definition: Arc::new(record.definition),
            version: record.version,
            path: record.path,
            loaded_at: record.loaded_at,
            rejected: None,
            switched_off: None,
        }))
    }

    async fn write_down(&self, change: &Change, trace: TraceId) {
        let Some(audit) = self.inner.audit.get() else {
            return;
        };
        let version = change.version.iter().cloned();
        let details = version.map(|version| ("version".to_owned(), version.into()));
        audit
            .note(Act {
                at: self.inner.engine.now(),
                kind: "file",
                who: String::new(),
                action: format!("agent {}", change.what),
                target: format!("/configs/{}", change.name),
                outcome: "done",
                trace_id: trace.to_string(),
                details: details.collect(),
            })
            .await;
    }

    async fn announce(&self, changes: Vec<Change>) {
        for change in changes {
            let Some(topic) = topics::config_changed(&change.name) else {
                continue;
            };
            let id = Uuid::now_v7();
            let Ok(event_id) = format!("config-{id}").parse() else {
                continue;
            };
            tracing::info!(agent_name = %change.name, version = change.version, "agent {}", change.what);
            self.write_down(&change, TraceId::from_uuid(id)).await;
            if !self.inner.settings.announces {
                continue;
            }
            let event = Event {
                id: event_id,
                topic,
                source: "agentrunner/config".to_owned(),
                time: self.inner.engine.now(),
                trace_id: TraceId::from_uuid(id),
                hops: 0,
                data: json!({
                    "agent_name": change.name,
                    "change": change.what,
                    "version": change.version,
                }),
            };
            if let Err(error) = self.inner.engine.publish(event).await {
                tracing::warn!(agent_name = %change.name, %error, "the change could not be announced");
            }
        }
    }
}

/// The agent that a file is about: it says so, or is called so.
fn name_of(path: &str, file: Option<&File>) -> Option<AgentName> {
    let stem = || path.rsplit('/').next()?.split('.').next()?.parse().ok();
    file.and_then(|file| name_in(&file.text)).or_else(stem)
}
