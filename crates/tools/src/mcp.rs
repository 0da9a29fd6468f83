//! MCP servers: over stdio (a child process) and streamable HTTP, by the official SDK.
//!
//! A server is started when it is first needed, shared by all executions whose entries mean the same one, reconnected
//! when it died or was restarted, and stopped when nobody has called it for a while.

mod activity;
mod catalogue;
mod connection;
mod http;
mod result;
mod server;
mod stdio;
mod token;

use std::collections::HashMap;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::ToolOutcome;
use domain::definition::{McpTool, Tool};
use domain::pin::withheld;
use serde_json::json;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::egress::Egress;
use crate::text::{failed, lost, refused};
use crate::{Call, Error, Offer};
use connection::{CallError, ToolCall};
pub(crate) use server::Server;

/// How long all servers together may take to end, once they have been told to.
const SHUTDOWN: Duration = Duration::from_secs(3);

/// How servers are reached and kept.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    /// Where child processes start.
    pub(crate) working_dir: PathBuf,
    /// `PATH` and `HOME`, all that a child process inherits.
    pub(crate) inherited: Vec<(&'static str, OsString)>,
    /// How long connecting may take, new tries included.
    pub(crate) connect_timeout: Duration,
    /// How long an unused server is kept.
    pub(crate) idle_timeout: Duration,
}

/// What all servers share.
pub(crate) struct Surroundings {
    pub(crate) settings: Settings,
    pub(crate) egress: Arc<Egress>,
    /// The tasks that watch over connections.
    pub(crate) tasks: TaskTracker,
    /// Cancelled when all servers are to end.
    pub(crate) stop: CancellationToken,
}

/// All servers that any definition has named.
pub(crate) struct Mcp {
    surroundings: Arc<Surroundings>,
    servers: Mutex<HashMap<String, Arc<Server>>>,
}

impl Mcp {
    pub(crate) fn new(settings: Settings, egress: Arc<Egress>) -> Self {
        Self {
            surroundings: Arc::new(Surroundings {
                settings,
                egress,
                tasks: TaskTracker::new(),
                stop: CancellationToken::new(),
            }),
            servers: Mutex::default(),
        }
    }

    /// The tools of an entry's server, and the state of its list that they come from.
    pub(crate) async fn offers(
        &self,
        entry: &Tool,
        mcp: &McpTool,
    ) -> Result<(Vec<Offer>, Arc<Server>, u64), Error> {
        let server = self.server(entry, mcp);
        let deadline = Instant::now() + self.surroundings.settings.connect_timeout;
        let (catalogue, generation) =
            server
                .catalogue(deadline)
                .await
                .map_err(|message| Error::Unavailable {
                    entry: entry.name.clone(),
                    message,
                })?;
        let offers = catalogue
            .offers(entry, mcp)
            .map_err(|message| Error::Invalid {
                entry: entry.name.clone(),
                message,
            })?;
        Ok((offers, server, generation))
    }

    /// Calls a tool of an entry's server.
    pub(crate) async fn call(&self, mcp: &McpTool, call: &Call<'_>) -> ToolOutcome {
        let server = self.server(call.entry, mcp);
        let deadline = Instant::now() + call.timeout;
        let name = match server.name_of(call.tool, deadline).await {
            Ok(name) => name,
            Err(message) => return failed(format!("it was not called: {message}")),
        };
        if !catalogue::is_granted(mcp, &name, call.tool) {
            return refused(format!("the agent may not call {}", call.tool));
        }
        let effect = catalogue::effect_of(call.entry, &name, call.tool);
        let wish = ToolCall {
            name: &name,
            arguments: call.arguments,
            meta: json!({
                "agentrunner/idempotencyKey": call.idempotency_key,
                "traceparent": call.traceparent(),
            }),
        };
        let mut tries = 0;
        loop {
            tries += 1;
            let connection = match server.connection(deadline).await {
                Ok(connection) => connection,
                Err(message) => return failed(format!("it was not called: {message}")),
            };
            // After connecting: it may be another version of the server, started just now.
            if let Some(pin) = call.pin {
                match server.catalogue(deadline).await {
                    Ok((catalogue, _)) if catalogue.still_has(call.tool, pin) => {}
                    Ok(_) => return refused(withheld(call.agent, call.tool)),
                    Err(message) => return failed(format!("it was not called: {message}")),
                }
            }
            match connection.call(&wish, deadline).await {
                Ok(answer) => return result::outcome(&answer, call.entry.max_result_bytes),
                Err(CallError::NotSent(_)) if tries == 1 => server.discard(&connection).await,
                Err(CallError::NotSent(reason)) => {
                    server.discard(&connection).await;
                    return failed(format!("it was not called: {reason}"));
                }
                Err(CallError::Answered(reason)) => return failed(reason),
                Err(CallError::Gone(reason)) => {
                    server.discard(&connection).await;
                    return lost(
                        effect,
                        format!("the server was lost during the call: {reason}"),
                    );
                }
                Err(CallError::TimedOut) => {
                    return lost(
                        effect,
                        "there was no answer in time and it was told to stop; \
                         if it needs longer, raise timeout_seconds of the tool",
                    );
                }
            }
        }
    }

    /// Ends all servers and waits until they have, a few seconds at most.
    pub(crate) async fn shutdown(&self) {
        self.stop();
        self.surroundings.tasks.close();
        let ended = tokio::time::timeout(SHUTDOWN, self.surroundings.tasks.wait()).await;
        if ended.is_err() {
            tracing::warn!("some MCP servers did not end in time");
        }
    }

    /// Tells all servers to end.
    pub(crate) fn stop(&self) {
        self.surroundings.stop.cancel();
    }

    /// The server that an entry means: the same for all entries that reach it in the same way.
    fn server(&self, entry: &Tool, mcp: &McpTool) -> Arc<Server> {
        let key = json!([mcp.url, mcp.command, mcp.args, mcp.env, mcp.auth]).to_string();
        let mut servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers
            .entry(key)
            .or_insert_with(|| {
                let surroundings = self.surroundings.clone();
                Arc::new(Server::new(entry.name.clone(), mcp.clone(), surroundings))
            })
            .clone()
    }
}
