//! A TCP proxy that makes the network bad: slow, cut, silent.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::server::{bind, on_own_thread};

/// What the network is like. A change holds at once, for open connections too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Weather {
    /// Everything passes.
    #[default]
    Clear,
    /// Each read is passed on only after this time, in both directions.
    Slow(Duration),
    /// Nothing passes, and nobody is told. What was sent arrives when the weather clears.
    BlackHole,
    /// Open connections are reset, and so is every new one.
    Reset,
    /// Each connection is reset once this many bytes of answers have passed by it.
    CutAfter(u64),
}

/// A proxy before one address, on a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct FaultProxy {
    address: SocketAddr,
    weather: Option<watch::Sender<Weather>>,
    connections: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl FaultProxy {
    /// Starts a proxy on a free port of 127.0.0.1 that passes on to `upstream`.
    ///
    /// # Panics
    /// When no port can be bound.
    #[must_use]
    pub fn start(upstream: SocketAddr) -> Self {
        let (listener, address) = bind(0).expect("a free port");
        let (weather, seen) = watch::channel(Weather::Clear);
        let connections = Arc::new(AtomicUsize::new(0));
        let counter = connections.clone();
        let thread = on_own_thread("testkit-proxy", async move {
            let listener = TcpListener::from_std(listener).expect("a bound listener");
            let mut ended = seen.clone();
            tokio::select! {
                () = accept(listener, upstream, seen, counter) => {}
                // The sender is dropped with the proxy.
                _ = async { while ended.changed().await.is_ok() {} } => {}
            }
        });
        Self {
            address,
            weather: Some(weather),
            connections,
            thread: Some(thread),
        }
    }

    /// Returns the address to connect to.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Changes the weather.
    pub fn set(&self, weather: Weather) {
        if let Some(sender) = &self.weather {
            sender.send_replace(weather);
        }
    }

    /// Counts the connections that were made so far.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        drop(self.weather.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the proxy's thread does not panic");
        }
    }
}

async fn accept(
    listener: TcpListener,
    upstream: SocketAddr,
    weather: watch::Receiver<Weather>,
    connections: Arc<AtomicUsize>,
) {
    while let Ok((client, _)) = listener.accept().await {
        connections.fetch_add(1, Ordering::Relaxed);
        let weather = weather.clone();
        tokio::spawn(async move {
            // A broken connection is what the proxy is for.
            relay(client, upstream, weather).await.ok();
        });
    }
}

/// Passes one connection on until one side closes it or the weather breaks it.
async fn relay(
    client: TcpStream,
    upstream: SocketAddr,
    mut weather: watch::Receiver<Weather>,
) -> io::Result<()> {
    client.set_zero_linger()?;
    if *weather.borrow() == Weather::Reset {
        return Ok(());
    }
    let server = TcpStream::connect(upstream).await?;
    server.set_zero_linger()?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let answered = AtomicU64::new(0);
    let asked = pump(from_client, to_server, weather.clone(), None);
    let answers = pump(from_server, to_client, weather.clone(), Some(&answered));
    tokio::select! {
        passed = async { tokio::try_join!(asked, answers) } => { passed?; }
        reset = weather.wait_for(|weather| *weather == Weather::Reset) => { reset.ok(); }
    }
    // Without lingering, dropping both halves sends a reset unless all was closed properly before.
    Ok(())
}

/// Passes bytes in one direction until its end. Counts them in `answered`, for cuts.
async fn pump(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut weather: watch::Receiver<Weather>,
    answered: Option<&AtomicU64>,
) -> io::Result<()> {
    let mut buffer = vec![0; 16 << 10];
    loop {
        let length = from.read(&mut buffer).await?;
        let now = *weather
            .wait_for(|weather| *weather != Weather::BlackHole)
            .await
            .map_err(|_| io::ErrorKind::ConnectionAborted)?;
        if length == 0 {
            return to.shutdown().await;
        }
        if let Weather::Slow(delay) = now {
            sleep(delay).await;
        }
        let mut allowed = length;
        if let (Weather::CutAfter(most), Some(answered)) = (now, answered) {
            let left = most.saturating_sub(answered.load(Ordering::Relaxed));
            allowed = usize::try_from(left).unwrap_or(usize::MAX).min(length);
        }
        to.write_all(&buffer[..allowed]).await?;
        if let Some(answered) = answered {
            answered.fetch_add(allowed as u64, Ordering::Relaxed);
        }
        if allowed < length {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
}
