//! Tells people that something is wrong, and that it is over: rules and receivers of `alerts.yml`.
//!
//! What is known of alerts is one document in the store, changed only by whoever has seen its version, together with the
//! messages that follow: of all processes that look, one tells, and after a restart nothing is told twice or forgotten.
//! The rules themselves are [`domain::alert`]; messages go out by [`crate::outgoing`].

mod email;
mod incoming_webhook;
mod look;
mod message;
mod tell;

use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::alert::AlertConfig;
pub(crate) use look::{OVERDUE, known};

use crate::config::{Diagnostic, Lookup, decode, parse_alerts, render};
use crate::slack::Slack;

/// The largest file.
const MAX_BYTES: u64 = 1 << 20;

/// Where the rules are, and what receivers need.
#[derive(Clone)]
pub struct Settings {
    /// `alerts.yml`; it need not be there.
    pub file: PathBuf,
    /// Answers the variables that it refers to.
    pub lookup: Arc<Lookup>,
    /// How often it is looked.
    pub interval: Duration,
    /// What writes to Slack.
    pub slack: Slack,
}

/// The rules and receivers as they are now. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Alerts {
    settings: Arc<Settings>,
    current: Arc<Mutex<Current>>,
}

/// What was read last.
#[derive(Default)]
struct Current {
    is_read: bool,
    /// The content of the file; `None` when there was none.
    content: Option<Vec<u8>>,
    /// The last that was good; `None` when none was yet.
    config: Option<Arc<AlertConfig>>,
}

impl Alerts {
    /// Nothing is read yet.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings: Arc::new(settings),
            current: Arc::default(),
        }
    }

    /// What was good last, without looking.
    fn config(&self) -> Option<Arc<AlertConfig>> {
        self.current().config.clone()
    }

    fn current(&self) -> std::sync::MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the file if it has changed. A broken one leaves what was good before at work.
    pub(crate) async fn reload(&self) -> Option<Arc<AlertConfig>> {
        let content = match self.content().await {
            Ok(content) => content,
            Err(error) => {
                let file = self.settings.file.display();
                tracing::warn!(%error, "{file} can't be read; the rules stay as they are");
                return self.config();
            }
        };
        {
            let current = self.current();
            if current.is_read && current.content == content {
                return current.config.clone();
            }
        }
        let parsed = self.parse(content.as_deref().unwrap_or_default());
        let mut current = self.current();
        current.is_read = true;
        current.content = content;
        match parsed {
            Ok((config, warnings)) => {
                for warning in &warnings {
                    tracing::warn!("{warning}");
                }
                let (rules, receivers) = (config.rules.len(), config.receivers.len());
                if rules > 0 {
                    tracing::info!(rules, receivers, "alerts are looked after");
                }
                current.config = Some(Arc::new(config));
            }
            Err(found) => {
                tracing::error!("the alerts' rules stay as they were:\n{}", render(&found));
            }
        }
        current.config.clone()
    }

    fn parse(&self, content: &[u8]) -> Result<(AlertConfig, Vec<Diagnostic>), Vec<Diagnostic>> {
        let name = self.settings.file.display().to_string();
        let text = decode(content, &name).map_err(|diagnostic| vec![*diagnostic])?;
        parse_alerts(text, &name, &*self.settings.lookup)
    }

    async fn content(&self) -> std::io::Result<Option<Vec<u8>>> {
        let file = &self.settings.file;
        match tokio::fs::metadata(file).await {
            Ok(found) if found.len() > MAX_BYTES => {
                Err(std::io::Error::other("it is larger than 1 MiB"))
            }
            Ok(_) => tokio::fs::read(file).await.map(Some),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}
