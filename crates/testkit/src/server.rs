//! A small HTTP server on a thread of its own, whose connections can be broken on demand.
//!
//! A stand-in must not share the runtime of the test: a test may pause its clock or block its only
//! thread, and the stand-in has to go on like the real provider would. Dropping a [`Server`] is the
//! death of the provider: the port closes and every open connection breaks.

use std::future::Future;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::thread::JoinHandle;

use axum::Router;
use axum::extract::connect_info::Connected;
use axum::serve::{IncomingStream, Listener};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// Serves one router on 127.0.0.1 until it is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Binds `port` (0 lets the system choose) and serves `router`. Connections that arrive after this
    /// call returns are answered.
    pub(crate) fn start(port: u16, router: Router) -> io::Result<Self> {
        let (listener, address) = bind(port)?;
        let (stop, stopped) = oneshot::channel();
        let thread = on_own_thread("testkit-http", async move {
            let door = Door(TcpListener::from_std(listener).expect("a bound listener"));
            let service = router.into_make_service_with_connect_info::<Link>();
            tokio::select! {
                served = axum::serve(door, service) => served.expect("serving does not end"),
                _ = stopped => {}
            }
        });
        Ok(Self {
            address,
            stop: Some(stop),
            thread: Some(thread),
        })
    }

    /// Returns the address that the server listens on.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the server's thread does not panic");
        }
    }
}

/// Binds a loopback port for use with tokio.
pub(crate) fn bind(port: u16) -> io::Result<(std::net::TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, port))?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// Runs `work` on a new thread with a runtime of its own. All that it spawned ends with it.
pub(crate) fn on_own_thread(
    name: &str,
    work: impl Future<Output = ()> + Send + 'static,
) -> JoinHandle<()> {
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .expect("a runtime")
                .block_on(work);
        })
        .expect("a thread")
}

/// A handle on the connection that a request came in by.
#[derive(Clone, Debug, Default)]
pub(crate) struct Link(CancellationToken);

impl Link {
    /// Resets the connection, whatever was sent so far. Never returns: the caller's connection is gone.
    pub(crate) async fn sever(&self) -> ! {
        self.0.cancel();
        std::future::pending().await
    }
}

impl Connected<IncomingStream<'_, Door>> for Link {
    fn connect_info(stream: IncomingStream<'_, Door>) -> Self {
        stream.remote_addr().clone()
    }
}

/// Hands out connections together with their [`Link`], in the place of the peer's address.
pub(crate) struct Door(TcpListener);

impl Listener for Door {
    type Io = Line;
    type Addr = Link;

    async fn accept(&mut self) -> (Line, Link) {
        let (stream, _) = Listener::accept(&mut self.0).await;
        stream.set_nodelay(true).ok();
        let link = Link::default();
        let severed = Box::pin(link.0.clone().cancelled_owned());
        (Line { stream, severed }, link)
    }

    fn local_addr(&self) -> io::Result<Link> {
        Ok(Link::default())
    }
}

/// A TCP stream that turns into a reset connection once its [`Link`] is severed.
pub(crate) struct Line {
    stream: TcpStream,
    severed: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Line {
    fn check(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.severed.as_mut().poll(cx) {
            Poll::Ready(()) => {
                self.stream.set_zero_linger()?;
                Err(io::ErrorKind::ConnectionReset.into())
            }
            Poll::Pending => Ok(()),
        }
    }
}

impl AsyncRead for Line {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Line {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check(cx)?;
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
