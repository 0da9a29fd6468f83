//! One connection to a server, and the task that watches over it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rmcp::model::{
    CallToolRequest, CallToolRequestParams, CallToolResult, ClientCapabilities, ClientConfig,
    ClientRequest, ErrorData, Implementation, JsonObject, PaginatedRequestParams,
    RequestMetaObject, ServerResult, Tool,
};
use rmcp::service::{
    NotificationContext, Peer, PeerRequestOptions, RequestContext, RequestHandle, RunningService,
};
use rmcp::transport::streamable_http_client::StreamableHttpError;
use rmcp::{ClientHandler, RoleClient, ServiceError};
use serde_json::Value;
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use super::Surroundings;
use super::activity::Activity;
use super::catalogue::MAX_LISTED;
use super::stdio::Child;
use super::token::NoToken;
use crate::text::{MAX_MESSAGE_BYTES, short};

/// How long a server may take to close a connection in good order.
const CLOSE: Duration = Duration::from_secs(1);

/// A connection that is in use or may be.
pub(super) struct Connection {
    peer: Peer<RoleClient>,
    activity: Arc<Activity>,
    /// Cancelled when the connection is dropped: its watcher then ends the server.
    stop: CancellationToken,
    surroundings: Arc<Surroundings>,
}

/// A call as it goes to a server.
pub(super) struct ToolCall<'a> {
    pub(super) name: &'a str,
    pub(super) arguments: &'a Value,
    pub(super) meta: Value,
}

/// Why a call has no result.
#[derive(Debug)]
pub(super) enum CallError {
    /// It certainly did not reach the server.
    NotSent(String),
    /// The server answered with an error.
    Answered(String),
    /// It may have reached the server, which is gone.
    Gone(String),
    /// It reached the server, which did not answer in time.
    TimedOut,
}

/// What we are to a server: a client that answers no questions and notes when the list of tools changes.
pub(super) struct Listener {
    pub(super) list_is_stale: Arc<AtomicBool>,
}

impl ClientHandler for Listener {
    fn get_info(&self) -> ClientConfig {
        ClientConfig::new(
            ClientCapabilities::default(),
            Implementation::new("agentrunner", env!("CARGO_PKG_VERSION")),
        )
    }

    // Sampling and elicitation are declined by default; roots are not, they would be an empty list.
    #[expect(
        deprecated,
        reason = "servers of older versions of the protocol still ask for roots"
    )]
    async fn list_roots(
        &self,
        _: RequestContext<RoleClient>,
    ) -> Result<rmcp::model::ListRootsResult, ErrorData> {
        Err(ErrorData::method_not_found::<
            rmcp::model::ListRootsRequestMethod,
        >())
    }

    async fn on_tool_list_changed(&self, _: NotificationContext<RoleClient>) {
        self.list_is_stale.store(true, Ordering::Release);
    }
}

impl Connection {
    /// Takes over a connection that was just made, and the child process behind it.
    pub(super) fn new(
        service: RunningService<RoleClient, Listener>,
        child: Option<Child>,
        surroundings: Arc<Surroundings>,
    ) -> Self {
        let connection = Self {
            peer: service.peer().clone(),
            activity: Activity::new(),
            stop: surroundings.stop.child_token(),
            surroundings: surroundings.clone(),
        };
        let watch = watch(
            service,
            child,
            connection.activity.clone(),
            connection.stop.clone(),
            surroundings.settings.idle_timeout,
        );
        surroundings.tasks.spawn(watch);
        connection
    }

    /// Whether a call can be made on it, as far as is known.
    pub(super) fn is_open(&self) -> bool {
        !self.peer.is_transport_closed() && !self.activity.is_closed()
    }

    /// Calls a tool. A call that takes too long, or that its caller drops, is cancelled at the server.
    pub(super) async fn call(
        &self,
        call: &ToolCall<'_>,
        deadline: Instant,
    ) -> Result<CallToolResult, CallError> {
        let gone = || CallError::NotSent("the server has ended".to_owned());
        let _in_use = self.activity.begin().ok_or_else(gone)?;
        let request = ClientRequest::CallToolRequest(CallToolRequest::new(call.params()));
        let options = PeerRequestOptions::no_options().with_meta(call.meta());
        let sending = self.peer.send_request_with_option(request, options);
        let handle = match timeout_at(deadline, sending).await {
            Ok(Ok(handle)) => handle,
            Ok(Err(ServiceError::TransportClosed)) => return Err(gone()),
            Ok(Err(error)) => return Err(CallError::NotSent(short(&error.to_string(), 500))),
            Err(_) => {
                return Err(CallError::NotSent(
                    "the server takes no requests".to_owned(),
                ));
            }
        };
        let mut pending = Pending {
            handle: Some(handle),
            surroundings: &self.surroundings,
        };
        let Some(handle) = pending.handle.as_mut() else {
            return Err(gone());
        };
        let answer = match timeout_at(deadline, &mut handle.rx).await {
            Ok(answer) => answer,
            Err(_) => return Err(CallError::TimedOut),
        };
        pending.handle = None;
        match answer {
            Ok(Ok(ServerResult::CallToolResult(result))) => Ok(result),
            Ok(Ok(ServerResult::InputRequiredResult(_))) => Err(CallError::Answered(
                "the tool asks for input, which is not given to servers".to_owned(),
            )),
            Ok(Ok(_)) => Err(CallError::Gone(
                "the server's answer is not the result of a tool".to_owned(),
            )),
            Ok(Err(error)) => Err(sorted(&error)),
            Err(_) => Err(CallError::Gone("the connection was closed".to_owned())),
        }
    }

