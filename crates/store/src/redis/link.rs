//! The one connection, and the task that keeps it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, RedisError, Script, Value};
use secrecy::ExposeSecret;
use tokio::sync::Notify;
use tokio::time::{Instant, timeout};

use super::Settings;
use super::trouble::{Fault, is_foreign, why};
use crate::cache::{Away, FORMAT};
use crate::counters::LocalCounters;

/// Answers the pauses that hold, and shows by a write that the server can be written.
const LOOK: &str = include_str!("look.lua");

/// What all calls share.
pub(super) struct Link {
    client: Client,
    settings: Settings,
    prefix: String,
    state: Mutex<State>,
    lost: Notify,
    look: Script,
    /// What this process counts by itself; the pauses that others asked for are in it too.
    pub(super) local: LocalCounters,
}

enum State {
    Up {
        connection: MultiplexedConnection,
        /// Which one it is: a late error of an earlier one says nothing of it.
        number: u64,
    },
    Away {
        why: String,
        since: Instant,
        /// How many there were.
        number: u64,
    },
}

/// The task that keeps the connection; it ends with the value.
pub(super) struct Keeper(tokio::task::AbortHandle);

impl Keeper {
    pub(super) fn start(link: Arc<Link>) -> Self {
        Self(tokio::spawn(async move { link.keep().await }).abort_handle())
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Link {
    pub(super) fn new(settings: Settings) -> Result<Self, Away> {
        let client = Client::open(settings.url.expose_secret()).map_err(|error| {
            Away(format!(
                "the address can't be understood: {}",
                error.category()
            ))
        })?;
        let prefix = format!("agentrunner:{FORMAT}:{}", settings.store);
        Ok(Self {
            client,
            settings,
            prefix,
            state: Mutex::new(State::Away {
                why: "it is being connected to".to_owned(),
                since: Instant::now(),
                number: 0,
            }),
            lost: Notify::new(),
            look: Script::new(LOOK),
            local: LocalCounters::default(),
        })
    }

    /// The key of something of one kind.
    pub(super) fn key(&self, kind: &str, name: &str) -> String {
        format!("{}:{kind}:{name}", self.prefix)
    }

    pub(super) fn health(&self) -> Result<(), Away> {
        match &*self.lock() {
            State::Up { .. } => Ok(()),
            State::Away { why, .. } => Err(Away(why.clone())),
        }
    }

    /// Asks the server, if there is a connection, for as long as [`Settings::patience`].
    pub(super) async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, Fault> {
        let (mut connection, number) = self.connection().ok_or(Fault::Away)?;
        let answer = command.query_async(&mut connection);
        self.judge(number, timeout(self.settings.patience, answer).await)
    }

    /// The same for a script with one key.
    pub(super) async fn run<T: FromRedisValue>(
        &self,
        script: &Script,
        key: &str,
        arguments: &[&[u8]],
    ) -> Result<T, Fault> {
        let (mut connection, number) = self.connection().ok_or(Fault::Away)?;
        let mut call = script.key(key);
        for argument in arguments {
            call.arg(*argument);
        }
        let answer = call.invoke_async(&mut connection);
        self.judge(number, timeout(self.settings.patience, answer).await)
    }

    fn judge<T, E>(
        &self,
        number: u64,
        answer: Result<Result<T, RedisError>, E>,
    ) -> Result<T, Fault> {
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) if is_foreign(&error) => Err(Fault::Foreign),
            Ok(Err(error)) => {
                self.lose(number, why(&error));
                Err(Fault::Away)
            }
            Err(_) => {
                self.lose(number, SLOW.to_owned());
                Err(Fault::Away)
            }
        }
    }

