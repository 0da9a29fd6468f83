//! The deliveries of one queue, through all failures.

use std::sync::Arc;

use futures::StreamExt;
use lapin::message::Delivery as Arrival;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until};

use super::Shared;
use super::failure::Failure;
use super::link;
use super::settle::{self, Settlement, Settlements};
use super::topology::Queue;

/// Which of the queues of a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Queue,
    DeadLetters,
}

/// Consumes. Declares, opens a channel and begins anew whenever it has to; ends only with the bus.
pub(super) struct Source {
    start: Start,
    session: Option<Session>,
    /// The session to be. A task of its own: whoever waits for a delivery may stop waiting at any time, and lapin
    /// does not forget a consumer whose making was abandoned half way.
    starting: Option<JoinHandle<Result<Session, Failure>>>,
    failures: u32,
    /// Not to begin anew before.
    rest: Option<Instant>,
}

/// What a session is made of.
#[derive(Clone)]
struct Start {
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    kind: Kind,
    prefetch: u16,
    /// Whether the queue was declared since it last failed.
    is_declared: bool,
}

/// Consuming on one channel.
struct Session {
    /// Always there but for the end.
    consumer: Option<lapin::Consumer>,
    settlements: Settlements,
}

impl Source {
    /// Of a queue that is declared.
    pub(super) fn new(shared: Arc<Shared>, queue: Arc<Queue>, kind: Kind, prefetch: u16) -> Self {
        Self {
            start: Start {
                shared,
                queue,
                kind,
                prefetch,
                is_declared: true,
            },
            session: None,
            starting: None,
            failures: 0,
            rest: None,
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.start.shared
    }

    pub(super) fn queue(&self) -> &Arc<Queue> {
        &self.start.queue
    }

    /// The next message, and where to say what became of it. `None` when the bus is closed. Dropping the future
    /// loses nothing.
    pub(super) async fn next(&mut self) -> Option<(Arrival, Settlements)> {
        let closed = self.start.shared.closed.clone();
        if closed.is_cancelled() {
            return None;
        }
        closed.run_until_cancelled(self.take()).await
    }

    async fn take(&mut self) -> (Arrival, Settlements) {
        loop {
            if let Some(session) = &mut self.session {
                match session.next().await {
                    Ok(arrival) => return (arrival, session.settlements.clone()),
                    Err(failure) => {
                        self.session = None;
                        self.failed(failure);
                    }
                }
            }
            if let Some(rest) = self.rest {
                sleep_until(rest).await;
                self.rest = None;
            }
            let start = &self.start;
            let starting = self
                .starting
                .get_or_insert_with(|| start.shared.tasks.spawn(start.clone().begin()));
            let started = starting.await.unwrap_or_else(|error| {
                let message = format!("consuming could not begin: {error}");
                Err(Failure::unavailable(message))
            });
            self.starting = None;
            match started {
                Ok(session) => self.began(session),
                Err(failure) => self.failed(failure),
            }
        }
    }

    fn began(&mut self, session: Session) {
        if self.failures > 0 {
            tracing::info!(queue = self.start.name().as_str(), "consuming again");
            self.failures = 0;
            self.start.shared.note(self.start.name().as_str(), None);
        }
        self.start.is_declared = true;
        self.session = Some(session);
    }

    fn failed(&mut self, failure: Failure) {
        self.start.is_declared = false;
        let name = self.start.name().as_str();
        self.failures = self.failures.saturating_add(1);
        self.rest = Some(Instant::now() + link::pause(self.failures));
        if link::is_worth_telling(self.failures) {
            tracing::warn!(
                queue = name,
                failures = self.failures,
                error = failure.message(),
                "a consumer was interrupted, it begins anew"
            );
        }
        self.start.shared.note(name, Some(failure));
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if self.failures > 0 {
            self.start.shared.note(self.start.name().as_str(), None);
        }
    }
}

impl Start {
    async fn begin(self) -> Result<Session, Failure> {
        let closed = self.shared.closed.clone();
        let begun = closed.run_until_cancelled(self.try_begin()).await;
        begun.unwrap_or_else(|| Err(Failure::closed()))
    }

    async fn try_begin(&self) -> Result<Session, Failure> {
        let link = &self.shared.incoming;
        let live = link.up(self.shared.deadline()).await?;
        if !self.is_declared {
            match self.kind {
                Kind::Queue => self.shared.declare(&self.queue, None).await?,
                Kind::DeadLetters => self.shared.declare_dead(&self.queue).await?,
            }
        }
        let channel = link.channel(&live).await?;
        let qos = channel.basic_qos(self.prefetch, BasicQosOptions::default());
        link.call(&live, "no prefetch", qos).await?;
        let consumed = channel.basic_consume(
            self.name().clone(),
            ShortString::default(),
            BasicConsumeOptions::default(),
            FieldTable::default(),
        );
        let what = format!("the queue {:?} can't be consumed", self.name().as_str());
        let consumer = link.call(&live, &what, consumed).await?;
        Ok(Session {
            consumer: Some(consumer),
            settlements: settle::start(&self.shared, channel),
        })
    }

    fn name(&self) -> &ShortString {
        match self.kind {
            Kind::Queue => &self.queue.main,
            Kind::DeadLetters => &self.queue.dead,
        }
    }
}

impl Session {
    async fn next(&mut self) -> Result<Arrival, Failure> {
        let next = match &mut self.consumer {
            Some(consumer) => consumer.next().await,
            None => None,
        };
        match next {
            Some(Ok(arrival)) => Ok(arrival),
            Some(Err(error)) => Err(Failure::of("consuming ended", error)),
            // As when the queue is deleted or its node goes away.
            None => Err(Failure::unavailable("RabbitMQ ended the consumer")),
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(consumer) = self.consumer.take() {
            // In vain when the bus is closed: then all of it goes back anyway.
            self.settlements.send(Settlement::Leave(consumer)).ok();
        }
    }
}
