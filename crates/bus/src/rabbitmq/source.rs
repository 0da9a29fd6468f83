//! The deliveries of one queue, through all failures.

use std::sync::Arc;

use futures::StreamExt;
use lapin::message::Delivery as Arrival;
use lapin::options::{BasicConsumeOptions, BasicQosOptions};
use lapin::types::{FieldTable, ShortString};
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
    shared: Arc<Shared>,
    queue: Arc<Queue>,
    kind: Kind,
    prefetch: u16,
    session: Option<Session>,
    /// Whether the queue was declared since it last failed.
    is_declared: bool,
    failures: u32,
    /// Not to begin anew before.
    rest: Option<Instant>,
}

/// Consuming on one channel.
struct Session {
    consumer: lapin::Consumer,
    settlements: Settlements,
}

impl Source {
    /// Of a queue that is declared.
    pub(super) fn new(shared: Arc<Shared>, queue: Arc<Queue>, kind: Kind, prefetch: u16) -> Self {
        Self {
            shared,
            queue,
            kind,
            prefetch,
            session: None,
            is_declared: true,
            failures: 0,
            rest: None,
        }
    }

    pub(super) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub(super) fn queue(&self) -> &Arc<Queue> {
        &self.queue
    }

    /// The next message, and where to say what became of it. `None` when the bus is closed. Dropping the future
    /// loses nothing.
    pub(super) async fn next(&mut self) -> Option<(Arrival, Settlements)> {
        let closed = self.shared.closed.clone();
        if closed.is_cancelled() {
            return None;
        }
        closed.run_until_cancelled(self.take()).await
    }

    async fn take(&mut self) -> (Arrival, Settlements) {
        loop {
            if let Some(session) = &mut self.session {
                let failure = match session.consumer.next().await {
                    Some(Ok(arrival)) => return (arrival, session.settlements.clone()),
                    Some(Err(error)) => Failure::of("consuming ended", error),
                    // As when the queue is deleted or its node goes away.
                    None => Failure::unavailable("RabbitMQ ended the consumer"),
                };
                self.session = None;
                self.failed(failure);
            }
            if let Some(rest) = self.rest {
                sleep_until(rest).await;
                self.rest = None;
            }
            match self.begin().await {
                Ok(session) => {
                    if self.failures > 0 {
                        tracing::info!(queue = self.name().as_str(), "consuming again");
                        self.failures = 0;
                        self.shared.note(self.name().as_str(), None);
                    }
                    self.session = Some(session);
                }
                Err(failure) => self.failed(failure),
            }
        }
    }

    async fn begin(&mut self) -> Result<Session, Failure> {
        let link = &self.shared.incoming;
        let live = link.up(self.shared.until()).await?;
        if !self.is_declared {
            match self.kind {
                Kind::Queue => self.shared.declare(&self.queue, None).await?,
                Kind::DeadLetters => self.shared.declare_dead(&self.queue).await?,
            }
            self.is_declared = true;
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
            consumer,
            settlements: settle::start(&self.shared, channel),
        })
    }

    fn failed(&mut self, failure: Failure) {
        self.is_declared = false;
        self.failures = self.failures.saturating_add(1);
        self.rest = Some(Instant::now() + link::pause(self.failures));
        if link::is_worth_telling(self.failures) {
            tracing::warn!(
                queue = self.name().as_str(),
                failures = self.failures,
                error = failure.message(),
                "a consumer was interrupted, it begins anew"
            );
        }
        self.shared.note(self.name().as_str(), Some(failure));
    }

    fn name(&self) -> &ShortString {
        match self.kind {
            Kind::Queue => &self.queue.main,
            Kind::DeadLetters => &self.queue.dead,
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        if self.failures > 0 {
            self.shared.note(self.name().as_str(), None);
        }
        if let Some(Session {
            consumer,
            settlements,
        }) = self.session.take()
        {
            // In vain when the bus is closed: then all of it goes back anyway.
            settlements.send(Settlement::Leave(consumer)).ok();
        }
    }
}