    /// Makes a connection and sees whether the server works.
    pub(super) async fn connect(&self) -> Result<(), Away> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.settings.connect_timeout))
            .set_response_timeout(Some(self.settings.connect_timeout));
        let attempt = async {
            let mut connection = self
                .client
                .get_multiplexed_async_connection_with_config(&config)
                .await
                .map_err(|error| Away(why(&error)))?;
            self.look(&mut connection).await?;
            Ok(connection)
        };
        // The whole of it: the crate's time-outs are for parts.
        let attempt = timeout(self.settings.connect_timeout, attempt).await;
        let connection = attempt.map_err(|_| Away(SLOW.to_owned()))??;
        let mut state = self.lock();
        let State::Away { number, .. } = *state else {
            return Ok(());
        };
        let number = number + 1;
        *state = State::Up { connection, number };
        Ok(())
    }

    /// Goes on for ever: looks at the server, connects anew when it is lost, and says so, once each time.
    async fn keep(&self) {
        loop {
            let pause = tokio::time::sleep(self.settings.look_period);
            tokio::select! {
                () = pause => {}
                // Whoever lost it said so.
                () = self.lost.notified() => tokio::time::sleep(self.settings.look_period).await,
            }
            if let Some((mut connection, number)) = self.connection() {
                if let Err(Away(why)) = self.look(&mut connection).await {
                    self.lose(number, why);
                }
                continue;
            }
            let since = self.since();
            match self.connect().await {
                Ok(()) => tracing::info!(
                    "cache: Redis at {} is back after {} s",
                    self.settings.place,
                    since.elapsed().as_secs()
                ),
                Err(Away(why)) => self.remember(why),
            }
        }
    }

    /// Reads and writes something trivial, and learns which pauses others asked for.
    async fn look(&self, connection: &mut MultiplexedConnection) -> Result<(), Away> {
        let (pauses, probe) = (self.key("pauses", "all"), self.key("probe", "all"));
        // More patient than a call: a machine that is busy for a moment is no lost server.
        let patience = self
            .settings
            .patience
            .max(self.settings.connect_timeout / 2);
        let mut call = self.look.key(&pauses);
        let asked = call
            .key(&probe)
            .invoke_async::<Vec<(Vec<u8>, i64)>>(connection);
        let asked = timeout(patience, asked);
        let found = match asked.await {
            Err(_) => return Err(Away(SLOW.to_owned())),
            Ok(Err(error)) if is_foreign(&error) => {
                let mut forget = ::redis::cmd("UNLINK");
                forget.arg(&pauses).arg(&probe);
                let forgotten = timeout(patience, forget.exec_async(connection)).await;
                return match forgotten {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(error)) => Err(Away(why(&error))),
                    Err(_) => Err(Away(SLOW.to_owned())),
                };
            }
            Ok(Err(error)) => return Err(Away(why(&error))),
            Ok(Ok(found)) => found,
        };
        for (name, millis) in found {
            let lasting = Duration::from_millis(u64::try_from(millis).unwrap_or_default());
            if let Ok(name) = String::from_utf8(name) {
                self.local.pause_now(&name, lasting);
            }
        }
        Ok(())
    }

    /// The server's version. That it is not told is no trouble: a user may be forbidden to ask.
    pub(super) async fn version(&self) -> Option<String> {
        let (mut connection, _) = self.connection()?;
        // Not INFO: HELLO is allowed to every user who may connect.
        let hello = ::redis::cmd("HELLO");
        let asked = hello.query_async::<Value>(&mut connection);
        let answer = timeout(self.settings.connect_timeout, asked).await.ok()?;
        let pairs = match answer.ok()? {
            Value::Map(pairs) => pairs,
            Value::Array(flat) => {
                let (names, values) = (flat.iter().step_by(2), flat.iter().skip(1).step_by(2));
                names.cloned().zip(values.cloned()).collect()
            }
            _ => return None,
        };
        let text = |value: Value| String::from_redis_value(value).ok();
        let version = pairs
            .into_iter()
            .find(|(name, _)| text(name.clone()).as_deref() == Some("version"));
        text(version?.1)
    }

    fn connection(&self) -> Option<(MultiplexedConnection, u64)> {
        match &*self.lock() {
            State::Up { connection, number } => Some((connection.clone(), *number)),
            State::Away { .. } => None,
        }
    }

    fn since(&self) -> Instant {
        match &*self.lock() {
            State::Up { .. } => Instant::now(),
            State::Away { since, .. } => *since,
        }
    }

    /// Takes a connection away from everybody. Only the first to do so says it.
    fn lose(&self, number: u64, why: String) {
        let mut state = self.lock();
        if !matches!(&*state, State::Up { number: current, .. } if *current == number) {
            return;
        }
        *state = State::Away {
            why: why.clone(),
            since: Instant::now(),
            number,
        };
        drop(state);
        self.say_away(&why);
        self.lost.notify_one();
    }

    /// Keeps why it is still away, for whoever asks.
    pub(super) fn remember(&self, reason: String) {
        if let State::Away { why, .. } = &mut *self.lock()
            && *why != reason
        {
            tracing::debug!("cache: Redis at {}: {reason}", self.settings.place);
            *why = reason;
        }
    }

    pub(super) fn say_away(&self, why: &str) {
        tracing::warn!(
            "cache: Redis at {} can't be used: {why}. Reading goes past it until it is back: that takes longer, and changes nothing else",
            self.settings.place
        );
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

const SLOW: &str = "it does not answer in time";
