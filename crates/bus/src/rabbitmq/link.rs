//! One connection that is made anew whenever it breaks.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::{Stream, StreamExt};
use lapin::tcp::{AMQPUriTcpExt, OwnedTLSConfig};
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{AsyncTcpStream, Channel, Connection, ConnectionProperties, Event};
use secrecy::ExposeSecret;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Settings;
use super::failure::Failure;

/// How often each side tells the other that it lives, in seconds. Twice that silent, a connection is dead.
const HEARTBEAT: u16 = 10;
/// How long to rest after the first failure, and at most.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// How long to rest after the `failures`-th failure in a row. A part of it is random, so that many processes don't
/// come back to a restarted broker in step.
pub(super) fn pause(failures: u32) -> Duration {
    let doubled = 1_u32 << failures.saturating_sub(1).min(16);
    let whole = FIRST_PAUSE.saturating_mul(doubled).min(LONGEST_PAUSE);
    let dice = RandomState::new().hash_one(failures) % 1024;
    whole.mul_f64(0.5 + f64::from(u32::try_from(dice).unwrap_or(0)) / 2048.0)
}

/// Whether the `number`-th of a row of like things is worth a line: the 1st, 2nd, 4th, 8th … is.
pub(super) fn is_worth_telling(number: u32) -> bool {
    number.is_power_of_two()
}

/// Which broker, and what for.
#[derive(Clone)]
pub(super) struct Target {
    uri: AMQPUri,
    purpose: &'static str,
    timeout: Duration,
}

impl Target {
    /// # Errors
    /// When the URL is none. The URL is not in the message: it has a password.
    pub(super) fn new(settings: &Settings) -> Result<Self, Failure> {
        let uri = settings.url.expose_secret().parse::<AMQPUri>();
        let mut uri = uri.map_err(|_| {
            Failure::refused(
                "the URL of RabbitMQ is not amqp://user:password@host:port/vhost, \
                 with amqps for TLS and with special characters percent-encoded",
            )
        })?;
        if uri.vhost.is_empty() {
            "/".clone_into(&mut uri.vhost);
        }
        uri.query.heartbeat.get_or_insert(HEARTBEAT);
        Ok(Self {
            uri,
            purpose: "",
            timeout: settings.timeout,
        })
    }

    pub(super) fn to(&self, purpose: &'static str) -> Self {
        Self {
            purpose,
            ..self.clone()
        }
    }

    fn address(&self) -> String {
        format!("{}:{}", self.uri.authority.host, self.uri.authority.port)
    }

    /// Says what a failed attempt means.
    fn explain(&self, error: lapin::Error) -> Failure {
        let address = self.address();
        let (user, vhost) = (&self.uri.authority.userinfo.username, &self.uri.vhost);
        let failure = Failure::of(
            format_args!("no connection to RabbitMQ at {address}"),
            error,
        );
        if failure.is_locked_out() {
            let message = format!(
                "RabbitMQ at {address} refuses the user {user:?}: the name or the password is wrong, \
                 or it may not use the virtual host {vhost:?}"
            );
            return failure.told(message);
        }
        if failure.is_final() {
            let message = format!(
                "{}; does the virtual host {vhost:?} exist, and may {user:?} use it?",
                failure.message()
            );
            return failure.told(message);
        }
        failure
    }

    fn silent(&self) -> Failure {
        Failure::unavailable(format!(
            "RabbitMQ at {} does not answer within {:?}; does something else listen there, or does a firewall \
             swallow the packets?",
            self.address(),
            self.timeout
        ))
    }
}

/// A connection that works, or did a moment ago.
pub(super) struct Live {
    /// Which one of its link it is.
    number: u64,
    connection: Connection,
    socket: Socket,
}

impl Live {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Whether the broker is short of memory or disk and reads no publishes.
    pub(super) fn is_blocked(&self) -> bool {
        self.connection.status().blocked()
    }
}

/// The way to cut a connection off. lapin's thread would wait for a silent broker until the heartbeat fails, or for
/// ever while it still connects.
#[derive(Clone, Default)]
struct Socket(Arc<Mutex<SocketState>>);

#[derive(Default)]
enum SocketState {
    #[default]
    None,
    Open(TcpStream),
    Cut,
}

impl Socket {
    fn lock(&self) -> std::sync::MutexGuard<'_, SocketState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn hold(&self, stream: TcpStream) -> io::Result<()> {
        let mut state = self.lock();
        if matches!(*state, SocketState::Cut) {
            return stream.shutdown(Shutdown::Both);
        }
        *state = SocketState::Open(stream);
        Ok(())
    }

    fn cut(&self) {
        if let SocketState::Open(stream) = std::mem::replace(&mut *self.lock(), SocketState::Cut) {
            // It fails when the connection is gone already.
            stream.shutdown(Shutdown::Both).ok();
        }
    }
}

