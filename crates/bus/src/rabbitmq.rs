//! The bus on RabbitMQ, 3.10 or later: for many processes.
//!
//! Everything is durable: a topic exchange `agent_events`, and for each subscribed queue `q` these quorum queues:
//!
//! | queue | holds |
//! |---|---|
//! | `q` | what waits for its consumers |
//! | `q.retry.1000`, `.2000`, `.4000`, `.8000` | what rests; made when first needed. The broker puts it back to `q` |
//! | `q.dlq` | what was given up, with the headers `x-reason`, `x-attempt`, `x-history` and `x-topic` |
//! | `q.patterns` | one message: the patterns that `q` is bound by. AMQP can't list bindings, so the next subscriber, a new version of the agent perhaps, could not take away what is wanted no more |
//!
//! Beside each queue stands an internal exchange `NAME.settled`, which nothing goes through: see [`making`].
//!
//! There are two connections, since RabbitMQ stops reading from one that publishes when it is short of memory or
//! disk: consumers must be able to settle even then. Each has a supervisor ([`link`]) that makes it anew for as long
//! as the bus lives. lapin's own recovery stays off: two owners of one connection would disagree about which channel
//! and which delivery is still good. Who used a connection that broke opens what it needs on the next one:
//!
//! - [`publisher`] publishes with confirms, and again with the same message id until it is confirmed or time is up.
//! - [`source`] is the stream of deliveries of one queue, through all failures; it declares the queue each time.
//! - [`consumer`] and [`dead_letters`] make deliveries of it; [`settle`] carries out their verdicts.
//! - [`whispers`] says and hears what is kept nowhere, by an exchange `agent_whispers` and a queue of each listener's own.
//! - [`topology`] names, declares and binds; [`making`] sees to it that a queue is used only when it survives a crash.
//!
//! What can happen twice: a publish whose confirm was lost, and a verdict whose connection broke. Events have ids.

mod consumer;
mod dead_letters;
mod drops;
mod failure;
mod link;
mod making;
mod message;
mod publisher;
mod settle;
mod source;
mod topology;
mod whispers;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use domain::Event;
use secrecy::SecretString;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::consumer::QueueConsumer;
use self::dead_letters::DeadLetterConsumer;
use self::drops::Drops;
use self::failure::Failure;
use self::link::{Link, Target};
use self::publisher::Publisher;
use self::source::{Kind, Source};
use self::topology::{Queue, Topology};
use self::whispers::Whispers;
use crate::{Bus, Consumer, Error, Listener, Subscription};

/// How long closing waits for verdicts that are being carried out.
const FAREWELL: Duration = Duration::from_secs(5);

/// Where the broker is and how to use it.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `amqp://user:password@host:port/vhost`; `amqps` for TLS, verified by the roots of the system. Without a
    /// virtual host it is `/`.
    pub url: SecretString,
    /// Goes before the names of the exchange and of all queues, so that several products can share a broker.
    pub prefix: String,
    /// How many unsettled deliveries a consumer may hold, whatever its subscription says.
    pub prefetch: Option<u16>,
    /// How long the broker may take to answer one request: a connection, a declaration, a confirm.
    pub timeout: Duration,
    /// How long a call goes on trying, over lost connections too, before it fails.
    pub patience: Duration,
    /// How long a new queue rests before it is used. RabbitMQ writes down within seconds what it needs to find the
    /// queue again after a crash, and tells nobody when it has.
    pub settling: Duration,
}

impl Settings {
    /// What suits most: no prefix, the subscriptions' own prefetch, 5 s for one answer, 15 s for one call, and 4 s of
    /// rest for a new queue.
    pub fn new(url: SecretString) -> Self {
        Self {
            url,
            prefix: String::new(),
            prefetch: None,
            timeout: Duration::from_secs(5),
            patience: Duration::from_secs(15),
            settling: Duration::from_secs(4),
        }
    }
}

/// A [`Bus`] on a broker. Closes when it is dropped.
pub struct RabbitMq {
    shared: Arc<Shared>,
    /// Until everything has ended.
    ended: CancellationToken,
}

