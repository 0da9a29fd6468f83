//! A server as a child process: started with a fixed command line and a cleared environment, killed with all that it
//! started itself.

use std::process::Stdio;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::definition::McpTool;
use process_wrap::tokio::{ChildWrapper, CommandWrap, ProcessGroup};
use rmcp::RoleClient;
use rmcp::transport::async_rw::AsyncRwTransport;
use tokio::io::{AsyncReadExt, BufReader};
use tokio::process::{ChildStderr, ChildStdin, ChildStdout};
use tokio_util::sync::CancellationToken;

use super::Surroundings;
use super::server::ConnectError;
use crate::text::{for_log, short};

/// The longest message of a server, in bytes: the largest result that a definition can ask for, and some room.
const MAX_MESSAGE: usize = 20 << 20;
/// The longest line of its log that is kept, in bytes.
const MAX_LINE: usize = 1000;
/// How long it may take to end by itself once its input is closed.
const GRACE: Duration = Duration::from_millis(500);

pub(super) type Transport = AsyncRwTransport<RoleClient, ChildStdout, ChildStdin>;

/// A running server. Dropping it kills its whole process group.
#[derive(Debug)]
pub(super) struct Child {
    process: Option<Box<dyn ChildWrapper>>,
    last_words: LastWords,
}

/// The last line that a server wrote to its log, for the message that tells why it ended.
#[derive(Debug, Clone, Default)]
pub(super) struct LastWords {
    line: Arc<Mutex<String>>,
    /// Cancelled when the log has been read to its end.
    complete: CancellationToken,
}

impl LastWords {
    /// The line, once the log of the ended server has been read.
    pub(super) async fn spoken(&self) -> Option<String> {
        tokio::time::timeout(GRACE, self.complete.cancelled())
            .await
            .ok();
        let line = self
            .line
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        (!line.is_empty()).then_some(line)
    }

    fn set(&self, line: String) {
        *self.line.lock().unwrap_or_else(PoisonError::into_inner) = line;
    }
}

impl Child {
    pub(super) fn start(
        name: &str,
        command: &str,
        mcp: &McpTool,
        surroundings: &Surroundings,
    ) -> Result<(Self, Transport), ConnectError> {
        let settings = &surroundings.settings;
        let mut command_line = CommandWrap::with_new(command, |line| {
            line.args(&mcp.args)
                .env_clear()
                .envs(settings.inherited.iter().map(|(name, value)| (name, value)))
                .envs(&mcp.env)
                .current_dir(&settings.working_dir)
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::piped());
        });
        command_line.wrap(ProcessGroup::leader());
        let mut process = command_line.spawn().map_err(|error| {
            ConnectError::lasting(format!(
                "the program {command:?} can't be started: {error}; install it, or correct command in the agent's file"
            ))
        })?;
        let (stdin, stdout) = (process.stdin().take(), process.stdout().take());
        let stderr = process.stderr().take();
        let child = Self {
            process: Some(process),
            last_words: LastWords::default(),
        };
        let (Some(stdin), Some(stdout)) = (stdin, stdout) else {
            return Err(ConnectError::lasting("the program has no input and output"));
        };
        if let Some(stderr) = stderr {
            let secrets: Vec<String> = mcp.env.values().cloned().collect();
            let log = read_log(name.to_owned(), stderr, child.last_words.clone(), secrets);
            surroundings.tasks.spawn(log);
        }
        let transport = Transport::new(stdout, stdin).with_max_line_length(MAX_MESSAGE);
        Ok((child, transport))
    }

    pub(super) fn last_words(&self) -> LastWords {
        self.last_words.clone()
    }

    /// Waits a moment for it to end by itself, its input being closed, then kills the group.
    pub(super) async fn end(mut self) {
        if let Some(process) = self.process.as_mut() {
            tokio::time::timeout(GRACE, process.inner_mut().wait())
                .await
                .ok();
        }
        if let Some(mut process) = self.process.take() {
            kill(process.as_mut());
            tokio::time::timeout(GRACE, process.wait()).await.ok();
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let Some(mut process) = self.process.take() else {
            return;
        };
        kill(process.as_mut());
        // Reaped in the background; when the runtime is gone, so will we be soon.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { process.wait().await });
        }
    }
}

fn kill(process: &mut dyn ChildWrapper) {
    // It fails when nothing of the group is left, which is what is wanted.
    process.start_kill().ok();
}

/// Reads a server's log to its end, line by line, without the secrets that it was given.
async fn read_log(name: String, stderr: ChildStderr, last: LastWords, secrets: Vec<String>) {
    let mut reader = BufReader::new(stderr);
    let mut line = Vec::new();
    let mut chunk = [0_u8; 4096];
    loop {
        let read = match reader.read(&mut chunk).await {
            Ok(0) | Err(_) => break,
            Ok(read) => chunk.get(..read).unwrap_or_default(),
        };
        for &byte in read {
            if byte != b'\n' {
                if line.len() < MAX_LINE {
                    line.push(byte);
                }
                continue;
            }
            told(&name, &line, &last, &secrets);
            line.clear();
        }
    }
    told(&name, &line, &last, &secrets);
    last.complete.cancel();
}

fn told(server: &str, line: &[u8], last: &LastWords, secrets: &[String]) {
    let mut text = String::from_utf8_lossy(line).trim().to_owned();
    if text.is_empty() {
        return;
    }
    for secret in secrets.iter().filter(|secret| secret.len() >= 6) {
        text = text.replace(secret.as_str(), "[redacted]");
    }
    let text = for_log(&text);
    tracing::debug!(server, text, "an MCP server writes to its log");
    last.set(short(&text, 300));
}
