//! Reloads when files change.
//!
//! Notifications are hints: the folder is also read every now and then, and when it was away and is back.

use std::path::Path;
use std::time::Duration;
#[cfg(not(unix))]
use std::time::SystemTime;

use notify_debouncer_full::notify::{self, RecommendedWatcher, RecursiveMode};
use notify_debouncer_full::{Debouncer, RecommendedCache, new_debouncer};
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
            if watching
                .as_ref()
                .is_none_or(|watching| watching.id != identity(folder))
            {
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
    id: Option<(u64, u64)>,
    _debouncer: Debouncer<RecommendedWatcher, RecommendedCache>,
}

impl Watching {
    fn begin(folder: &Path, debounce: Duration, hint: mpsc::Sender<()>) -> Option<Self> {
        let id = identity(folder)?;
        // What comes while a hint waits is covered by it.
        let handler = move |_: notify_debouncer_full::DebounceEventResult| {
            if hint.try_send(()).is_err() {
                tracing::trace!("a reload is due already");
            }
        };
        let started = new_debouncer(debounce, None, handler).and_then(|mut debouncer| {
            debouncer.watch(folder, RecursiveMode::Recursive)?;
            Ok(debouncer)
        });
        match started {
            Ok(debouncer) => Some(Self {
                id: Some(id),
                _debouncer: debouncer,
            }),
            Err(error) => {
                report(&error);
                None
            }
        }
    }
}

fn report(error: &notify::Error) {
    tracing::debug!(%error, "the folder of agents can't be watched; it is read twice a second instead");
}

/// Tells one folder from another under the same name.
fn identity(folder: &Path) -> Option<(u64, u64)> {
    let metadata = folder.metadata().ok().filter(std::fs::Metadata::is_dir)?;
    #[cfg(unix)]
    {
        use std::os::unix::fs::MetadataExt;
        Some((metadata.dev(), metadata.ino()))
    }
    #[cfg(not(unix))]
    {
        let made = metadata.created().unwrap_or(SystemTime::UNIX_EPOCH);
        let since = made
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap_or_default();
        Some((since.as_secs(), since.subsec_nanos().into()))
    }
}
