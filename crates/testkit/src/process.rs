//! Stand-ins in a process of their own, started from the `testkit` binary.

use std::env;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A running `testkit` process. Killed when dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    url: String,
}

impl Process {
    /// Starts `testkit provider` on a free port, with a script if one is given.
    ///
    /// # Panics
    /// When the binary is missing or does not start.
    #[must_use]
    pub fn provider(script: Option<&Path>) -> Self {
        let mut command = Command::new(binary());
        command.arg("provider");
        if let Some(script) = script {
            command.arg("--script").arg(script);
        }
        Self::start(command)
    }

    /// Starts `testkit effects` on a free port.
    ///
    /// # Panics
    /// When the binary is missing or does not start.
    #[must_use]
    pub fn effects() -> Self {
        let mut command = Command::new(binary());
        command.arg("effects");
        Self::start(command)
    }

    /// Returns `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    fn start(mut command: Command) -> Self {
        let mut child = command
            .stdout(Stdio::piped())
            .spawn()
            .expect("the testkit binary runs");
        let mut line = String::new();
        let output = child.stdout.take().expect("a pipe");
        BufReader::new(output).read_line(&mut line).expect("a line");
        let url = line.trim().strip_prefix("listening on ");
        let url = url
            .unwrap_or_else(|| panic!("testkit did not start: {line}"))
            .to_owned();
        Self { child, url }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Finds the `testkit` binary beside the test that runs.
///
/// # Panics
/// When it was not built; cargo builds it with this crate's own tests, not with those of others.
#[must_use]
pub fn binary() -> PathBuf {
    let test = env::current_exe().expect("the path of the test");
    let folder = test
        .ancestors()
        .skip(1)
        .find(|folder| folder.join("testkit").is_file());
    let folder = folder.expect("testkit is not built: run cargo build -p agentrunner-testkit");
    folder.join("testkit")
}