#[derive(Clone)]
enum State {
    Starting,
    Up(Arc<Live>),
    Down(Failure),
    Ended,
}

/// Hands out the connection of the moment.
#[derive(Clone)]
pub(super) struct Link {
    state: watch::Receiver<State>,
    doubts: mpsc::Sender<u64>,
    timeout: Duration,
}

impl Link {
    /// Connects in the background until `end`.
    pub(super) fn start(target: Target, end: CancellationToken, tasks: &TaskTracker) -> Self {
        let (tell, state) = watch::channel(State::Starting);
        let (doubts, doubted) = mpsc::channel(1);
        let timeout = target.timeout;
        tasks.spawn(supervise(target, tell, doubted, end));
        Self {
            state,
            doubts,
            timeout,
        }
    }

    /// The connection, as soon as there is one.
    ///
    /// # Errors
    /// What stands in its way at the deadline.
    pub(super) async fn up(&self, deadline: Instant) -> Result<Arc<Live>, Failure> {
        let mut state = self.state.clone();
        let settled = |state: &State| matches!(state, State::Up(_) | State::Ended);
        if let Ok(state) = timeout_at(deadline, state.wait_for(settled)).await {
            return state.map_or_else(|_| Err(Failure::closed()), |state| outcome(&state));
        }
        outcome(&self.state.borrow())
    }

    /// The outcome of the first attempt.
    pub(super) async fn first(&self) -> Result<Arc<Live>, Failure> {
        let mut state = self.state.clone();
        let tried = state
            .wait_for(|state| !matches!(state, State::Starting))
            .await;
        tried.map_or_else(|_| Err(Failure::closed()), |state| outcome(&state))
    }

    /// Opens a channel.
    pub(super) async fn channel(&self, live: &Live) -> Result<Channel, Failure> {
        self.call(live, "no channel", live.connection.create_channel())
            .await
    }

