//! The bus inside one process: for the embedded mode, where nothing else is installed.
//!
//! It keeps nothing over a restart and needs not: the outbox of the store sends again what was not settled there,
//! and work is found by its due time. What it does keep is the contract that RabbitMQ keeps too, so that one suite
//! tests both. No task runs in the background and no lock is held while anything waits.
//!
//! - [`routes`] finds the queues that want a topic, however many there are.
//! - [`line`] is the waiting line that queues are made of.
//! - [`queue`] hands events out, takes verdicts, and is bounded: a full queue refuses.
//! - [`whispers`] passes on what is kept nowhere.
//! - [`dead_letters`] keeps what was given up, and is bounded too: it forgets the oldest.

mod dead_letters;
mod line;
mod queue;
mod routes;
mod whispers;

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use async_trait::async_trait;
use domain::Event;
use tokio_util::sync::CancellationToken;

use self::dead_letters::{DeadLetterConsumer, DeadLetters};
use self::queue::{Queue, QueueConsumer};
use self::routes::Routes;
use self::whispers::Whispers;
use crate::{Bus, Consumer, Error, Listener, Subscription};

/// How much the bus holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Events that one queue holds until they are settled: waiting, in a consumer's hands, or resting before the
    /// next try. A queue that is full refuses, so that the outbox keeps the event and sends it again.
    pub queue_capacity: usize,
    /// Dead letters that wait for somebody to take them. The oldest is forgotten, with a warning, for one more.
    pub dead_letter_capacity: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            queue_capacity: 100_000,
            dead_letter_capacity: 10_000,
        }
    }
}

/// A [`Bus`] in the memory of one process. Closes when it is dropped.
#[derive(Debug)]
pub struct InProcess {
    settings: Settings,
    exchange: RwLock<Exchange>,
    dead_letters: Arc<DeadLetters>,
    whispers: Whispers,
    closed: CancellationToken,
}

/// The queues by name and by what they want. A queue outlives its consumers: it goes on collecting, as a durable
/// one does, until it is full or is subscribed to without any pattern.
#[derive(Debug, Default)]
struct Exchange {
    queues: HashMap<String, Arc<Queue>>,
    routes: Routes,
}

impl InProcess {
    /// An empty bus.
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            exchange: RwLock::default(),
            dead_letters: Arc::new(DeadLetters::new(settings.dead_letter_capacity)),
            whispers: Whispers::default(),
            closed: CancellationToken::new(),
        }
    }

    fn open(&self) -> Result<(), Error> {
        if self.closed.is_cancelled() {
            return Err(Error::Closed);
        }
        Ok(())
    }

    fn read(&self) -> RwLockReadGuard<'_, Exchange> {
        self.exchange.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Exchange> {
        self.exchange
            .write()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for InProcess {
    fn default() -> Self {
        Self::new(Settings::default())
    }
}

impl Drop for InProcess {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

#[async_trait]
impl Bus for InProcess {
    /// All or nothing: when one of the queues is full none gets the event, so that sending again doubles nothing.
    async fn publish(&self, event: &Event) -> Result<(), Error> {
        self.open()?;
        let queues = self.read().routes.find(&event.topic);
        let places = queues
            .into_iter()
            .map(Queue::reserve)
            .collect::<Result<Vec<_>, _>>()?;
        if !places.is_empty() {
            let event = Arc::new(event.clone());
            for place in places {
                place.fill(Arc::clone(&event));
            }
        }
        Ok(())
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Consumer>, Error> {
        self.open()?;
        let Subscription {
            queue: name,
            patterns,
            prefetch,
        } = subscription;
        let mut exchange = self.write();
        let Exchange { queues, routes } = &mut *exchange;
        let queue = queues.entry(name).or_insert_with_key(|name| {
            Arc::new(Queue::new(
                name.clone(),
                self.settings.queue_capacity,
                Arc::clone(&self.dead_letters),
            ))
        });
        routes.set(queue, patterns);
        Ok(Box::new(QueueConsumer::new(
            Arc::clone(queue),
            prefetch,
            self.closed.clone(),
        )))
    }

    async fn remove(&self, queue: &str) -> Result<(), Error> {
        self.open()?;
        let mut exchange = self.write();
        if let Some(queue) = exchange.queues.remove(queue) {
            exchange.routes.forget(&queue);
        }
        self.dead_letters.forget_those_of(queue);
        Ok(())
    }

    async fn dead_letters(&self) -> Result<Box<dyn Consumer>, Error> {
        self.open()?;
        Ok(Box::new(DeadLetterConsumer::new(
            Arc::clone(&self.dead_letters),
            self.closed.clone(),
        )))
    }

    fn whisper(&self, channel: &str, words: Vec<u8>) {
        if self.open().is_ok() {
            self.whispers.pass_on(channel, words);
        }
    }

    async fn listen(&self, channels: &[String]) -> Result<Box<dyn Listener>, Error> {
        self.open()?;
        Ok(Box::new(
            self.whispers.listen(channels, self.closed.clone()),
        ))
    }

    async fn check(&self) -> Result<(), Error> {
        self.open()
    }

    async fn close(&self) {
        self.closed.cancel();
    }
}
