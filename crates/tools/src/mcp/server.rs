//! One server: its connection, made again when it is lost, and its list of tools, read again when it changed.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use domain::definition::McpTool;
use rmcp::service::ClientInitializeError;
use rmcp::transport::IntoTransport;
use rmcp::{RoleClient, serve_client};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout_at};

use super::catalogue::Catalogue;
use super::connection::{Connection, Listener};
use super::stdio::Child;
use super::token::TokenSource;
use super::{Surroundings, http};
use crate::text::short;

/// How long the first wait between two tries to connect is; it doubles.
const FIRST_WAIT: Duration = Duration::from_millis(100);
/// How long the longest wait is.
const LONGEST_WAIT: Duration = Duration::from_secs(2);
/// How long a failure is told to others who ask, before it is tried again.
const FAILURE_HOLDS: Duration = Duration::from_secs(1);

/// A server that some entries mean.
pub(crate) struct Server {
    /// The name of the entry that meant it first; for logs.
    name: String,
    mcp: McpTool,
    surroundings: Arc<Surroundings>,
    link: Mutex<Link>,
    tokens: Option<Arc<TokenSource>>,
    /// Whether the list has to be read again.
    list_is_stale: Arc<AtomicBool>,
    /// Counts the changes of the list.
    generation: AtomicU64,
    catalogue: RwLock<Option<Arc<Catalogue>>>,
}

#[derive(Default)]
struct Link {
    connection: Option<Arc<Connection>>,
    failure: Option<(Instant, String)>,
}

/// Why a try to connect failed.
pub(super) struct ConnectError {
    /// What happened, for a person.
    pub(super) message: String,
    /// Whether another try may succeed.
    pub(super) passing: bool,
}

impl Server {
    pub(super) fn new(name: String, mcp: McpTool, surroundings: Arc<Surroundings>) -> Self {
        let egress = surroundings.egress.clone();
        Self {
            name,
            tokens: TokenSource::of(mcp.auth.as_ref(), egress).map(Arc::new),
            mcp,
            surroundings,
            link: Mutex::default(),
            list_is_stale: Arc::new(AtomicBool::new(true)),
            generation: AtomicU64::new(0),
            catalogue: RwLock::new(None),
        }
    }

    /// Whether the list is still the one that `generation` counts. Costs two loads.
    pub(crate) fn is_at(&self, generation: u64) -> bool {
        !self.list_is_stale.load(Ordering::Acquire)
            && self.generation.load(Ordering::Acquire) == generation
    }

    /// The list of tools, with its generation; read from the server when it has changed.
    pub(super) async fn catalogue(
        &self,
        deadline: Instant,
    ) -> Result<(Arc<Catalogue>, u64), String> {
        if !self.list_is_stale.load(Ordering::Acquire)
            && let Some(known) = self.known()
        {
            return Ok((known, self.generation.load(Ordering::Acquire)));
        }
        let connection = self.connection(deadline).await?;
        // Before reading: a change that comes in while we read must be read again.
        self.list_is_stale.store(false, Ordering::Release);
        match connection.list(deadline).await {
            Ok(tools) => Ok(self.keep(Catalogue::new(tools))),
            Err(message) => {
                self.list_is_stale.store(true, Ordering::Release);
                self.discard(&connection).await;
                Err(message)
            }
        }
    }

    /// The server's name for a tool that was offered. After a restart of ours the list is not known yet, and a call
    /// that is taken up again may be the first to need it.
    pub(super) async fn name_of(&self, offered: &str, deadline: Instant) -> Result<String, String> {
        let catalogue = match self.known() {
            Some(known) => known,
            None => self.catalogue(deadline).await?.0,
        };
        let name = catalogue.name_of(offered).unwrap_or(offered);
        Ok(name.to_owned())
    }

    /// An open connection; made when there is none, with several tries until the time-out for connecting.
    pub(super) async fn connection(&self, deadline: Instant) -> Result<Arc<Connection>, String> {
        let settings = &self.surroundings.settings;
        let deadline = deadline.min(Instant::now() + settings.connect_timeout);
        let mut link = timeout_at(deadline, self.link.lock())
            .await
            .map_err(|_| "the server is being started, which takes too long".to_owned())?;
        if let Some(connection) = &link.connection
            && connection.is_open()
        {
            return Ok(connection.clone());
        }
        link.connection = None;
        if let Some((at, message)) = &link.failure
            && at.elapsed() < FAILURE_HOLDS
        {
            return Err(message.clone());
        }
        match self.connect(deadline).await {
            Ok(connection) => {
                let connection = Arc::new(connection);
                link.connection = Some(connection.clone());
                link.failure = None;
                // It may be another version of the server than the one whose list we know.
                self.list_is_stale.store(true, Ordering::Release);
                Ok(connection)
            }
            Err(message) => {
                link.failure = Some((Instant::now(), message.clone()));
                Err(message)
            }
        }
    }

