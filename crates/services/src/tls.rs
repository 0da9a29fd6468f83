//! TLS at the listeners: 1.2 and 1.3, HTTP/2 by ALPN, certificates of callers when they are wanted.
//!
//! What new connections are answered with is held by [`Tls`] and replaced as a whole when the files are ([`Tls::run`]);
//! connections that are open go on with what they began with. Files that don't fit each other change nothing.

mod certificate;
mod files;

use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::sync::CancellationToken;

use certificate::Validity;
use files::Loaded;
pub use files::{Callers, Files, TlsError};

/// How often the files are looked at. They are small, and a look sees every kind of renewal: written over, renamed, a
/// link turned to another folder.
const LOOK: Duration = Duration::from_secs(5);
/// How long a caller may take to shake hands.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// A TLS record that begins a handshake begins with this.
const HANDSHAKE_RECORD: u8 = 22;
const NO_TLS: &[u8] =
    b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 51\r\n\
    connection: close\r\n\r\nthis port speaks TLS: ask it by https:// instead.\r\n";

/// What TLS is spoken with. Cheap to clone; all clones are one.
#[derive(Clone)]
pub struct Tls(Arc<Inner>);

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}

struct Inner {
    files: Files,
    current: watch::Sender<Current>,
}

#[derive(Clone)]
struct Current {
    config: Arc<ServerConfig>,
    validity: Validity,
    /// Of the files' contents.
    print: [u8; 32],
}

/// The subject of the certificate that a caller showed, and its fingerprint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct CallerCertificate(pub(crate) Arc<str>);

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// One can't be read or used; it is named with its variable.
    pub fn open(files: Files) -> Result<Self, TlsError> {
        let mut current = Current::from(files.load()?);
        tracing::info!("TLS: the certificate is {}", current.validity);
        current.validity.tell_again();
        let current = watch::Sender::new(current);
        Ok(Self(Arc::new(Inner { files, current })))
    }

    /// Takes renewed files, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        self.look_every(LOOK, shutdown).await;
    }

    async fn look_every(self, pause: Duration, shutdown: CancellationToken) {
        let mut ticks = tokio::time::interval(pause);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut complained = String::new();
        while shutdown.run_until_cancelled(ticks.tick()).await.is_some() {
            let tls = self.clone();
            // Files on a network disk may take their time.
            match tokio::task::spawn_blocking(move || tls.look()).await {
                Ok(Ok(())) => complained.clear(),
                Ok(Err(error)) => {
                    let error = error.to_string();
                    if complained != error {
                        tracing::error!(
                            "the renewed certificate is not taken, the one before stays: {error}"
                        );
                        complained = error;
                    }
                }
                Err(error) => tracing::error!(%error, "the certificate was not looked at"),
            }
        }
    }

    /// Looks at the files once.
    ///
    /// # Errors
    /// They can't be used, and nothing changed.
    pub fn look(&self) -> Result<(), TlsError> {
        let loaded = self.0.files.load()?;
        let is_new = self.0.current.borrow().print != loaded.print;
        if is_new {
            let mut current = Current::from(loaded);
            tracing::info!("TLS: a renewed certificate is taken, {}", current.validity);
            current.validity.tell_again();
            self.0.current.send_replace(current);
        } else {
            self.0
                .current
                .send_if_modified(|current| current.validity.tell_again());
        }
        Ok(())
    }

    /// Shakes hands with a caller; `None` when that did not come about.
    pub(crate) async fn accept(
        &self,
        stream: TcpStream,
    ) -> Option<(TlsStream<TcpStream>, Option<CallerCertificate>)> {
        match tokio::time::timeout(HANDSHAKE, self.shake_hands(stream)).await {
            Ok(Ok(Some(stream))) => {
                let shown = stream.get_ref().1.peer_certificates();
                let leaf = shown.and_then(<[_]>::first);
                let caller = leaf.map(|leaf| CallerCertificate(certificate::named(leaf).into()));
                Some((stream, caller))
            }
            Ok(Ok(None)) => None,
            Ok(Err(error)) => {
                tracing::debug!(%error, "a TLS handshake failed");
                metrics::counter!("agentrunner_tls_handshakes_failed_total").increment(1);
                None
            }
            Err(_) => {
                tracing::debug!("a TLS handshake took too long");
                metrics::counter!("agentrunner_tls_handshakes_failed_total").increment(1);
                None
            }
        }
    }

    async fn shake_hands(
        &self,
        mut stream: TcpStream,
    ) -> std::io::Result<Option<TlsStream<TcpStream>>> {
        let mut first = [0];
        // Whoever speaks HTTP here learns what is wrong.
        if stream.peek(&mut first).await? == 1 && first[0] != HANDSHAKE_RECORD {
            if first[0].is_ascii_uppercase() {
                stream.write_all(NO_TLS).await?;
                stream.shutdown().await?;
            }
            return Ok(None);
        }
        let config = self.0.current.borrow().config.clone();
        TlsAcceptor::from(config).accept(stream).await.map(Some)
    }
}

impl From<Loaded> for Current {
    fn from(loaded: Loaded) -> Self {
        Self {
            config: Arc::new(loaded.config),
            validity: loaded.validity,
            print: loaded.print,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_answer_to_plain_http_is_as_long_as_it_says() {
        let text = std::str::from_utf8(NO_TLS).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        let length = format!("content-length: {}", body.len());
        assert!(head.contains(&length), "{head}");
    }
}