    /// Lists the server's tools, all pages of it.
    pub(super) async fn list(&self, deadline: Instant) -> Result<Vec<Tool>, String> {
        let _in_use = self
            .activity
            .begin()
            .ok_or_else(|| "the server has ended".to_owned())?;
        let mut tools = Vec::new();
        let mut cursor = None;
        loop {
            let page = PaginatedRequestParams::default().with_cursor(cursor);
            let page = timeout_at(deadline, self.peer.list_tools(Some(page)))
                .await
                .map_err(|_| "the server did not list its tools in time".to_owned())?
                .map_err(|error| {
                    let error = short(&error.to_string(), 500);
                    format!("the server did not list its tools: {error}")
                })?;
            let empty = page.tools.is_empty();
            tools.extend(page.tools);
            cursor = page.next_cursor;
            if tools.len() > MAX_LISTED || (empty && cursor.is_some()) {
                return Err(format!(
                    "the server lists more than {MAX_LISTED} tools, or without end"
                ));
            }
            if cursor.is_none() {
                return Ok(tools);
            }
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl ToolCall<'_> {
    fn params(&self) -> CallToolRequestParams {
        let name: Cow<'static, str> = self.name.to_owned().into();
        let arguments: JsonObject = self.arguments.as_object().cloned().unwrap_or_default();
        CallToolRequestParams::new(name).with_arguments(arguments)
    }

    fn meta(&self) -> RequestMetaObject {
        let meta: JsonObject = self.meta.as_object().cloned().unwrap_or_default();
        RequestMetaObject::from(meta)
    }
}

/// A request that waits for its answer; when it is given up, the server is told.
struct Pending<'a> {
    handle: Option<RequestHandle<RoleClient>>,
    surroundings: &'a Surroundings,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            self.surroundings.tasks.spawn(async move {
                let cancel = handle.cancel(Some("nobody waits for the answer any more".to_owned()));
                // Best effort: a server that can't be told has no one to answer to either.
                tokio::time::timeout(CLOSE, cancel).await.ok();
            });
        }
    }
}

/// Ends the connection when it is to be ended, and the child process with it.
async fn watch(
    service: RunningService<RoleClient, Listener>,
    child: Option<Child>,
    activity: Arc<Activity>,
    stop: CancellationToken,
    idle: Duration,
) {
    let close = service.cancellation_token();
    let mut ended = std::pin::pin!(service.waiting());
    tokio::select! {
        _ = &mut ended => {}
        () = stop.cancelled() => {
            activity.close();
            close.cancel();
            tokio::time::timeout(CLOSE, ended).await.ok();
        }
        () = activity.idle_for(idle) => {
            tracing::debug!("an MCP server is stopped because nobody calls it");
            close.cancel();
            tokio::time::timeout(CLOSE, ended).await.ok();
        }
    }
    activity.close();
    if let Some(child) = child {
        child.end().await;
    }
}

/// Tells what a failed call means from how it failed.
fn sorted(error: &ServiceError) -> CallError {
    let reason = short(&error.to_string(), MAX_MESSAGE_BYTES);
    match error {
        ServiceError::McpError(answer) => {
            CallError::Answered(short(&answer.message, MAX_MESSAGE_BYTES))
        }
        ServiceError::TransportSend(failure) => sorted_transport(failure.error.as_ref(), reason),
        _ => CallError::Gone(reason),
    }
}

fn sorted_transport(failure: &(dyn StdError + 'static), reason: String) -> CallError {
    let mut next = Some(failure);
    while let Some(cause) = next {
        if let Some(http) = cause.downcast_ref::<StreamableHttpError<reqwest::Error>>() {
            return sorted_http(http, reason);
        }
        // A write to a pipe that nobody reads any more: the line's end was not delivered.
        if let Some(io) = cause.downcast_ref::<io::Error>()
            && matches!(
                io.kind(),
                io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected
            )
        {
            return CallError::NotSent("the server has ended".to_owned());
        }
        next = cause.source();
    }
    CallError::Gone(reason)
}

fn sorted_http(error: &StreamableHttpError<reqwest::Error>, reason: String) -> CallError {
    match error {
        // The server knows nothing of our session: it was restarted, and has not looked at the call.
        StreamableHttpError::SessionExpired => {
            CallError::NotSent("the server lost the session".to_owned())
        }
        StreamableHttpError::Client(error) if error.is_connect() => {
            CallError::NotSent("the server can't be reached".to_owned())
        }
        StreamableHttpError::Io(error)
            if error.get_ref().is_some_and(|inner| inner.is::<NoToken>()) =>
        {
            CallError::NotSent(short(&error.to_string(), 500))
        }
        // What the SDK makes of a status: the server, or what stands before it, did not take the call.
        StreamableHttpError::UnexpectedServerResponse(text)
            if text.starts_with("HTTP 3") || text.starts_with("HTTP 4") =>
        {
            CallError::Answered(short(text, MAX_MESSAGE_BYTES))
        }
        StreamableHttpError::HttpStatus(status) if !matches!(status.status, 502 | 504) => {
            CallError::Answered(reason)
        }
        StreamableHttpError::AuthRequired(_) | StreamableHttpError::InsufficientScope(_) => {
            CallError::Answered("the server does not accept the credentials".to_owned())
        }
        _ => CallError::Gone(reason),
    }
}
