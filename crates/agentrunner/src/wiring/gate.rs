//! Who may ask the listeners of this process, how often, and where it is written down.

use anyhow::Context as _;
use domain::KeyHash;
use secrecy::{ExposeSecret as _, SecretString};
use services::audit::Audit;
use services::http::access::Access;
use services::http::limits::Limits;

use super::System;
use crate::settings::Settings;

impl System {
    /// From now on the listeners are for this process alone: at a port of loopback everybody on the machine could ask.
    pub(super) fn keep_to_itself(&mut self) {
        let random = [uuid::Uuid::new_v4(), uuid::Uuid::new_v4()];
        let key: String = random.map(|half| half.simple().to_string()).concat();
        self.own_key = Some(key.into());
    }

    /// The key to show to the listeners of one command.
    pub(crate) fn own_key(&self) -> Option<SecretString> {
        self.own_key.clone()
    }

    /// Who has to show which key.
    pub(super) fn access(&self) -> Access {
        let keyed = |hash, name| Access::keyed(hash, name, self.engine.clone());
        match (&self.own_key, self.settings.access.bootstrap) {
            (Some(key), _) => keyed(KeyHash::of(key.expose_secret()), "command line"),
            (None, Some(bootstrap)) => keyed(bootstrap, "bootstrap"),
            (None, None) => Access::open(),
        }
    }

    /// How often callers may ask.
    pub(super) fn limits(&self) -> Limits {
        let access = &self.settings.access;
        let counters = self.counters.clone();
        match access.limit {
            // One's own command does not wait for oneself.
            _ if self.own_key.is_some() => Limits::none(),
            Some((per_minute, burst)) => Limits::new(counters, per_minute, burst),
            None if access.bootstrap.is_some() => Limits::of_failures(counters, access.failures),
            None => Limits::none(),
        }
    }

    /// Where it is written down, opened before anything is served: what can't be written down is not begun.
    ///
    /// # Errors
    /// It can't be written.
    pub(super) fn audit(&self) -> anyhow::Result<Audit> {
        let access = &self.settings.access;
        if !access.is_audited {
            return Ok(Audit::none());
        }
        let path = &access.audit_log;
        let store = self.engine.store().clone();
        let audit = Audit::open(path, access.audit_key.as_ref(), Some(store));
        audit.with_context(|| {
            format!(
                "the audit log {} can't be written; correct AUDIT_LOG_PATH, or its folder's owner",
                path.display()
            )
        })
    }
}

/// Logs it, a line each.
pub(super) fn say_who_may_ask(settings: &Settings) {
    match settings.access.bootstrap {
        Some(_) => tracing::info!("access: every request needs a key"),
        None if settings.listen.is_open => tracing::warn!(
            "ALLOW_UNAUTHENTICATED=true: whoever reaches these ports may do everything"
        ),
        None => tracing::info!("access: whoever is on this machine"),
    }
    if settings.access.is_audited {
        tracing::info!(
            "audit log: {}, and the table audit_log",
            settings.access.audit_log.display()
        );
    }
}
