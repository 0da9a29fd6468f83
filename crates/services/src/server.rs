//! Binds and serves the services.
//!
//! Everything is bound before anything is served, so that a port in use is one clear message and not half a start.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt as _;

use crate::http::peer::Peer;
use crate::http::{App, Service, router};
use crate::tls::{CallerCertificate, Tls};

/// How many connections a listener holds at once; others wait to be accepted.
const MAX_CONNECTIONS: usize = 4096;
/// How long a client may take to send the head of a request.
const HEAD_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a client may take to read anything of what is sent to it before it is hung up on.
const READ_PATIENCE: Duration = Duration::from_secs(30);
/// How many headers a request may have.
const MAX_HEADERS: usize = 100;
/// How many bytes they may have together.
const MAX_HEAD_BYTES: usize = 64 << 10;

/// Why a listener could not be bound.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct BindError {
    /// For which service.
    pub service: Service,
    /// What happened, and what to do.
    pub message: String,
    /// The system's error.
    #[source]
    pub source: io::Error,
}

impl BindError {
    /// Whether somebody has the port.
    pub fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }

    fn new(service: Service, address: SocketAddr, source: io::Error) -> Self {
        let (name, variable, port) = (service.as_str(), service.port_variable(), address.port());
        let message = match source.kind() {
            io::ErrorKind::AddrInUse => format!(
                "port {port} of {name} is in use; set {variable} to another port, or find who has it: \
                 ss -ltnp 'sport = :{port}' (Linux), lsof -nP -iTCP:{port} -sTCP:LISTEN (macOS)"
            ),
            io::ErrorKind::PermissionDenied => format!(
                "port {port} of {name} needs rights that this user does not have; set {variable} to a port above 1023"
            ),
            io::ErrorKind::AddrNotAvailable => format!(
                "{} is no address of this machine; set BIND_ADDRESS to one that it has, such as 127.0.0.1",
                address.ip()
            ),
            _ => format!("{name} can't listen on {address}: {source}"),
        };
        Self {
            service,
            message,
            source,
        }
    }
}

/// Listeners that are bound, and not served yet.
#[derive(Debug)]
pub struct Server {
    listeners: Vec<(Service, TcpListener, SocketAddr)>,
    tls: Option<Tls>,
}

impl Server {
    /// Binds one listener for each service. Port 0 takes a free one.
    ///
    /// # Errors
    /// The first that can't be bound.
    pub async fn bind(addresses: &BTreeMap<Service, SocketAddr>) -> Result<Self, BindError> {
        let mut listeners = Vec::with_capacity(addresses.len());
        for (&service, &address) in addresses {
            let fail = |source| BindError::new(service, address, source);
            let listener = TcpListener::bind(address).await.map_err(fail)?;
            let bound = listener.local_addr().map_err(fail)?;
            listeners.push((service, listener, bound));
        }
        Ok(Self {
            listeners,
            tls: None,
        })
    }

    /// The same, speaking TLS and nothing else.
    #[must_use]
    pub fn with_tls(mut self, tls: Option<Tls>) -> Self {
        self.tls = tls;
        self
    }

    /// Where each service listens.
    pub fn addresses(&self) -> BTreeMap<Service, SocketAddr> {
        self.listeners
            .iter()
            .map(|(service, _, address)| (*service, *address))
            .collect()
    }

    /// Serves until the app's `shutdown`; then takes no more connections, ends streams, lets requests under way come
    /// to their end within `drain`, and returns.
    pub async fn serve(self, app: App, drain: Duration) {
        let connections = TaskTracker::new();
        // What is not over when the time to drain is, is cut.
        let cut = CancellationToken::new();
        let shutdown = app.shutdown.clone();
        let accepting = TaskTracker::new();
        for (service, listener, address) in self.listeners {
            let router = router(service, app.clone(), address.ip().is_loopback());
            let accept = Accept {
                router,
                tls: self.tls.clone(),
                connections: connections.clone(),
                shutdown: shutdown.clone(),
                cut: cut.clone(),
            };
            accepting.spawn(accept.run(listener));
        }
        if let Some(tls) = self.tls {
            accepting.spawn(tls.run(shutdown.clone()));
        }
        accepting.spawn(app.access.clone().run(shutdown.clone()));
        if let Some(metrics) = app.metrics.clone() {
            let shutdown = shutdown.clone();
            accepting.spawn(async move {
                // Without it the memory of histograms grows.
                let mut ticks = tokio::time::interval(Duration::from_secs(5));
                while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
                    metrics.run_upkeep();
                }
            });
        }
        accepting.close();
        accepting.wait().await;
        connections.close();
        if tokio::time::timeout(drain, connections.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                open = connections.len(),
                "connections are cut: the time to drain is over"
            );
            cut.cancel();
            connections.wait().await;
        }
    }
}

#[derive(Clone)]
struct Accept {
    router: Router,
    tls: Option<Tls>,
    connections: TaskTracker,
    shutdown: CancellationToken,
    cut: CancellationToken,
}

impl Accept {
    async fn run(self, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        loop {
            let accepted = self.shutdown.run_until_cancelled(async {
                let place = places.clone().acquire_owned().await;
                (place, listener.accept().await)
            });
            match accepted.await {
                None => return,
                Some((Ok(place), Ok((stream, peer)))) => {
                    let connection = self.clone().connection(stream, peer);
                    self.connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
                }
                Some((_, Err(error))) => {
                    // Mostly too many open files: waiting a little lets some close.
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                Some((Err(_), _)) => return,
            }
        }
    }

    async fn connection(self, stream: TcpStream, peer: SocketAddr) {
        // Small writes go out at once: tokens of a stream are not to wait for one another.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY could not be set");
        }
        let Some(tls) = &self.tls else {
            return self.speak(stream, peer, None).await;
        };
        let shaken = self.shutdown.run_until_cancelled(tls.accept(stream));
        if let Some(Some((stream, caller))) = shaken.await {
            self.speak(stream, peer, caller).await;
        }
    }

    /// Speaks HTTP until the connection ends.
    async fn speak<S>(&self, stream: S, peer: SocketAddr, caller: Option<CallerCertificate>)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut builder = Builder::new(TokioExecutor::new());
        builder
            .http1()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_headers(MAX_HEADERS)
            .max_buf_size(MAX_HEAD_BYTES);
        builder
            .http2()
            .timer(TokioTimer::new())
            .keep_alive_interval(Duration::from_secs(20))
            .max_concurrent_streams(256)
            .max_header_list_size(MAX_HEAD_BYTES as u32);
        let router = self.router.clone();
        let service = router.map_request(move |mut request: http::Request<_>| {
            request.extensions_mut().insert(Peer(peer));
            if let Some(caller) = &caller {
                request.extensions_mut().insert(caller.clone());
            }
            request
        });
        let service = TowerToHyperService::new(service);
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(READ_PATIENCE));
        let stream = TokioIo::new(Box::pin(stream));
        let connection = builder.serve_connection_with_upgrades(stream, service);
        let mut connection = std::pin::pin!(connection);
        let end = tokio::select! {
            end = connection.as_mut() => end,
            () = self.shutdown.cancelled() => {
                connection.as_mut().graceful_shutdown();
                tokio::select! {
                    end = connection.as_mut() => end,
                    () = self.cut.cancelled() => Ok(()),
                }
            }
        };
        if let Err(error) = end {
            // The other side went away, or did not speak HTTP.
            tracing::debug!(error, "a connection ended early");
        }
    }
}
