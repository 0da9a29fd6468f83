//! The names and arguments of queues, and what they are bound by.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use domain::TopicPattern;
use lapin::Channel;
use lapin::options::{BasicGetOptions, BasicNackOptions, QueueBindOptions, QueueDeleteOptions};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use tokio::sync::{Mutex, watch};

use super::Shared;
use super::failure::Failure;
use super::link::Live;
use super::making::MARK;
use super::message;
use super::publisher::{Sent, declare_exchange};
use crate::{MAX_ATTEMPTS, retry_delay};

const EXCHANGE: &str = "agent_events";
/// How often a queue hands out what is never settled, before the broker itself gives it up. Far more than there are
/// attempts: each loss of a connection counts here for all that waited behind it.
const DELIVERY_LIMIT: i64 = 100;
/// As good as none. RabbitMQ 4 would take 20 where nothing is said.
const NO_DELIVERY_LIMIT: i64 = 1_000_000_000;

/// One subscribed queue and those that belong to it.
#[derive(Debug)]
pub(super) struct Queue {
    /// As subscribers know it.
    pub(super) name: String,
    pub(super) main: ShortString,
    pub(super) dead: ShortString,
    patterns: ShortString,
    /// By how long they hold.
    rests: BTreeMap<Duration, ShortString>,
}

impl Queue {
    /// # Errors
    /// When the broker could not take the name.
    pub(super) fn new(prefix: &str, name: String) -> Result<Self, Failure> {
        let base = format!("{prefix}{name}");
        if name.is_empty() || base.starts_with("amq.") {
            let message = format!(
                "a queue can't have the name {base:?}: it is empty or begins with \"amq.\""
            );
            return Err(Failure::refused(message));
        }
        let part = |suffix: &str| {
            short(format!("{base}{suffix}{MARK}"))?;
            short(format!("{base}{suffix}"))
        };
        let rests = (1..MAX_ATTEMPTS).filter_map(retry_delay).map(|delay| {
            let name = part(&format!(".retry.{}", delay.as_millis()))?;
            Ok((delay, name))
        });
        Ok(Self {
            main: part("")?,
            dead: part(".dlq")?,
            patterns: part(".patterns")?,
            rests: rests.collect::<Result<_, Failure>>()?,
            name,
        })
    }

    /// The queue that holds what rests for `delay`.
    pub(super) fn rest(&self, delay: Duration) -> Option<&ShortString> {
        self.rests.get(&delay)
    }

    fn main_arguments(&self) -> FieldTable {
        let mut arguments = returning_to(&self.dead);
        arguments.insert(
            "x-delivery-limit".into(),
            AMQPValue::LongLongInt(DELIVERY_LIMIT),
        );
        arguments
    }

    fn rest_arguments(&self, delay: Duration) -> FieldTable {
        let mut arguments = returning_to(&self.main);
        let milliseconds = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(milliseconds));
        arguments
    }
}

/// # Errors
/// When it is longer than AMQP allows.
pub(super) fn short(text: String) -> Result<ShortString, Failure> {
    ShortString::try_new(text.as_str()).map_err(|_| {
        let start = text.chars().take(60).collect::<String>();
        Failure::refused(format!("the name {start:?}… has more than 255 bytes"))
    })
}

fn quorum() -> FieldTable {
    let mut arguments = FieldTable::default();
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments
}

/// A queue that passes on to another what it can't keep, and forgets it only when it has arrived there.
fn returning_to(queue: &ShortString) -> FieldTable {
    let mut arguments = quorum();
    arguments.insert("x-dead-letter-exchange".into(), text(""));
    arguments.insert("x-dead-letter-routing-key".into(), text(queue.as_str()));
    arguments.insert("x-dead-letter-strategy".into(), text("at-least-once"));
    // What that strategy asks for.
    arguments.insert("x-overflow".into(), text("reject-publish"));
    arguments
}

fn keeping() -> FieldTable {
    let mut arguments = quorum();
    arguments.insert(
        "x-delivery-limit".into(),
        AMQPValue::LongLongInt(NO_DELIVERY_LIMIT),
    );
    arguments
}

