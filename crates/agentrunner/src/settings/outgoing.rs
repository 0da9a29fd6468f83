//! What is sent out: callbacks and alerts.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use services::outgoing::SigningKeys;

use super::values::{Mistake, Values};

/// What is sent out, and how it is signed.
#[derive(Debug, Clone)]
pub(crate) struct Outgoing {
    /// What callbacks are signed with, when it is said.
    pub(crate) signing: Option<Arc<SigningKeys>>,
    /// Where a secret is made and kept when none is said and the database is embedded.
    pub(crate) own_secret: PathBuf,
    /// How often it is looked whether something is wrong.
    pub(crate) alert_interval: Duration,
}

impl Outgoing {
    pub(super) fn read(values: &Values, mistakes: &mut Vec<Mistake>) -> Self {
        let signing = values
            .text("CALLBACK_SIGNING_SECRET")
            .map(SigningKeys::parse);
        let signing = signing.transpose().unwrap_or_else(|message| {
            mistakes.push(Mistake {
                name: "CALLBACK_SIGNING_SECRET".to_owned(),
                value: String::new(),
                message,
            });
            None
        });
        Self {
            signing: signing.map(Arc::new),
            own_secret: values
                .path("DATA_DIR")
                .unwrap_or_default()
                .join("callback-signing-secret"),
            alert_interval: Duration::from_secs(values.number("ALERT_CHECK_INTERVAL")),
        }
    }
}