/// What the parts of one bus share.
struct Shared {
    settings: Settings,
    incoming: Link,
    publisher: Publisher,
    whispers: Whispers,
    topology: Topology,
    drops: Drops,
    /// What keeps consumers from consuming now, by queue.
    troubles: Mutex<BTreeMap<String, Failure>>,
    closed: CancellationToken,
    tasks: TaskTracker,
}

impl RabbitMq {
    /// Begins to connect, and goes on in the background for as long as it takes. Within a tokio runtime.
    ///
    /// # Errors
    /// `Refused` when the settings make no sense. A broker that can't be reached is told by [`Bus::check`].
    pub fn new(settings: Settings) -> Result<Self, Error> {
        let target = Target::new(&settings)?;
        let closed = CancellationToken::new();
        let end = CancellationToken::new();
        let ended = CancellationToken::new();
        let links = TaskTracker::new();
        let incoming = Link::start(target.to("consume"), end.clone(), &links);
        let outgoing = Link::start(target.to("publish"), end.clone(), &links);
        let topology = Topology::new(&settings.prefix)?;
        let whispers = Whispers::start(&settings.prefix, outgoing.clone(), end.clone(), &links)?;
        let shared = Arc::new(Shared {
            whispers,
            publisher: Publisher::new(outgoing, topology.exchange().clone(), &settings),
            settings,
            incoming,
            topology,
            drops: Drops::default(),
            troubles: Mutex::default(),
            closed: closed.clone(),
            tasks: TaskTracker::new(),
        });
        let tasks = shared.tasks.clone();
        let undertaker = ended.clone();
        tokio::spawn(async move {
            closed.cancelled().await;
            tasks.close();
            if timeout(FAREWELL, tasks.wait()).await.is_err() {
                tracing::warn!(
                    "verdicts are still open as the bus closes; their events come again"
                );
            }
            end.cancel();
            links.close();
            links.wait().await;
            undertaker.cancel();
        });
        Ok(Self { shared, ended })
    }

    /// Connects. For a start that wants to know at once.
    ///
    /// # Errors
    /// The first attempt's: `Unavailable` when the broker can't be reached or does not answer in time, `Refused`
    /// when it does not let us in.
    pub async fn connect(settings: Settings) -> Result<Self, Error> {
        let bus = Self::new(settings)?;
        let first = tokio::try_join!(
            bus.shared.incoming.first(),
            bus.shared.publisher.link().first()
        );
        if let Err(failure) = first {
            bus.close().await;
            return Err(failure.into());
        }
        Ok(bus)
    }
}

/// What lies in a queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// How many events wait for a consumer. Those in hand are not counted.
    pub waiting: u32,
    /// How many were given up and are not in the database yet.
    pub dead: u32,
}

impl RabbitMq {
    /// How much lies in a queue; `None` when there is no such queue yet. Changes nothing.
    ///
    /// # Errors
    /// The broker does not answer, or does not let us ask.
    pub async fn depth(&self, queue: &str) -> Result<Option<Depth>, Error> {
        self.shared.open()?;
        let queue = Queue::new(&self.shared.settings.prefix, queue.to_owned())?;
        let live = self.shared.incoming.up(self.shared.deadline()).await?;
        let waiting = self.shared.count(&live, &queue.main).await?;
        let dead = self.shared.count(&live, &queue.dead).await?;
        Ok(waiting.map(|waiting| Depth {
            waiting,
            dead: dead.unwrap_or_default(),
        }))
    }
}

impl Shared {
    fn open(&self) -> Result<(), Error> {
        if self.closed.is_cancelled() {
            return Err(Error::Closed);
        }
        Ok(())
    }

    /// When a call that begins now has to be done.
    fn deadline(&self) -> Instant {
        Instant::now() + self.settings.patience
    }

    /// Notes what keeps the consumers of a queue from consuming, or that nothing does.
    fn note(&self, queue: &str, trouble: Option<Failure>) {
        let mut troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        match trouble {
            Some(failure) => troubles.insert(queue.to_owned(), failure),
            None => troubles.remove(queue),
        };
    }

