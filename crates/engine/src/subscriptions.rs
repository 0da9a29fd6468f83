//! Starts an execution of every agent that wants an event: one for each (agent, event id), however often the event is
//! met with.
//!
//! It is met with twice. The relay starts them while the event still lies in the outbox ([`start`]): that is the fact,
//! and nothing that happens to the bus can undo it. The queue of subscriptions ([`listen`]) brings what others publish
//! straight to the bus, and turns what can't be started into a dead letter.
//!
//! Neither keeps an order. So an event that is a message of a conversation is given its place there before its publisher is
//! answered ([`take_places`]), and so before the next message of the same publisher can come.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bus::{Consumer, Delivery, Subscription};
use domain::event::MAX_HOPS;
use domain::{Event, TopicPattern};
use serde_json::{Value, json};
use store::{ExecutionFilter, Page};
use tokio_util::sync::CancellationToken;

use crate::shared::Shared;
use crate::task::{self, NewTask};
use crate::{Agent, Error};

/// The queue that holds events for agents; all processes share it.
pub const QUEUE: &str = "agent-subscriptions";
/// How long to wait before trying to join the queue again.
const PAUSE: Duration = Duration::from_secs(2);
/// From how many events that led to one another on the executions of the trace are counted.
const LONG_CHAIN: u8 = 4;
/// How many executions a trace may have for a long chain to start another.
const MOST_OF_A_TRACE: u64 = 1000;

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
/// The event is one of a loop, the store can't take an execution, or an agent can't take the event: the first that
/// couldn't. The others are started.
pub(crate) async fn start(core: &Shared, event: &Event) -> Result<(), Error> {
    start_all(core, event, core.agents.started_by(event)).await
}

/// Starts those agents for whom the event is a message of a conversation. What can't be started now is left to the relay,
/// as all others are.
pub(crate) async fn take_places(core: &Shared, event: &Event) {
    let mut agents = core.agents.started_by(event);
    agents.retain(|agent| {
        let config = agent.definition.continuous_config.as_ref();
        // What names no conversation has no place in one.
        config.is_some_and(|config| matches!(config.conversation_of(&input(event)), Ok(Some(_))))
    });
    if let Err(error) = start_all(core, event, agents).await {
        tracing::debug!(topic = %event.topic, "an event has no place yet in a conversation: {error}");
    }
}

async fn start_all(core: &Shared, event: &Event, agents: Vec<Agent>) -> Result<(), Error> {
    if agents.is_empty() {
        return Ok(());
    }
    refuse_loops(core, event).await?;
    core.learn_restored().await?;
    let mut refusal = None;
    for agent in agents {
        match task::submit(core, task(core, &agent, event)).await {
            Ok(accepted) => {
                tracing::debug!(execution_id = %accepted.id, agent_name = %accepted.agent, "started by an event");
            }
            Err(error @ Error::Store(_)) => return Err(error),
            Err(error) => refusal = refusal.or(Some(error)),
        }
    }
    refusal.map_or(Ok(()), Err)
}

/// Bounds what agents make of one another's events: how long a chain of them gets, and, as each may start several, how
/// many executions a chain that has become long has started.
async fn refuse_loops(core: &Shared, event: &Event) -> Result<(), Error> {
    let hops = event.hops;
    if hops > MAX_HOPS {
        return Err(Error::Loop(format!(
            "{hops} events led to this one, more than {MAX_HOPS}"
        )));
    }
    if hops < LONG_CHAIN {
        return Ok(());
    }
    let of_trace = ExecutionFilter {
        trace_id: Some(event.trace_id.clone()),
        ..ExecutionFilter::default()
    };
    let one = Page {
        limit: 1,
        after: None,
    };
    let (_, started) = core.ports.store.executions(of_trace, one).await?;
    let started = started.count;
    if started >= MOST_OF_A_TRACE {
        return Err(Error::Loop(format!(
            "{started} executions belong to its trace, and at most {MOST_OF_A_TRACE} are started by a chain of {LONG_CHAIN} or more events"
        )));
    }
    Ok(())
}

/// What an agent that the event starts is given.
fn input(event: &Event) -> Value {
    json!({
        "event": { "id": event.id, "topic": event.topic, "source": event.source, "time": event.time, "data": event.data },
    })
}

fn task(core: &Shared, agent: &Agent, event: &Event) -> NewTask {
    NewTask {
        event_id: Some(event.id.clone()),
        hops: event.hops,
        restored: core.doubt(event.time),
        ..NewTask::new(
            agent.definition.name.as_str(),
            input(event),
            event.trace_id.clone(),
        )
    }
}
