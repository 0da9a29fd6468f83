//! What is said to whoever listens now: a direct exchange that keeps nothing, and for each listener a queue of its own
//! that ends with its connection. Nothing is confirmed or acknowledged, and what can't be sent at once is dropped.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::StreamExt;
use lapin::options::{
    BasicConsumeOptions, BasicPublishOptions, ExchangeDeclareOptions, QueueBindOptions,
    QueueDeclareOptions,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use lapin::{BasicProperties, Channel, ExchangeKind};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::Shared;
use super::failure::Failure;
use super::link::{self, Link, Live};
use super::topology::short;
use crate::{Listener, MAX_WHISPER, WAITING_WHISPERS};

const EXCHANGE: &str = "agent_whispers";
/// How long handing one over to the connection may take.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long nothing is said after it did not work.
const REST: Duration = Duration::from_millis(500);
/// How many wait with the broker for one listener, in number, bytes and milliseconds; the oldest make room.
const KEPT: (i64, i64, i64) = (4096, 16 << 20, 10_000);

/// Sends whispers.
pub(super) struct Whispers {
    exchange: ShortString,
    waiting: mpsc::Sender<(ShortString, Vec<u8>)>,
}

impl Whispers {
    pub(super) fn start(
        prefix: &str,
        link: Link,
        end: CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<Self, Failure> {
        let exchange = short(format!("{prefix}{EXCHANGE}"))?;
        let (waiting, next) = mpsc::channel(WAITING_WHISPERS);
        let mouth = Mouth {
            link,
            exchange: exchange.clone(),
            lane: None,
            rest: None,
        };
        tasks.spawn(async move {
            end.run_until_cancelled(mouth.run(next)).await;
        });
        Ok(Self { exchange, waiting })
    }

    pub(super) fn say(&self, channel: &str, words: Vec<u8>) {
        if words.len() > MAX_WHISPER {
            tracing::debug!(channel, bytes = words.len(), "too long for a whisper");
            return;
        }
        if let Ok(channel) = short(channel.to_owned()) {
            // Full: the broker is slow or away, and what waits is old enough.
            self.waiting.try_send((channel, words)).ok();
        }
    }
}

struct Mouth {
    link: Link,
    exchange: ShortString,
    lane: Option<(Arc<Live>, Channel)>,
    /// Not to try before.
    rest: Option<Instant>,
}

impl Mouth {
    async fn run(mut self, mut next: mpsc::Receiver<(ShortString, Vec<u8>)>) {
        while let Some((channel, words)) = next.recv().await {
            if self.rest.is_some_and(|until| Instant::now() < until) {
                continue;
            }
            self.rest = None;
            if let Err(failure) = self.say(channel, &words).await {
                tracing::debug!(error = failure.message(), "a whisper was not sent");
                self.lane = None;
                self.rest = Some(Instant::now() + REST);
            }
        }
    }

    async fn say(&mut self, channel: ShortString, words: &[u8]) -> Result<(), Failure> {
        let is_open = |lane: &(Arc<Live>, Channel)| lane.1.status().connected();
        if !self.lane.as_ref().is_some_and(is_open) {
            // Whoever has to wait for a connection has nothing to say any more.
            let live = self.link.up(Instant::now()).await?;
            let opened = self.link.channel(&live).await?;
            declare_exchange(&self.link, &live, &opened, &self.exchange).await?;
            self.lane = Some((live, opened));
        }
        let Some((live, lane)) = &self.lane else {
            return Ok(());
        };
        if live.is_blocked() {
            return Err(link::blocked());
        }
        let sent = lane.basic_publish(
            self.exchange.clone(),
            channel,
            BasicPublishOptions::default(),
            words,
            BasicProperties::default(),
        );
        match timeout(PATIENCE, sent).await {
            // Nothing is confirmed on this channel, so there is nothing to wait for.
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Failure::of("not whispered", error)),
            Err(_) => Err(Failure::unavailable("RabbitMQ takes no whispers now")),
        }
    }
}

async fn declare_exchange(
    link: &Link,
    live: &Live,
    channel: &Channel,
    exchange: &ShortString,
) -> Result<(), Failure> {
    let options = ExchangeDeclareOptions::default();
    let arguments = FieldTable::default();
    let declared =
        channel.exchange_declare(exchange.clone(), ExchangeKind::Direct, options, arguments);
    let what = format!("the exchange {:?} can't be declared", exchange.as_str());
    link.call(live, &what, declared).await
}

/// Begins to listen.
///
/// # Errors
/// What keeps it from hearing now.
pub(super) async fn listen(shared: &Arc<Shared>, channels: &[String]) -> Result<Hearing, Failure> {
    let channels = channels
        .iter()
        .map(|channel| short(channel.clone()))
        .collect::<Result<_, _>>()?;
    let (ear, heard) = mpsc::channel(WAITING_WHISPERS);
    let (tell, begun) = oneshot::channel();
    let listening = Listening {
        shared: Arc::clone(shared),
        channels,
        ear,
    };
    // A task of its own: a consumer whose making is abandoned half way stays with the broker.
    shared.tasks.spawn(listening.run(tell));
    match begun.await {
        Ok(Ok(())) => Ok(Hearing(heard)),
        Ok(Err(failure)) => Err(failure),
        Err(_) => Err(Failure::closed()),
    }
}

pub(super) struct Hearing(mpsc::Receiver<Vec<u8>>);

#[async_trait]
impl Listener for Hearing {
    async fn next(&mut self) -> Option<Vec<u8>> {
        self.0.recv().await
    }
}

struct Listening {
    shared: Arc<Shared>,
    channels: Vec<ShortString>,
    ear: mpsc::Sender<Vec<u8>>,
}

impl Listening {
    async fn run(self, tell: oneshot::Sender<Result<(), Failure>>) {
        let closed = self.shared.closed.clone();
        tokio::select! {
            () = closed.cancelled() => {}
            () = self.ear.closed() => {}
            () = self.hear(tell) => {}
        }
    }

    async fn hear(&self, tell: oneshot::Sender<Result<(), Failure>>) {
        let mut first = Some(tell);
        let mut failures = 0_u32;
        loop {
            let failure = match self.begin().await {
                Ok(mut consumer) => {
                    failures = 0;
                    if let Some(first) = first.take() {
                        first.send(Ok(())).ok();
                    }
                    self.pass_on(&mut consumer).await
                }
                Err(failure) => failure,
            };
            if let Some(first) = first.take() {
                first.send(Err(failure)).ok();
                return;
            }
            failures = failures.saturating_add(1);
            if link::is_worth_telling(failures) {
                tracing::warn!(
                    failures,
                    error = failure.message(),
                    "words of running answers are not heard from other processes, listening begins anew"
                );
            }
            tokio::time::sleep(link::pause(failures)).await;
        }
    }

    async fn begin(&self) -> Result<lapin::Consumer, Failure> {
        let link = &self.shared.incoming;
        let live = link.up(self.shared.deadline()).await?;
        let channel = link.channel(&live).await?;
        let exchange = &self.shared.whispers.exchange;
        declare_exchange(link, &live, &channel, exchange).await?;
        let options = QueueDeclareOptions {
            exclusive: true,
            auto_delete: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel.queue_declare(ShortString::default(), options, bounded());
        let queue = link.call(&live, "no queue for whispers", declared).await?;
        let queue = queue.name().clone();
        for key in &self.channels {
            let bound = channel.queue_bind(
                queue.clone(),
                exchange.clone(),
                key.clone(),
                QueueBindOptions::default(),
                FieldTable::default(),
            );
            link.call(&live, "whispers are not bound", bound).await?;
        }
        let options = BasicConsumeOptions {
            no_ack: true,
            exclusive: true,
            ..BasicConsumeOptions::default()
        };
        let consumed = channel.basic_consume(
            queue,
            ShortString::default(),
            options,
            FieldTable::default(),
        );
        link.call(&live, "whispers can't be heard", consumed).await
    }

    /// Until it ends.
    async fn pass_on(&self, consumer: &mut lapin::Consumer) -> Failure {
        loop {
            match consumer.next().await {
                // Full: whoever hears too slowly misses it, and nothing piles up.
                Some(Ok(arrival)) => drop(self.ear.try_send(arrival.data)),
                Some(Err(error)) => return Failure::of("listening ended", error),
                None => return Failure::unavailable("RabbitMQ ended the listener"),
            }
        }
    }
}

fn bounded() -> FieldTable {
    let mut arguments = FieldTable::default();
    let (number, bytes, milliseconds) = KEPT;
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(number));
    arguments.insert("x-max-length-bytes".into(), AMQPValue::LongLongInt(bytes));
    arguments.insert(
        "x-overflow".into(),
        AMQPValue::LongString(LongString::from("drop-head")),
    );
    arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(milliseconds));
    arguments
}