    /// Gives up a connection that has failed, so that the next call makes a new one.
    pub(super) async fn discard(&self, failed: &Arc<Connection>) {
        let mut link = self.link.lock().await;
        if link
            .connection
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, failed))
        {
            link.connection = None;
        }
    }

    async fn connect(&self, deadline: Instant) -> Result<Connection, String> {
        let mut wait = FIRST_WAIT;
        let mut last = "the server does not answer".to_owned();
        loop {
            let error = match timeout_at(deadline, self.try_once()).await {
                Ok(Ok(connection)) => return Ok(connection),
                Ok(Err(error)) => error,
                // What an earlier try has found says more than that the last one took too long.
                Err(_) => return Err(last),
            };
            if !error.passing || Instant::now() + wait >= deadline {
                return Err(error.message);
            }
            tracing::debug!(
                server = self.name,
                reason = error.message,
                "an MCP server is tried again"
            );
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
            last = error.message;
        }
    }

    async fn try_once(&self) -> Result<Connection, ConnectError> {
        if self.surroundings.stop.is_cancelled() {
            return Err(ConnectError::lasting("AgentRunner is shutting down"));
        }
        match (&self.mcp.command, &self.mcp.url) {
            (Some(command), _) => {
                let (child, transport) =
                    Child::start(&self.name, command, &self.mcp, &self.surroundings)?;
                let last_words = child.last_words();
                match self.handshake(transport, Some(child)).await {
                    Ok(connection) => Ok(connection),
                    Err(error) => {
                        let said = last_words.spoken().await;
                        let said = said.map(|said| format!("; it says: {said}"));
                        Err(ConnectError {
                            message: error.message + said.as_deref().unwrap_or_default(),
                            ..error
                        })
                    }
                }
            }
            (None, Some(url)) => {
                let tokens = self.tokens.clone();
                let transport = http::transport(url, &self.mcp, tokens, &self.surroundings)?;
                self.handshake(transport, None).await
            }
            (None, None) => Err(ConnectError::lasting("it has neither command nor url")),
        }
    }

    async fn handshake<T, E, A>(
        &self,
        transport: T,
        child: Option<Child>,
    ) -> Result<Connection, ConnectError>
    where
        T: IntoTransport<RoleClient, E, A>,
        E: std::error::Error + Send + Sync + 'static,
    {
        let listener = Listener {
            list_is_stale: self.list_is_stale.clone(),
        };
        let service = serve_client(listener, transport)
            .await
            .map_err(|error| ConnectError {
                passing: !error.is_authorization_required() && error.auth_challenge().is_none(),
                message: format!("it does not speak MCP: {}", short(&reason(&error), 1000)),
            })?;
        Ok(Connection::new(service, child, self.surroundings.clone()))
    }

    fn known(&self) -> Option<Arc<Catalogue>> {
        self.catalogue
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Keeps a list; one that equals the known one is no change.
    fn keep(&self, new: Catalogue) -> (Arc<Catalogue>, u64) {
        let mut known = self
            .catalogue
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        match known.as_ref() {
            Some(old) if **old == new => (old.clone(), self.generation.load(Ordering::Acquire)),
            old => {
                if let Some(old) = old {
                    new.warn_of_changes(&self.name, old);
                }
                let new = Arc::new(new);
                *known = Some(new.clone());
                (new, self.generation.fetch_add(1, Ordering::AcqRel) + 1)
            }
        }
    }
}

impl ConnectError {
    pub(super) fn lasting(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            passing: false,
        }
    }
}

/// Why a handshake failed, without the names of the library's types.
fn reason(error: &ClientInitializeError) -> String {
    match error {
        ClientInitializeError::TransportError { error, .. } => {
            format!("connection closed: {}", chain(&*error.error))
        }
        other => chain(other),
    }
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}
