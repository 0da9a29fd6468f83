//! Carries the outbox to the bus, and what the bus could not deliver back into the store.

use std::sync::Arc;
use std::time::Duration;

use domain::{EventId, Time};
use store::DeadLetter;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::Ports;
use crate::shared::Shared;

/// How many events are carried at once.
const BATCH: usize = 256;
/// How long a publish may take before it is tried again.
const PATIENCE: Duration = Duration::from_secs(10);

/// Publishes what the outbox holds until `stop`, and once more after it. An event is forgotten only after the bus has
/// it, so a crash in between publishes it twice, and consumers deduplicate by its id.
pub(crate) async fn relay(core: Arc<Shared>, stop: CancellationToken) {
    let signal = core.ports.store.outbox_signal().unwrap_or_default();
    loop {
        let more = carry(&core.ports).await;
        if stop.is_cancelled() {
            return;
        }
        if more == Some(BATCH) {
            continue;
        }
        wait(&signal, more.is_none(), &stop).await;
    }
}

async fn wait(signal: &Notify, failed: bool, stop: &CancellationToken) {
    let pause = if failed {
        Duration::from_secs(1)
    } else {
        Duration::from_secs(2)
    };
    tokio::select! {
        () = signal.notified(), if !failed => {}
        () = tokio::time::sleep(pause) => {}
        () = stop.cancelled() => {}
    }
}

/// Carries one batch: how many there were, or `None` when it did not work.
async fn carry(ports: &Ports) -> Option<usize> {
    let entries = match ports.store.outbox(BATCH).await {
        Ok(entries) => entries,
        Err(error) => {
            tracing::error!("the outbox can't be read: {error}");
            return None;
        }
    };
    let mut delivered = Vec::with_capacity(entries.len());
    for entry in &entries {
        match tokio::time::timeout(PATIENCE, ports.bus.publish(&entry.event)).await {
            Ok(Ok(())) => delivered.push(entry.id),
            Ok(Err(error)) => {
                tracing::warn!(topic = %entry.event.topic, "an event waits: {error}");
                break;
            }
            Err(_) => {
                tracing::warn!(topic = %entry.event.topic, "an event waits: the message queue does not answer");
                break;
            }
        }
    }
    let all = delivered.len() == entries.len();
    if !delivered.is_empty()
        && let Err(error) = ports.store.outbox_done(&delivered).await
    {
        tracing::error!("the outbox can't be written, events will be sent twice: {error}");
        return None;
    }
    all.then_some(entries.len())
}

/// Puts what no consumer could process where a person finds it.
pub(crate) async fn collect_dead_letters(core: Arc<Shared>, stop: CancellationToken) {
    let mut letters = match core.ports.bus.dead_letters().await {
        Ok(letters) => letters,
        Err(error) => {
            tracing::error!("dead letters can't be collected: {error}");
            return;
        }
    };
    loop {
        let delivery = tokio::select! {
            delivery = letters.next() => delivery,
            () = stop.cancelled() => return,
        };
        let Some(delivery) = delivery else { return };
        let letter = letter(&delivery, core.now());
        tracing::warn!(queue = %letter.queue, topic = %letter.event.topic, "dead letter: {}", letter.reason);
        match core.ports.store.add_dead_letter(letter).await {
            Ok(()) => delivery.done(),
            Err(error) => delivery.retry(error.to_string()),
        }
    }
}

fn letter(delivery: &bus::Delivery, at: Time) -> DeadLetter {
    DeadLetter {
        id: Uuid::now_v7().to_string(),
        queue: delivery.queue.clone(),
        event: delivery.event.clone(),
        reason: delivery
            .reason
            .clone()
            .unwrap_or_else(|| "no reason given".to_owned()),
        attempts: delivery.attempt,
        at,
    }
}

/// Listens for hints that there is work.
pub(crate) async fn listen(
    queue: String,
    patterns: Vec<domain::TopicPattern>,
    core: Arc<Shared>,
    stop: CancellationToken,
) {
    let subscription = bus::Subscription {
        queue,
        patterns,
        prefetch: 64,
    };
    let mut hints = match core.ports.bus.subscribe(subscription).await {
        Ok(hints) => hints,
        Err(error) => {
            tracing::error!("no hints of work, the store is asked instead: {error}");
            return;
        }
    };
    let mut last: Option<EventId> = None;
    loop {
        let delivery = tokio::select! {
            delivery = hints.next() => delivery,
            () = stop.cancelled() => return,
        };
        let Some(delivery) = delivery else { return };
        // A hint repeated is no news.
        if last.as_ref() != Some(&delivery.event.id) {
            core.hint.notify_one();
            last = Some(delivery.event.id.clone());
        }
        delivery.done();
    }
}
