//! Carries out verdicts: tells the broker, and passes on what is not done with.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use lapin::options::{BasicAckOptions, BasicCancelOptions, BasicNackOptions};
use lapin::{Acker, Channel};
use tokio::sync::mpsc;

use super::Shared;
use super::failure::Failure;
use super::link;
use super::message::Letter;
use super::publisher::{Parcel, Sent};
use super::topology::Queue;

/// Where the verdicts on the deliveries of one channel go. The channel stays open for as long as somebody has it.
pub(super) type Settlements = mpsc::UnboundedSender<Settlement>;

/// Something to be carried out.
pub(super) enum Settlement {
    /// It is done with.
    Forget(Acker),
    /// Somebody else may have it, at once or after a while.
    Return(Acker, Duration),
    /// It comes again after a rest.
    Rest(Transfer, Duration),
    /// It is a dead letter.
    Bury(Transfer),
    /// The consumer goes: what it was sent and has not handed out is for others.
    Leave(lapin::Consumer),
}

/// A message that is put elsewhere before it is forgotten here.
pub(super) struct Transfer {
    pub(super) queue: Arc<Queue>,
    pub(super) letter: Letter,
    pub(super) acker: Acker,
    pub(super) attempt: u32,
    pub(super) reason: String,
}

/// Starts carrying out what is said about the deliveries of `channel`. Bounded by the channel's prefetch.
pub(super) fn start(shared: &Arc<Shared>, channel: Channel) -> Settlements {
    let (tell, told) = mpsc::unbounded_channel();
    shared
        .tasks
        .spawn(carry_out(Arc::clone(shared), channel, told));
    tell
}

/// Ends when nobody can say anything any more, or the bus is closed and all that was said is done.
async fn carry_out(
    shared: Arc<Shared>,
    channel: Channel,
    mut told: mpsc::UnboundedReceiver<Settlement>,
) {
    let mut doing = FuturesUnordered::new();
    let mut listening = true;
    while listening || !doing.is_empty() {
        tokio::select! {
            () = shared.closed.cancelled(), if !told.is_closed() => told.close(),
            settlement = told.recv(), if listening => match settlement {
                Some(settlement) => doing.push(shared.carry_out(&channel, settlement)),
                None => listening = false,
            },
            Some(()) = doing.next(), if !doing.is_empty() => {}
        }
    }
}

impl Shared {
    /// What can't be carried out because the connection is gone needs not be: the broker hands it out again.
    async fn carry_out(&self, channel: &Channel, settlement: Settlement) {
        match settlement {
            Settlement::Forget(acker) => forget(&acker).await,
            Settlement::Return(acker, after) => {
                let rest = tokio::time::sleep(after);
                if after.is_zero() || self.closed.run_until_cancelled(rest).await.is_some() {
                    give_back(&acker).await;
                }
            }
            Settlement::Rest(transfer, delay) => {
                if let Some(rest) = transfer.queue.rest(delay) {
                    let parcel = transfer.letter.to(rest, transfer.attempt, &transfer.reason);
                    self.transfer(&transfer, &parcel, Some(delay)).await;
                }
            }
            Settlement::Bury(transfer) => {
                let dead = &transfer.queue.dead;
                let parcel = transfer.letter.to(dead, transfer.attempt, &transfer.reason);
                if self.transfer(&transfer, &parcel, None).await {
                    tracing::warn!(
                        event_id = transfer.letter.id(),
                        queue = transfer.queue.name,
                        attempts = transfer.attempt,
                        reason = transfer.reason,
                        "an event is given up and becomes a dead letter"
                    );
                }
            }
            Settlement::Leave(mut consumer) => {
                let cancel = channel.basic_cancel(consumer.tag(), BasicCancelOptions::default());
                if cancel.await.is_ok() {
                    while let Some(Ok(arrival)) = consumer.next().await {
                        give_back(&arrival.acker).await;
                    }
                }
            }
        }
    }

    /// Puts a message elsewhere and forgets it here; tells whether it did.
    async fn transfer(
        &self,
        transfer: &Transfer,
        parcel: &Parcel,
        delay: Option<Duration>,
    ) -> bool {
        // It is somebody else's already.
        if !transfer.acker.usable() {
            return false;
        }
        match self.deliver(&transfer.queue, parcel, delay).await {
            Ok(()) => {
                forget(&transfer.acker).await;
                true
            }
            Err(failure) => {
                tracing::warn!(
                    event_id = transfer.letter.id(),
                    queue = transfer.queue.name,
                    error = failure.message(),
                    "an event could not be set aside, it comes again"
                );
                // Not at once: it would most likely fare the same.
                let rest = tokio::time::sleep(link::pause(u32::MAX));
                if self.closed.run_until_cancelled(rest).await.is_some() {
                    give_back(&transfer.acker).await;
                }
                false
            }
        }
    }

    /// Puts a message into a queue, which is made when it is not there.
    async fn deliver(
        &self,
        queue: &Queue,
        parcel: &Parcel,
        delay: Option<Duration>,
    ) -> Result<(), Failure> {
        if let Some(delay) = delay
            && !self.topology.knows_rest(&parcel.routing_key)
        {
            self.declare_rest(queue, delay).await?;
        }
        let until = self.deadline();
        if self.publisher.send(parcel, until).await? == Sent::Kept {
            return Ok(());
        }
        match delay {
            Some(delay) => self.declare_rest(queue, delay).await?,
            None => self.declare_dead(queue).await?,
        }
        match self.publisher.send(parcel, until).await? {
            Sent::Kept => Ok(()),
            Sent::NoQueue => {
                let name = &parcel.routing_key;
                let message = format!("the queue {name} was deleted as soon as it was made");
                Err(Failure::unavailable(message))
            }
        }
    }
}

async fn forget(acker: &Acker) {
    if let Err(error) = acker.ack(BasicAckOptions::default()).await {
        tracing::debug!(%error, "an acknowledgement was lost, its event comes again");
    }
}

async fn give_back(acker: &Acker) {
    let options = BasicNackOptions {
        requeue: true,
        ..BasicNackOptions::default()
    };
    if let Err(error) = acker.nack(options).await {
        tracing::debug!(%error, "the connection was lost, its events come again");
    }
}