fn keeping_one() -> FieldTable {
    let mut arguments = keeping();
    arguments.insert("x-max-length".into(), AMQPValue::LongLongInt(1));
    arguments
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

/// The queues that this process subscribed to.
pub(super) struct Topology {
    exchange: ShortString,
    subscribed: watch::Sender<BTreeMap<String, Subscribed>>,
    /// Held while bindings are compared and changed.
    changing: Mutex<()>,
    /// The queues for what rests that are known to keep what they take.
    rests: std::sync::Mutex<BTreeSet<ShortString>>,
}

#[derive(Clone)]
pub(super) struct Subscribed {
    pub(super) queue: Arc<Queue>,
    /// What this process asked for last.
    patterns: Vec<TopicPattern>,
}

impl Topology {
    pub(super) fn new(prefix: &str) -> Result<Self, Failure> {
        Ok(Self {
            exchange: short(format!("{prefix}{EXCHANGE}"))?,
            subscribed: watch::Sender::default(),
            changing: Mutex::default(),
            rests: std::sync::Mutex::default(),
        })
    }

    pub(super) fn exchange(&self) -> &ShortString {
        &self.exchange
    }

    /// Whether this process saw to it that a queue for what rests keeps what it takes.
    pub(super) fn knows_rest(&self, name: &ShortString) -> bool {
        self.rests().contains(name)
    }

    fn rests(&self) -> std::sync::MutexGuard<'_, BTreeSet<ShortString>> {
        self.rests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subscribed(&self) -> watch::Receiver<BTreeMap<String, Subscribed>> {
        self.subscribed.subscribe()
    }
}

impl Shared {
    /// Makes a queue what it should be. With `wanted`, that is all it is bound by; without, it is bound by what was
    /// last said, by whatever process.
    pub(super) async fn declare(
        &self,
        queue: &Arc<Queue>,
        wanted: Option<&[TopicPattern]>,
    ) -> Result<(), Failure> {
        let live = self.incoming.up(self.deadline()).await?;
        let channel = self.incoming.channel(&live).await?;
        declare_exchange(&self.incoming, &live, &channel, &self.topology.exchange).await?;
        let queues = [
            (&queue.dead, keeping()),
            (&queue.main, queue.main_arguments()),
            (&queue.patterns, keeping_one()),
        ];
        self.make(&live, &queues).await?;
        self.bind(&live, &channel, queue, wanted).await?;
        if let Some(wanted) = wanted {
            let subscribed = Subscribed {
                queue: Arc::clone(queue),
                patterns: wanted.to_vec(),
            };
            self.topology.subscribed.send_modify(|all| {
                all.insert(queue.name.clone(), subscribed);
            });
        }
        Ok(())
    }

    /// Makes the queue for what rests for `delay`.
    pub(super) async fn declare_rest(&self, queue: &Queue, delay: Duration) -> Result<(), Failure> {
        if let Some(name) = queue.rest(delay) {
            let live = self.incoming.up(self.deadline()).await?;
            self.make(&live, &[(name, queue.rest_arguments(delay))])
                .await?;
            self.topology.rests().insert(name.clone());
        }
        Ok(())
    }

    /// Makes the queue for what is given up.
    pub(super) async fn declare_dead(&self, queue: &Queue) -> Result<(), Failure> {
        let live = self.incoming.up(self.deadline()).await?;
        self.make(&live, &[(&queue.dead, keeping())]).await
    }

    /// Deletes a queue and those that belong to it. The main one first: nothing comes into the others then.
    pub(super) async fn delete(&self, queue: &Queue) -> Result<(), Failure> {
        // Nobody looks for its dead letters any more.
        self.topology.subscribed.send_modify(|all| {
            all.remove(&queue.name);
        });
        let _alone = self.topology.changing.lock().await;
        let live = self.incoming.up(self.deadline()).await?;
        let channel = self.incoming.channel(&live).await?;
        let rests = queue.rests.values();
        for name in [&queue.main]
            .into_iter()
            .chain(rests)
            .chain([&queue.dead, &queue.patterns])
        {
            let deleted = channel.queue_delete(name.clone(), QueueDeleteOptions::default());
            let what = format!("the queue {:?} can't be deleted", name.as_str());
            self.incoming.call(&live, &what, deleted).await?;
            self.topology.rests().remove(name);
        }
        Ok(())
    }

    async fn bind(
        &self,
        live: &Live,
        channel: &Channel,
        queue: &Queue,
        wanted: Option<&[TopicPattern]>,
    ) -> Result<(), Failure> {
        let _alone = self.topology.changing.lock().await;
        let recorded = self.recorded(live, channel, queue).await?;
        let target: BTreeSet<TopicPattern> = match (wanted, &recorded) {
            (Some(wanted), _) => wanted.iter().cloned().collect(),
            (None, Some(recorded)) => recorded.clone(),
            (None, None) => {
                let subscribed = self.topology.subscribed.borrow();
                let patterns = subscribed.get(&queue.name).map(|own| own.patterns.clone());
                patterns.unwrap_or_default().into_iter().collect()
            }
        };
        let before = recorded.clone().unwrap_or_default();
        let obsolete: Vec<_> = before.difference(&target).collect();
        // What is bound is always on record, whenever this breaks off.
        if !obsolete.is_empty() {
            let both = before.union(&target).cloned().collect();
            self.record(queue, &both).await?;
        } else if recorded.as_ref() != Some(&target) {
            self.record(queue, &target).await?;
        }
        for pattern in &target {
            let (key, exchange) = (short(pattern.to_string())?, self.topology.exchange.clone());
            let options = QueueBindOptions::default();
            let bound = channel.queue_bind(
                queue.main.clone(),
                exchange,
                key,
                options,
                FieldTable::default(),
            );
            self.incoming.call(live, "not bound", bound).await?;
        }
        for pattern in &obsolete {
            let (key, exchange) = (short(pattern.to_string())?, self.topology.exchange.clone());
            let unbound =
                channel.queue_unbind(queue.main.clone(), exchange, key, FieldTable::default());
            self.incoming.call(live, "not unbound", unbound).await?;
        }
        if !obsolete.is_empty() {
            self.record(queue, &target).await?;
        }
        Ok(())
    }

    /// What a queue is bound by, as far as is known.
    async fn recorded(
        &self,
        live: &Live,
        channel: &Channel,
        queue: &Queue,
    ) -> Result<Option<BTreeSet<TopicPattern>>, Failure> {
        let got = channel.basic_get(queue.patterns.clone(), BasicGetOptions::default());
        let name = queue.patterns.as_str();
        let what = format!(
            "no record of patterns in the queue {name:?} (if it stays so, most nodes of that queue are away, or its data \
             is damaged: then delete it with `rabbitmqctl delete_queue {name}`, and it is made anew)"
        );
        let Some(record) = self.incoming.call(live, &what, got).await? else {
            return Ok(None);
        };
        let back = record.acker.nack(BasicNackOptions {
            requeue: true,
            ..BasicNackOptions::default()
        });
        self.incoming
            .call(live, "the record is not back", back)
            .await?;
        let patterns = serde_json::from_slice(&record.data);
        Ok(patterns
            .inspect_err(|error| {
                let queue = queue.name.as_str();
                tracing::warn!(queue, %error, "the record of a queue's patterns is unreadable, old ones may stay bound");
            })
            .ok())
    }

    async fn record(
        &self,
        queue: &Queue,
        patterns: &BTreeSet<TopicPattern>,
    ) -> Result<(), Failure> {
        let parcel = message::record(&queue.patterns, patterns)?;
        match self.publisher.send(&parcel, self.deadline()).await? {
            Sent::Kept => Ok(()),
            Sent::NoQueue => Err(Failure::unavailable("the queue of patterns was deleted")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_broker_could_not_take_are_refused() {
        for (prefix, name) in [("", ""), ("", "amq.q"), ("amq.", "q")] {
            let refused = Queue::new(prefix, name.to_owned()).unwrap_err();
            assert!(refused.is_final(), "{prefix}{name}");
        }
        let longest = "q".repeat(255 - ".retry.1000.settled".len());
        assert!(Queue::new("", longest.clone()).is_ok());
        let refused = Queue::new("p", longest).unwrap_err();
        assert!(
            refused.message().contains("255 bytes"),
            "{}",
            refused.message()
        );
    }

    #[test]
    fn there_is_a_queue_for_each_rest() {
        let queue = Queue::new("test.", "q".to_owned()).unwrap();
        let names: Vec<_> = (1..MAX_ATTEMPTS)
            .map(|attempt| {
                queue
                    .rest(retry_delay(attempt).unwrap())
                    .unwrap()
                    .to_string()
            })
            .collect();
        let expected = [1000, 2000, 4000, 8000].map(|delay| format!("test.q.retry.{delay}"));
        assert_eq!(names, expected);
    }
}
