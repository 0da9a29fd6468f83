//! Keeps secrets as they are where they are kept: files are looked at every few seconds, managers now and then. What
//! can't be read stays as it was known last.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use engine::Engine;
use services::redact::Redactor;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{Managers, References};
use crate::settings::{Values, read_secret};

/// How often files are looked at, and the token of Vault.
const LOOK: Duration = Duration::from_secs(5);

/// What is kept current, and who is told.
pub(crate) struct Keeper {
    pub(crate) values: Arc<Values>,
    pub(crate) managers: Option<Arc<Managers>>,
    pub(crate) references: References,
    /// How often managers are asked.
    pub(crate) period: Duration,
    pub(crate) redactor: Redactor,
    pub(crate) engine: Engine,
}

/// Keeps secrets current, until `stop`.
pub(crate) async fn keep(keeper: Keeper, stop: CancellationToken) {
    let files: BTreeMap<String, PathBuf> = keeper.values.secret_files().collect();
    if files.is_empty() && keeper.references.is_empty() {
        return;
    }
    let mut complaints = BTreeMap::new();
    let mut next = Instant::now() + keeper.period;
    loop {
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
        let mut renewed = keeper.of_files(&files, &mut complaints).await;
        if let Some(managers) = &keeper.managers {
            managers.stay_known().await;
            if Instant::now() >= next {
                renewed |= keeper.of_managers(managers, &mut complaints).await;
                next = Instant::now() + keeper.period;
            }
        }
        if renewed {
            keeper.engine.forget_secrets();
        }
    }
}

impl Keeper {
    async fn of_files(
        &self,
        files: &BTreeMap<String, PathBuf>,
        complaints: &mut BTreeMap<String, String>,
    ) -> bool {
        let mut renewed = false;
        for (name, path) in files {
            let path = path.clone();
            // A file on a network disk may take its time.
            let read = tokio::task::spawn_blocking(move || read_secret(&path)).await;
            let read = read.unwrap_or_else(|error| Err(error.to_string()));
            renewed |= self.take(name, read, complaints);
        }
        renewed
    }

    async fn of_managers(
        &self,
        managers: &Managers,
        complaints: &mut BTreeMap<String, String>,
    ) -> bool {
        let mut renewed = false;
        for (name, reference) in &self.references {
            let read = managers.get(reference).await;
            renewed |= self.take(name, read, complaints);
        }
        renewed
    }

    /// Takes a value in the place of the one before; tells whether it is another.
    fn take(
        &self,
        name: &str,
        read: Result<String, String>,
        complaints: &mut BTreeMap<String, String>,
    ) -> bool {
        let value = match read {
            // A file is empty for a moment while it is written.
            Ok(value) if value.is_empty() => Err("it is empty".to_owned()),
            read => read,
        };
        match value {
            Ok(value) => {
                complaints.remove(name);
                if self.values.lookup(name).as_deref() == Some(value.as_str()) {
                    return false;
                }
                // Before anybody uses it.
                self.redactor.learn([value.as_str()]);
                self.values.renew(name, value);
                tracing::info!("{name} was renewed");
                true
            }
            Err(message) => {
                if complaints.get(name) != Some(&message) {
                    tracing::error!(
                        "{name} can't be read again, the value before stays: {message}"
                    );
                    complaints.insert(name.to_owned(), message);
                }
                false
            }
        }
    }
}
