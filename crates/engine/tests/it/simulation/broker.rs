//! The broker as a worker sees it: the in-process bus behind a bad line, which loses hints, doubles, delays and
//! reorders, and confirms what did not arrive nor denies what did.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bus::{Bus, Consumer, Delivery, Error, Listener, Settle, Subscription, Verdict};
use domain::{Event, ExecutionId};
use tokio::time::sleep;

use super::wire::Gate;
use super::world::World;

/// The line from a worker to the broker.
pub(crate) struct Line {
    pub(crate) world: Arc<World>,
    pub(crate) gate: Arc<Gate>,
}

fn unavailable(message: &str) -> Error {
    Error::Unavailable {
        message: message.to_owned(),
        source: None,
    }
}

impl Line {
    async fn reach(&self) -> Result<(), Error> {
        self.gate.pass().await;
        if self.gate.cut.lock().unwrap().1 {
            let wait = self.world.lots().millis(100, 3000);
            sleep(wait).await;
            self.gate.pass().await;
            return Err(unavailable("no connection"));
        }
        if self.world.goes_wrong(15) {
            return Err(unavailable("connection reset"));
        }
        sleep(self.world.latency()).await;
        self.gate.pass().await;
        Ok(())
    }

    fn receiver(&self, inner: Box<dyn Consumer>) -> Box<dyn Consumer> {
        Box::new(Receiver {
            world: self.world.clone(),
            gate: self.gate.clone(),
            inner: Some(inner),
            copies: Vec::new(),
            later: None,
        })
    }
}

#[async_trait]
impl Bus for Line {
    async fn publish(&self, event: &Event) -> Result<(), Error> {
        self.reach().await?;
        self.world.broker.publish(event).await?;
        self.world
            .note(format_args!("{} publishes {}", self.gate.worker, event.id));
        if self.world.goes_wrong(20) {
            return Err(unavailable("the confirmation was lost"));
        }
        self.gate.pass().await;
        Ok(())
    }

    async fn subscribe(&self, subscription: Subscription) -> Result<Box<dyn Consumer>, Error> {
        self.reach().await?;
        Ok(self.receiver(self.world.broker.subscribe(subscription).await?))
    }

    async fn remove(&self, queue: &str) -> Result<(), Error> {
        self.reach().await?;
        self.world.broker.remove(queue).await
    }

    async fn dead_letters(&self) -> Result<Box<dyn Consumer>, Error> {
        self.reach().await?;
        Ok(self.receiver(self.world.broker.dead_letters().await?))
    }

    /// Words are not what is simulated, and all of them may be lost.
    fn whisper(&self, _: &str, _: Vec<u8>) {}

    async fn listen(&self, channels: &[String]) -> Result<Box<dyn Listener>, Error> {
        self.world.broker.listen(channels).await
    }

    async fn check(&self) -> Result<(), Error> {
        self.reach().await
    }

    async fn close(&self) {}
}

struct Receiver {
    world: Arc<World>,
    gate: Arc<Gate>,
    inner: Option<Box<dyn Consumer>>,
    copies: Vec<Delivery>,
    /// One that lets another go first.
    later: Option<Delivery>,
}

impl Receiver {
    async fn take(&mut self) -> Option<Delivery> {
        let Some(inner) = &mut self.inner else {
            return std::future::pending().await;
        };
        tokio::select! {
            biased;
            () = self.gate.killed() => {
                // The broker sees that the connection is gone.
                self.inner = None;
                std::future::pending().await
            }
            delivery = inner.next() => delivery.map(|delivery| hold(&self.world, &self.gate, delivery)),
            () = sleep(Duration::from_secs(1)), if self.later.is_some() => self.later.take(),
        }
    }
}

/// What the worker gets in its hands: the broker can take it back.
fn hold(world: &Arc<World>, gate: &Arc<Gate>, delivery: Delivery) -> Delivery {
    let (event, queue) = (delivery.event.clone(), delivery.queue.clone());
    let (attempt, reason) = (delivery.attempt, delivery.reason.clone());
    let held = Held {
        world: world.clone(),
        gate: gate.clone(),
        number: gate.hold(delivery),
    };
    Delivery::new(event, queue, attempt, reason, Box::new(held))
}

#[async_trait]
impl Consumer for Receiver {
    async fn next(&mut self) -> Option<Delivery> {
        loop {
            self.gate.pass().await;
            if let Some(copy) = self.copies.pop() {
                return Some(copy);
            }
            let is_cut = self.gate.cut.lock().unwrap().1;
            if is_cut {
                sleep(Duration::from_millis(500)).await;
                continue;
            }
            // In its hands from here on, also while it is on its way: the broker takes it back from the dead.
            let delivery = self.take().await?;
            let is_hint = delivery.queue.ends_with("-pool");
            if is_hint && self.world.goes_wrong(150) {
                self.world.count("hints lost");
                self.world
                    .note(format_args!("hint {} is lost", delivery.event.id));
                delivery.done();
                continue;
            }
            if self.later.is_none() && self.world.goes_wrong(60) {
                self.later = Some(delivery);
                continue;
            }
            if self.world.goes_wrong(50) {
                let wait = self.world.lots().millis(50, 3000);
                sleep(wait).await;
            }
            if self.world.goes_wrong(60) {
                self.world.count("deliveries doubled");
                let event = delivery.event.clone();
                let queue = delivery.queue.clone();
                let copy = Delivery::new(event, queue, delivery.attempt, None, Box::new(Nobody));
                self.copies.push(copy);
            }
            self.gate.pass().await;
            self.world.note(format_args!(
                "{} hears {}",
                self.gate.worker, delivery.event.id
            ));
            if is_hint {
                note_hint(&self.world, &delivery.event);
            }
            return Some(delivery);
        }
    }
}

fn note_hint(world: &World, event: &Event) {
    let id = event.data.get("execution_id").and_then(|id| id.as_str());
    if let Some(id) = id.and_then(|id| id.parse::<ExecutionId>().ok()) {
        world.tables().hinted.insert(id);
    }
}

/// A copy that nobody waits for.
struct Nobody;

impl Settle for Nobody {
    fn settle(self: Box<Self>, _: Verdict) {}
}

/// A delivery in a worker's hands. Dropped unsettled, the broker delivers it again.
struct Held {
    world: Arc<World>,
    gate: Arc<Gate>,
    number: u64,
}

impl Settle for Held {
    fn settle(self: Box<Self>, verdict: Verdict) {
        let Some(delivery) = self.gate.let_go(self.number) else {
            return;
        };
        match verdict {
            // The word is lost: it comes again.
            Verdict::Done if self.world.goes_wrong(30) => drop(delivery),
            Verdict::Done => delivery.done(),
            Verdict::Retry(reason) => delivery.retry(reason),
            Verdict::Reject(reason) => delivery.reject(reason),
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        drop(self.gate.let_go(self.number));
    }
}
