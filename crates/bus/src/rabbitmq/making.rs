//! Makes queues, and says from when on what they took is safe.
//!
//! RabbitMQ confirms the declaration of a quorum queue before it has written down which log belongs to it; that
//! follows within seconds. Killed in between, it comes back with the queue and without its log: what it had confirmed
//! is gone, and the queue has no leader and answers nobody, for ever. So:
//!
//! - A new queue rests for [`Settings::settling`](super::Settings::settling) before anything can get into it. Then it
//!   is marked: an internal exchange `NAME.settled`, since exchanges are on disk when they are confirmed.
//! - A queue without its mark never held anything. One that does not answer is deleted and made anew, by whoever
//!   comes upon it.
//! - A queue with its mark may hold what nobody else has. When it does not answer, most of its nodes are away, or its
//!   data is damaged: it is waited for, and never deleted.

use std::time::Duration;

use lapin::options::{
    BasicGetOptions, BasicNackOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{FieldTable, ShortString};
use lapin::{Channel, ExchangeKind};

use super::Shared;
use super::failure::Failure;
use super::link::Live;
use super::topology::short;

/// What the name of a mark adds to that of its queue.
pub(super) const MARK: &str = ".settled";
/// How long the broker may take to delete a queue that has no leader: it looks for one first.
const DELETING: Duration = Duration::from_secs(30);

impl Shared {
    /// Makes queues where they are not there. On `Ok` each of them keeps what it takes.
    ///
    /// # Errors
    /// Among others when a queue had to be deleted first: the next attempt makes it.
    pub(super) async fn make(
        &self,
        live: &Live,
        wanted: &[(&ShortString, FieldTable)],
    ) -> Result<(), Failure> {
        let channel = self.incoming.channel(live).await?;
        let mut unmarked = Vec::new();
        for (name, arguments) in wanted {
            if !self.has_queue(live, name).await? {
                // It was that of a queue which somebody has deleted.
                self.unmark(live, &channel, name).await?;
            }
            self.declare_one(live, &channel, name, arguments.clone())
                .await?;
            if !self.is_marked(live, name).await? {
                unmarked.push(*name);
            }
        }
        if unmarked.is_empty() {
            return Ok(());
        }
        for name in &unmarked {
            if let Err(failure) = self.probe(live, name).await {
                self.delete_dead(name).await?;
                return Err(failure);
            }
        }
        let rest = tokio::time::sleep(self.settings.settling);
        if self.closed.run_until_cancelled(rest).await.is_none() {
            return Err(Failure::closed());
        }
        // On the same connection: had the broker been away meanwhile, this would fail.
        for name in &unmarked {
            self.mark(live, &channel, name).await?;
        }
        Ok(())
    }

    async fn declare_one(
        &self,
        live: &Live,
        channel: &Channel,
        name: &ShortString,
        arguments: FieldTable,
    ) -> Result<(), Failure> {
        let options = QueueDeclareOptions {
            durable: true,
            ..QueueDeclareOptions::default()
        };
        let declared = channel.queue_declare(name.clone(), options, arguments);
        let what = format!("the queue {:?} can't be declared", name.as_str());
        let declared = self.incoming.call(live, &what, declared).await;
        declared.map(drop).map_err(|failure| {
            if !failure.is_mismatch() {
                return failure;
            }
            let message = format!(
                "{}; it exists already with other arguments than AgentRunner gives it: when what is in it is needed \
                 no more, delete it (rabbitmqctl delete_queue {name}) and it is made anew, or let AgentRunner's names \
                 begin with another prefix",
                failure.message()
            );
            failure.told(message)
        })
    }

    /// Whether there is a queue of this name, with whatever arguments.
    async fn has_queue(&self, live: &Live, name: &ShortString) -> Result<bool, Failure> {
        Ok(self.count(live, name).await?.is_some())
    }

    /// How many messages wait in the queue of this name; `None` when there is none.
    pub(super) async fn count(
        &self,
        live: &Live,
        name: &ShortString,
    ) -> Result<Option<u32>, Failure> {
        // The answer "no" closes the channel.
        let channel = self.incoming.channel(live).await?;
        let options = QueueDeclareOptions {
            passive: true,
            ..QueueDeclareOptions::default()
        };
        let found = channel.queue_declare(name.clone(), options, FieldTable::default());
        let what = format!("no news of the queue {:?}", name.as_str());
        match self.incoming.call(live, &what, found).await {
            Ok(queue) => Ok(Some(queue.message_count())),
            Err(failure) if failure.is_missing() => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    async fn is_marked(&self, live: &Live, name: &ShortString) -> Result<bool, Failure> {
        let channel = self.incoming.channel(live).await?;
        let options = ExchangeDeclareOptions {
            passive: true,
            ..ExchangeDeclareOptions::default()
        };
        let (mark, kind) = (mark_of(name)?, ExchangeKind::Fanout);
        let found = channel.exchange_declare(mark, kind, options, FieldTable::default());
        let what = format!("no news of the queue {:?}", name.as_str());
        exists(self.incoming.call(live, &what, found).await)
    }

    async fn mark(
        &self,
        live: &Live,
        channel: &Channel,
        name: &ShortString,
    ) -> Result<(), Failure> {
        let options = ExchangeDeclareOptions {
            durable: true,
            internal: true,
            ..ExchangeDeclareOptions::default()
        };
        let (mark, kind) = (mark_of(name)?, ExchangeKind::Fanout);
        let marked = channel.exchange_declare(mark, kind, options, FieldTable::default());
        let what = format!("the queue {:?} can't be marked as settled", name.as_str());
        self.incoming.call(live, &what, marked).await
    }

    async fn unmark(
        &self,
        live: &Live,
        channel: &Channel,
        name: &ShortString,
    ) -> Result<(), Failure> {
        let gone = channel.exchange_delete(mark_of(name)?, ExchangeDeleteOptions::default());
        let what = format!("an old mark of the queue {:?} stays", name.as_str());
        self.incoming.call(live, &what, gone).await
    }

    /// Fails when the queue has nobody to answer for it.
    async fn probe(&self, live: &Live, name: &ShortString) -> Result<(), Failure> {
        // A failure may close the channel, or the connection.
        let channel = self.incoming.channel(live).await?;
        let got = channel.basic_get(name.clone(), BasicGetOptions::default());
        let what = format!(
            "RabbitMQ lost the queue {:?} in a crash before it was used; it is deleted and made anew",
            name.as_str()
        );
        let Some(message) = self.incoming.call(live, &what, got).await? else {
            return Ok(());
        };
        let back = message.acker.nack(BasicNackOptions {
            requeue: true,
            ..BasicNackOptions::default()
        });
        self.incoming
            .call(live, "a message is not back", back)
            .await
            .map(drop)
    }

    /// Deletes a queue that does not answer and never held anything.
    async fn delete_dead(&self, name: &ShortString) -> Result<(), Failure> {
        let live = self.incoming.up(self.deadline()).await?;
        let channel = self.incoming.channel(&live).await?;
        let options = QueueDeleteOptions::default();
        let deleted = channel.queue_delete(name.clone(), options);
        let what = format!("the queue {:?} can't be deleted", name.as_str());
        self.incoming
            .call_within(DELETING, &live, &what, deleted)
            .await?;
        tracing::warn!(
            queue = name.as_str(),
            "RabbitMQ lost a queue in a crash before it was used; it is deleted and made anew, nothing was in it"
        );
        Ok(())
    }
}

fn mark_of(queue: &ShortString) -> Result<ShortString, Failure> {
    short(format!("{queue}{MARK}"))
}

fn exists<T>(found: Result<T, Failure>) -> Result<bool, Failure> {
    match found {
        Ok(_) => Ok(true),
        Err(failure) if failure.is_missing() => Ok(false),
        Err(failure) => Err(failure),
    }
}
