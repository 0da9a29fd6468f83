//! What is sent out: how it is signed, and who sends it.

use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use services::Service;
use services::alerts::Alerts;
use services::outgoing::{Sender, SigningKeys, signature};

use super::System;
use crate::settings::Settings;

impl System {
    /// AgentOrchestrator's business: where it is served by many, each takes what the others leave.
    pub(super) fn start_sending(&self) -> anyhow::Result<()> {
        if !self.role.services.contains(&Service::AgentOrchestrator) {
            return Ok(());
        }
        let outgoing = &self.settings.outgoing;
        let values = self.settings.values.clone();
        let alerts = Alerts::new(services::alerts::Settings {
            file: self.settings.alerts_file(),
            lookup: Arc::new(move |name: &str| values.lookup(name)),
            interval: outgoing.alert_interval,
            slack: self.slack()?,
        });
        let sender = Sender::new(
            self.engine.clone(),
            self.toolkit.egress().clone(),
            self.signing.clone(),
            alerts.clone(),
        );
        self.tasks.spawn(sender.run(self.shutdown.clone()));
        self.tasks
            .spawn(alerts.run(self.engine.clone(), self.shutdown.clone()));
        Ok(())
    }
}

/// What callbacks are signed with. On an embedded database a secret is made when none is said. Processes that share a
/// database must sign alike, so there it must be said: without it, no task is taken that wants a callback.
///
/// # Errors
/// The secret can't be made or read.
pub(crate) fn signing_keys(settings: &Settings) -> anyhow::Result<Option<Arc<SigningKeys>>> {
    let outgoing = &settings.outgoing;
    if outgoing.signing.is_some() || settings.servers.postgres.is_some() {
        return Ok(outgoing.signing.clone());
    }
    let path = &outgoing.own_secret;
    let text = own_secret(path).with_context(|| {
        format!(
            "the secret that callbacks are signed with can't be kept in {}; make the folder writable, or set CALLBACK_SIGNING_SECRET",
            path.display()
        )
    })?;
    let keys = SigningKeys::parse(text.trim()).map_err(|message| {
        anyhow::anyhow!("{}: {message}; correct or delete the file", path.display())
    })?;
    Ok(Some(Arc::new(keys)))
}

/// The secret in a file, made if there is none. Of several processes that begin at once, one makes it.
fn own_secret(path: &Path) -> std::io::Result<String> {
    match fs::read_to_string(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        read => return read,
    }
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let secret = signature::mint().map_err(std::io::Error::other)?;
    let draft = path.with_extension(format!("{}", std::process::id()));
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&draft)?;
    writeln!(file, "{secret}")?;
    file.sync_all()?;
    // Unlike a rename, a link never takes the place of what another process has made meanwhile.
    let linked = fs::hard_link(&draft, path);
    fs::remove_file(&draft)?;
    match linked {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => fs::read_to_string(path),
    }
}

/// The secret itself, for whoever is to verify with it.
///
/// # Errors
/// There is none, or it can't be read.
pub(crate) fn signing_secret(settings: &Settings) -> anyhow::Result<String> {
    if let Some(said) = settings.values.text("CALLBACK_SIGNING_SECRET") {
        return Ok(said.to_owned());
    }
    if settings.servers.postgres.is_some() {
        anyhow::bail!(
            "there is none: processes that share a database sign alike, so set CALLBACK_SIGNING_SECRET; `agentrunner callbacks new-secret` makes one"
        );
    }
    let path = &settings.outgoing.own_secret;
    let text = own_secret(path).with_context(|| format!("{} can't be read", path.display()))?;
    Ok(text.trim().to_owned())
}

/// Logs it, in a line.
pub(super) fn say_who_signs(settings: &Settings) {
    let outgoing = &settings.outgoing;
    if outgoing.signing.is_some() {
        tracing::info!("callbacks: signed with CALLBACK_SIGNING_SECRET");
    } else if settings.servers.postgres.is_some() {
        tracing::info!("callbacks: not taken; set CALLBACK_SIGNING_SECRET for all processes alike");
    } else {
        let path = outgoing.own_secret.display();
        tracing::info!("callbacks: signed with the secret in {path}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_made_once_and_is_its_owners() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data").join("secret");
        let first = own_secret(&path).unwrap();
        assert_eq!(own_secret(&path).unwrap(), first);
        assert!(SigningKeys::parse(first.trim()).is_ok());
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }
}
