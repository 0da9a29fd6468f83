//! Reloads when files change.
//!
//! Notifications are hints: the folder is also read every now and then, and when it was away and is back.

use std::fs::Metadata;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use notify_debouncer_full::notify::event::ModifyKind;
use notify_debouncer_full::notify::{self, EventKind, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{
    DebounceEventResult, DebouncedEvent, Debouncer, RecommendedCache, new_debouncer,
};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::reload::{ConfigService, ReloadError};

/// How soon it is tried again when the folder is away or the store is.
const RETRY: Duration = Duration::from_millis(500);

impl ConfigService {
    /// Keeps the agents current until `shutdown`. The first reload is the caller's.
    pub async fn run(&self, shutdown: CancellationToken) {
        // One place: many hints are one reload.
        let (hint, mut hints) = mpsc::channel(1);
        let mut watching: Option<Watching> = None;
        let mut complained = String::new();
        loop {
            let folder = &self.settings().folder;
            if watching.as_ref().is_none_or(|w| w.is_stale(folder)) {
                // The old one goes first: two watches of one folder would get in each other's way.
                drop(watching.take());
                watching = Watching::begin(folder, self.settings().debounce, hint.clone());
            }
            let pause = match self.reload().await {
                Ok(_) if watching.is_some() => {
                    complained.clear();
                    self.settings().rescan
                }
                Ok(_) => RETRY,
                Err(error) => {
                    complain(&error, &mut complained);
                    RETRY
                }
            };
            let next = Instant::now() + pause;
            tokio::select! {
                () = shutdown.cancelled() => return,
                _ = hints.recv() => {}
                () = tokio::time::sleep_until(next) => {}
            }
        }
    }
}

/// Says once what stays the same.
fn complain(error: &ReloadError, complained: &mut String) {
    let text = error.to_string();
    if *complained != text {
        tracing::warn!("the agents stay as they are: {text}");
        *complained = text;
    }
}

struct Watching {
    /// Which folder it is: one that is made anew under the same name needs a new watch.
    id: Option<Identity>,
    /// The folder itself was removed or renamed; the new one may have got the number of the old.
    is_gone: Arc<AtomicBool>,
    _debouncer: Debouncer<RecommendedWatcher, RecommendedCache>,
}

impl Watching {
    fn begin(folder: &Path, debounce: Duration, hint: mpsc::Sender<()>) -> Option<Self> {
        let id = identity(folder)?;
        let root = folder.canonicalize().ok()?;
        let is_gone = Arc::new(AtomicBool::new(false));
        let (gone, watched) = (is_gone.clone(), root.clone());
        let handler = move |result: DebounceEventResult| {
            let moved = |event: &DebouncedEvent| {
                let is_end = matches!(
                    event.kind,
                    EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))
                );
                is_end && event.paths.contains(&watched)
            };
            if result.is_ok_and(|events| events.iter().any(moved)) {
                gone.store(true, Ordering::Relaxed);
            }
            // What comes while a hint waits is covered by it.
            if hint.try_send(()).is_err() {
                tracing::trace!("a reload is due already");
            }
        };
        let started = new_debouncer(debounce, None, handler).and_then(|mut debouncer| {
            debouncer.watch(&root, RecursiveMode::Recursive)?;
            Ok(debouncer)
        });
        match started {
            Ok(debouncer) => Some(Self {
                id: Some(id),
                is_gone,
                _debouncer: debouncer,
            }),
            Err(error) => {
                report(&error);
                None
            }
        }
    }

    fn is_stale(&self, folder: &Path) -> bool {
        self.is_gone.load(Ordering::Relaxed) || self.id != identity(folder)
    }
}

fn report(error: &notify::Error) {
    tracing::debug!(%error, "the folder of agents can't be watched; it is read twice a second instead");
}

/// Device, number and time of making.
type Identity = (u64, u64, Option<SystemTime>);

/// Tells one folder from another under the same name.
fn identity(folder: &Path) -> Option<Identity> {
    let metadata = folder.metadata().ok().filter(Metadata::is_dir)?;
    let made = metadata.created().ok();
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        Some((metadata.dev(), metadata.ino(), made))
    }
    #[cfg(not(unix))]
    Some((0, 0, made))
}
