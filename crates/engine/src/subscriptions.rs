//! Starts an execution of every agent that wants an event: one for each (agent, event id), however often the event is
//! met with.
//!
//! It is met with twice. The relay starts them while the event still lies in the outbox ([`start`]): that is the fact,
//! and nothing that happens to the bus can undo it. The queue of subscriptions ([`listen`]) brings what others publish
//! straight to the bus, and turns what can't be started into a dead letter.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bus::{Consumer, Delivery, Subscription};
use domain::event::MAX_HOPS;
use domain::{Event, TopicPattern};
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;
use crate::task::{self, NewTask};
use crate::{Agent, Error};

/// The queue that holds events for agents; all processes share it.
const QUEUE: &str = "agent-subscriptions";
/// How long to wait before trying to join the queue again.
const PAUSE: Duration = Duration::from_secs(2);

/// Listens until `stop`. The queue's patterns follow the agents' files live.
pub(crate) async fn listen(core: Arc<Shared>, stop: CancellationToken) {
    let mut changed = core.agents.changed();
    loop {
        changed.borrow_and_update();
        let consumer = match core
            .ports
            .bus
            .subscribe(subscription(&core.agents.all()))
            .await
        {
            Ok(consumer) => Some(consumer),
            Err(error) => {
                tracing::error!("events start no agents for now: {error}");
                None
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            _ = changed.changed() => {}
            () = consume(&core, consumer) => {}
        }
    }
}

/// Takes events until the consumer ends.
async fn consume(core: &Shared, consumer: Option<Box<dyn Consumer>>) {
    if let Some(mut consumer) = consumer {
        while let Some(delivery) = consumer.next().await {
            deliver(core, delivery).await;
        }
    }
    tokio::time::sleep(PAUSE).await;
}

fn subscription(agents: &[Agent]) -> Subscription {
    let patterns: BTreeSet<TopicPattern> = agents
        .iter()
        .flat_map(|agent| agent.definition.event_subscriptions.iter().cloned())
        .collect();
    Subscription {
        queue: QUEUE.to_owned(),
        patterns: patterns.into_iter().collect(),
        prefetch: 64,
    }
}

async fn deliver(core: &Shared, delivery: Delivery) {
    if delivery.event.hops > MAX_HOPS {
        let hops = delivery.event.hops;
        return delivery.reject(format!(
            "{hops} events led to this one, more than {MAX_HOPS}: the agents that publish and subscribe form a loop"
        ));
    }
    match start(core, &delivery.event).await {
        Ok(()) => delivery.done(),
        // Delivered again, it starts only those that it has not started.
        Err(later @ (Error::Store(_) | Error::QueueFull { .. })) => {
            delivery.retry(later.to_string())
        }
        Err(refused) => delivery.reject(refused.to_string()),
    }
}

/// Starts the agents that want an event and that it has not started yet. When this answers, they are on disk.
///
/// # Errors
/// The store can't take one, or an agent can't take the event: the first that couldn't. The others are started.
pub(crate) async fn start(core: &Shared, event: &Event) -> Result<(), Error> {
    let mut refusal = None;
    for agent in core.agents.all() {
        let wants = agent.definition.enabled
            && agent
                .definition
                .event_subscriptions
                .iter()
                .any(|pattern| pattern.matches(&event.topic));
        if !wants {
            continue;
        }
        match task::submit(core, task(&agent, event)).await {
            Ok(accepted) => {
                tracing::debug!(execution_id = %accepted.id, agent_name = %accepted.agent, "started by an event");
            }
            Err(error @ Error::Store(_)) => return Err(error),
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    refusal.map_or(Ok(()), Err)
}

fn task(agent: &Agent, event: &Event) -> NewTask {
    let input = serde_json::json!({
        "event": { "id": event.id, "topic": event.topic, "source": event.source, "time": event.time, "data": event.data },
    });
    NewTask {
        event_id: Some(event.id.clone()),
        hops: event.hops,
        ..NewTask::new(
            agent.definition.name.as_str(),
            input,
            event.trace_id.clone(),
        )
    }
}