    fn trouble(&self) -> Result<(), Failure> {
        let troubles = self.troubles.lock().unwrap_or_else(PoisonError::into_inner);
        troubles.values().next().cloned().map_or(Ok(()), Err)
    }

    /// What the settings make of the prefetch of a subscription.
    fn prefetch(&self, wanted: usize) -> u16 {
        let wanted = u16::try_from(wanted).unwrap_or(u16::MAX);
        // Zero is "without bound" to the broker.
        self.settings.prefetch.unwrap_or(wanted).max(1)
    }
}

#[async_trait]
impl Bus for RabbitMq {
    /// On `Ok` every queue that wants the event has it on disk, on a majority of its nodes. On `Err` some may have
    /// it: publish the same event again. Many may publish at the same time, and are confirmed together.
    async fn publish(&self, event: &Event) -> Result<(), Error> {
        self.shared.open()?;
        let parcel = message::outgoing(self.shared.topology.exchange(), event)?;
        // That nobody wants it is no error, so the broker need not tell.
        self.shared
            .publisher
            .send(&parcel, self.shared.deadline())
            .await?;
        Ok(())
    }

    /// Declares the queue and its dead letters, and makes the patterns all that it is bound by. Consuming begins
    /// with the first [`Consumer::next`]: what nobody has asked for yet stays with the broker.
    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Consumer>, Error> {
        self.shared.open()?;
        let Subscription {
            queue,
            patterns,
            prefetch,
        } = subscription;
        let queue = Arc::new(Queue::new(&self.shared.settings.prefix, queue)?);
        let deadline = self.shared.deadline();
        let mut attempts = 0;
        while let Err(failure) = self.shared.declare(&queue, Some(&patterns)).await {
            attempts += 1;
            // Whoever subscribes tries again, and until then nobody consumes.
            self.shared.note(queue.main.as_str(), Some(failure.clone()));
            let next = Instant::now() + link::pause(attempts);
            if failure.is_final() || next > deadline {
                return Err(failure.into());
            }
            tokio::time::sleep_until(next).await;
        }
        self.shared.note(queue.main.as_str(), None);
        let prefetch = self.shared.prefetch(prefetch);
        let source = Source::new(Arc::clone(&self.shared), queue, Kind::Queue, prefetch);
        Ok(Box::new(QueueConsumer::new(source)))
    }

    async fn remove(&self, queue: &str) -> Result<(), Error> {
        self.shared.open()?;
        let queue = Queue::new(&self.shared.settings.prefix, queue.to_owned())?;
        Ok(self.shared.delete(&queue).await?)
    }

    /// Those of the queues that this process subscribed to, before or after. The dead letters of another queue wait
    /// in its `.dlq` for a process that subscribes to it.
    async fn dead_letters(&self) -> Result<Box<dyn Consumer>, Error> {
        self.shared.open()?;
        Ok(Box::new(DeadLetterConsumer::new(Arc::clone(&self.shared))))
    }

    /// Goes out behind what was whispered before, on the connection that publishes, without a confirm.
    fn whisper(&self, channel: &str, words: Vec<u8>) {
        self.shared.whispers.say(channel, words);
    }

    async fn listen(&self, channels: &[String]) -> Result<Box<dyn Listener>, Error> {
        self.shared.open()?;
        let hearing = whispers::listen(&self.shared, channels).await?;
        Ok(Box::new(hearing))
    }

    /// Asks the broker on both connections. Fails, too, when it blocks publishers or a consumer can't consume.
    async fn check(&self) -> Result<(), Error> {
        self.shared.open()?;
        let publisher = &self.shared.publisher;
        tokio::try_join!(self.shared.incoming.check(), publisher.link().check())?;
        Ok(self.shared.trouble()?)
    }

    async fn close(&self) {
        self.shared.closed.cancel();
        self.ended.cancelled().await;
    }
}

impl Drop for RabbitMq {
    fn drop(&mut self) {
        self.shared.closed.cancel();
    }
}

impl fmt::Debug for RabbitMq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RabbitMq")
            .field("settings", &self.shared.settings)
            .finish_non_exhaustive()
    }
}
