//! Publishes with confirms, on one channel that is opened again when it breaks.

use std::sync::Arc;
use std::time::Duration;

use lapin::options::{BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions};
use lapin::types::{FieldTable, ShortString};
use lapin::{BasicProperties, Channel, Confirmation, ExchangeKind};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::Settings;
use super::failure::Failure;
use super::link::{self, Link, Live};

/// Something to publish.
pub(super) struct Parcel {
    /// Empty: the routing key is a queue's name.
    pub(super) exchange: ShortString,
    pub(super) routing_key: ShortString,
    pub(super) properties: BasicProperties,
    pub(super) body: Vec<u8>,
}

/// What became of a parcel that the broker confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is in every queue that wants it, which may be none for an exchange.
    Kept,
    /// There is no such queue. Nothing was kept.
    NoQueue,
}

pub(super) struct Publisher {
    link: Link,
    exchange: ShortString,
    lane: Mutex<Option<Lane>>,
    /// For one confirm.
    timeout: Duration,
}

/// A channel for publishing.
#[derive(Clone)]
struct Lane {
    live: Arc<Live>,
    channel: Channel,
}

impl Publisher {
    pub(super) fn new(link: Link, exchange: ShortString, settings: &Settings) -> Self {
        Self {
            link,
            exchange,
            lane: Mutex::default(),
            timeout: settings.timeout,
        }
    }

    pub(super) fn link(&self) -> &Link {
        &self.link
    }

    /// Publishes until the broker confirms, over lost connections too.
    ///
    /// # Errors
    /// When it refuses, or at the deadline. It may have the parcel all the same.
    pub(super) async fn send(&self, parcel: &Parcel, deadline: Instant) -> Result<Sent, Failure> {
        let mut failures = 0;
        loop {
            let failure = match self.attempt(parcel, deadline).await {
                Ok(sent) => return Ok(sent),
                Err(failure) => failure,
            };
            failures += 1;
            let next = Instant::now() + link::pause(failures);
            if failure.is_final() || next >= deadline {
                return Err(failure);
            }
            tracing::debug!(error = failure.message(), "a publish failed, trying again");
            tokio::time::sleep_until(next).await;
        }
    }

    async fn attempt(&self, parcel: &Parcel, deadline: Instant) -> Result<Sent, Failure> {
        let lane = self.lane(deadline).await?;
        if lane.live.is_blocked() {
            return Err(link::blocked());
        }
        let to_queue = parcel.exchange.as_str().is_empty();
        let options = BasicPublishOptions {
            mandatory: to_queue,
            ..BasicPublishOptions::default()
        };
        let confirmed = timeout(self.timeout, async {
            let confirm = lane.channel.basic_publish(
                parcel.exchange.clone(),
                parcel.routing_key.clone(),
                options,
                &parcel.body,
                parcel.properties.clone(),
            );
            confirm.await?.await
        });
        match confirmed.await {
            Ok(Ok(Confirmation::Ack(None))) => Ok(Sent::Kept),
            Ok(Ok(Confirmation::Ack(Some(_)))) => Ok(Sent::NoQueue),
            Ok(Ok(Confirmation::Nack(_) | Confirmation::NotRequested)) => {
                let message =
                    "RabbitMQ did not store the event: a queue is full or has no majority";
                Err(Failure::unavailable(message))
            }
            Ok(Err(error)) => {
                self.leave(&lane).await;
                Err(Failure::of("not published", error))
            }
            Err(_) if lane.live.is_blocked() => Err(link::blocked()),
            Err(_) => {
                self.link.doubt(&lane.live);
                self.leave(&lane).await;
                let message = format!("RabbitMQ did not confirm within {:?}", self.timeout);
                Err(Failure::unavailable(message))
            }
        }
    }

    /// The channel, opened when there is none that works.
    async fn lane(&self, deadline: Instant) -> Result<Lane, Failure> {
        let mut lane = self.lane.lock().await;
        if let Some(lane) = &*lane
            && lane.channel.status().connected()
        {
            return Ok(lane.clone());
        }
        *lane = None;
        let opened = self.open(deadline).await?;
        Ok(lane.insert(opened).clone())
    }

    async fn open(&self, deadline: Instant) -> Result<Lane, Failure> {
        let live = self.link.up(deadline).await?;
        let channel = self.link.channel(&live).await?;
        let confirms = channel.confirm_select(ConfirmSelectOptions::default());
        self.link.call(&live, "no confirms", confirms).await?;
        declare_exchange(&self.link, &live, &channel, &self.exchange).await?;
        Ok(Lane { live, channel })
    }

    /// Uses this channel no more.
    async fn leave(&self, left: &Lane) {
        let mut lane = self.lane.lock().await;
        if let Some(current) = &*lane
            && current.live.number() == left.live.number()
            && current.channel.id() == left.channel.id()
        {
            *lane = None;
        }
    }
}

/// Declares the exchange that all events go through.
pub(super) async fn declare_exchange(
    link: &Link,
    live: &Live,
    channel: &Channel,
    exchange: &ShortString,
) -> Result<(), Failure> {
    let options = ExchangeDeclareOptions {
        durable: true,
        ..ExchangeDeclareOptions::default()
    };
    let arguments = FieldTable::default();
    let declared =
        channel.exchange_declare(exchange.clone(), ExchangeKind::Topic, options, arguments);
    let what = format!("the exchange {:?} can't be declared", exchange.as_str());
    link.call(live, &what, declared).await.map_err(|failure| {
        if !failure.is_mismatch() {
            return failure;
        }
        let message = format!(
            "{}; it exists already and is no durable topic exchange: delete it, or let AgentRunner's names \
             begin with another prefix",
            failure.message()
        );
        failure.told(message)
    })
}
