//! One process of the product: started, stopped or killed, and started again in the same place.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio::process::{Child, Command};

/// How long a start or stop may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// How it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// SIGTERM: it hands back what it has.
    Stop,
    /// SIGKILL.
    Kill,
}

/// A place for a process.
pub(crate) struct Part {
    pub(crate) name: &'static str,
    pub(crate) port: u16,
    pub(crate) log: PathBuf,
    child: Option<Child>,
}

impl Part {
    pub(crate) const fn new(name: &'static str, port: u16, log: PathBuf) -> Self {
        Self {
            name,
            port,
            log,
            child: None,
        }
    }

    /// Starts it and waits until it is ready.
    pub(crate) async fn start(&mut self, mut command: Command) {
        let log = std::fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(&self.log)
            .unwrap();
        let child = command
            .args(["serve", self.name])
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let url = format!("http://127.0.0.1:{}/health/ready", self.port);
        let began = Instant::now();
        loop {
            let answer = client.get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return;
            }
            let ended = self.child.as_mut().and_then(|c| c.try_wait().unwrap());
            let is_in_time = ended.is_none() && began.elapsed() < PATIENCE;
            assert!(is_in_time, "{} ({ended:?}):\n{}", self.name, self.text());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// Ends it; answers why that was not as it should be.
    pub(crate) async fn end(&mut self, how: End) -> Option<String> {
        let mut child = self.child.take()?;
        if how == End::Kill {
            child.kill().await.unwrap();
            return None;
        }
        let id = child.id()?.to_string();
        let mut signal = std::process::Command::new("kill");
        assert!(signal.args(["-TERM", &id]).status().unwrap().success());
        match tokio::time::timeout(PATIENCE, child.wait()).await {
            Ok(Ok(status)) if status.success() => None,
            other => Some(format!("{} was asked to stop: {other:?}", self.name)),
        }
    }

    /// Why it is not running, if it is not.
    pub(crate) fn is_gone(&mut self) -> Option<String> {
        let status = self.child.as_mut()?.try_wait().unwrap()?;
        Some(format!("{} ended by itself: {status}", self.name))
    }

    /// What it logged.
    pub(crate) fn text(&self) -> String {
        let bytes = std::fs::read(&self.log).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}