    /// Waits for the answer to a request, but not for ever. `what` says what came of it when none comes.
    pub(super) async fn call<T>(
        &self,
        live: &Live,
        what: &str,
        request: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, Failure> {
        self.call_within(self.timeout, live, what, request).await
    }

    /// The same with other patience.
    pub(super) async fn call_within<T>(
        &self,
        patience: Duration,
        live: &Live,
        what: &str,
        request: impl Future<Output = lapin::Result<T>>,
    ) -> Result<T, Failure> {
        match timeout(patience, request).await {
            Ok(answer) => answer.map_err(|error| Failure::of(what, error)),
            Err(_) => {
                self.doubt(live);
                let message = format!("{what}: RabbitMQ does not answer within {patience:?}");
                Err(Failure::unavailable(message))
            }
        }
    }

    /// Has a connection looked into that does not answer.
    pub(super) fn doubt(&self, live: &Live) {
        // Full: it is being looked into.
        self.doubts.try_send(live.number).ok();
    }

    /// Asks the broker something.
    pub(super) async fn check(&self) -> Result<(), Failure> {
        let live = self.up(Instant::now() + self.timeout).await?;
        if live.is_blocked() {
            return Err(blocked());
        }
        self.channel(&live).await.map(drop)
    }
}

/// What publishing meets when the broker has raised an alarm.
pub(super) fn blocked() -> Failure {
    Failure::unavailable(
        "RabbitMQ blocks publishers: it is short of memory or disk (rabbitmq-diagnostics alarms)",
    )
}

fn outcome(state: &State) -> Result<Arc<Live>, Failure> {
    match state {
        State::Up(live) => Ok(Arc::clone(live)),
        State::Down(failure) => Err(failure.clone()),
        State::Starting => Err(Failure::unavailable("RabbitMQ is not connected yet")),
        State::Ended => Err(Failure::closed()),
    }
}

/// Connects, watches, and connects again.
async fn supervise(
    target: Target,
    tell: watch::Sender<State>,
    mut doubted: mpsc::Receiver<u64>,
    end: CancellationToken,
) {
    let (address, purpose) = (target.address(), target.purpose);
    let (mut number, mut failures) = (0, 0_u32);
    while let Some(attempt) = end.run_until_cancelled(connect(&target)).await {
        let failure = match attempt {
            Ok((connection, socket)) => {
                tracing::info!(address, purpose, failures, "connected to RabbitMQ");
                number += 1;
                failures = 0;
                let live = Arc::new(Live {
                    number,
                    connection,
                    socket,
                });
                tell.send_replace(State::Up(Arc::clone(&live)));
                let watched = watch_over(&live, &mut doubted, target.timeout);
                let Some(failure) = end.run_until_cancelled(watched).await else {
                    let goodbye = live.connection.close(200, "goodbye".into());
                    // In vain when it is gone already.
                    timeout(target.timeout, goodbye).await.ok();
                    live.socket.cut();
                    break;
                };
                live.socket.cut();
                tracing::warn!(
                    address,
                    purpose,
                    error = failure.message(),
                    "the connection to RabbitMQ broke, connecting again"
                );
                failure
            }
            Err(failure) => {
                failures = failures.saturating_add(1);
                if is_worth_telling(failures) {
                    tracing::warn!(
                        address,
                        purpose,
                        failures,
                        error = failure.message(),
                        "can't connect to RabbitMQ, trying again"
                    );
                }
                failure
            }
        };
        tell.send_replace(State::Down(failure));
        let rest = tokio::time::sleep(pause(failures));
        if end.run_until_cancelled(rest).await.is_none() {
            break;
        }
    }
    tell.send_replace(State::Ended);
}

async fn connect(target: &Target) -> Result<(Connection, Socket), Failure> {
    let socket = Socket::default();
    let properties = ConnectionProperties::default()
        .with_connection_name(format!("agentrunner: {}", target.purpose).into());
    let runtime =
        lapin::runtime::default_runtime().map_err(|error| Failure::of("no runtime", error))?;
    let (held, patience, reactor) = (socket.clone(), target.timeout, runtime.clone());
    // Runs on lapin's thread, where nobody but this could give it up.
    let dial = async move |uri: AMQPUri, _| {
        let mut plain = uri.clone();
        plain.scheme = AMQPScheme::AMQP;
        let dialled = timeout(patience, async {
            let stream = plain
                .connect_with_config_async(OwnedTLSConfig::default().as_ref(), &reactor)
                .await?;
            if let AsyncTcpStream::Plain(stream) = &stream {
                let stream = stream.get_ref();
                stream.set_nodelay(true)?;
                held.hold(stream.as_fd().try_clone_to_owned()?.into())?;
            }
            match uri.scheme {
                AMQPScheme::AMQP => Ok(stream),
                AMQPScheme::AMQPS => {
                    let tls = OwnedTLSConfig::default();
                    stream.into_tls(&uri.authority.host, tls.as_ref()).await
                }
            }
        });
        let dialled = dialled
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        dialled.map_err(lapin::Error::from)
    };
    let connecting = Connection::connector(target.uri.clone(), runtime, dial, properties);
    match timeout(target.timeout, connecting).await {
        Ok(Ok(connection)) => Ok((connection, socket)),
        Ok(Err(error)) => {
            socket.cut();
            Err(target.explain(error))
        }
        Err(_) => {
            socket.cut();
            Err(target.silent())
        }
    }
}

/// Returns when the connection is of no more use.
async fn watch_over(live: &Live, doubted: &mut mpsc::Receiver<u64>, patience: Duration) -> Failure {
    let mut events = Box::pin(live.connection.events_listener());
    let mut glance = interval(Duration::from_secs(1));
    glance.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            failure = broken(live, &mut events) => return failure,
            // The event of its end may have come before anybody listened.
            _ = glance.tick() => if !live.connection.status().connected() {
                return Failure::unavailable("the connection is closed");
            },
            Some(number) = doubted.recv() => {
                // It reads nothing while it blocks publishers, and a new connection would fare no better.
                if number == live.number && !live.is_blocked() {
                    match timeout(patience, live.connection.create_channel()).await {
                        Ok(Ok(_)) => {}
                        Ok(Err(error)) => return Failure::of("the connection is of no use", error),
                        Err(_) => {
                            let message = format!("RabbitMQ did not answer within {patience:?}");
                            return Failure::unavailable(message);
                        }
                    }
                }
            }
        }
    }
}

async fn broken(live: &Live, events: &mut (impl Stream<Item = Event> + Unpin)) -> Failure {
    loop {
        match events.next().await {
            // That of a channel, which whoever used it has heard of.
            Some(Event::Error(_)) if live.connection.status().connected() => {}
            Some(Event::Error(error)) => return Failure::of("the connection broke", error),
            Some(Event::ConnectionBlocked(reason)) => {
                tracing::warn!(reason, "RabbitMQ blocks publishers");
            }
            Some(Event::ConnectionUnblocked) => {
                tracing::info!("RabbitMQ takes publishes again");
            }
            Some(_) => {}
            None => return Failure::unavailable("the connection ended"),
        }
    }
}
