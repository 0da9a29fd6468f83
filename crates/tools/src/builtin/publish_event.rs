//! `publish_event`: tells others what happened. The event's id is the idempotency key, so that a repeated call is the
//! same event.

use domain::definition::FunctionTool;
use domain::event::{MAX_HOPS, topics};
use domain::{Event, Topic, TopicPattern};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Failure, arguments};
use crate::{Call, Clock, Host};

pub(super) const DESCRIPTION: &str =
    "Publishes an event, which may start other agents that subscribe to its topic.";

/// The largest event, in bytes of JSON.
const MAX_BYTES: usize = 256 << 10;

pub(super) fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "topic": {
                "type": "string",
                "description": "What it is about: words joined by dots, such as orders.created.",
                "minLength": 1,
                "maxLength": 255,
            },
            "data": {
                "description": "The facts, as JSON.",
            },
        },
        "required": ["topic", "data"],
        "additionalProperties": false,
    })
}

#[derive(Deserialize)]
struct Arguments {
    topic: Topic,
    data: Value,
}

pub(super) async fn call(
    host: &dyn Host,
    clock: &Clock,
    function: &FunctionTool,
    call: &Call<'_>,
) -> Result<Answer, Failure> {
    let Arguments { topic, data } = arguments(call)?;
    let allowed = &function.topics;
    if !allowed.is_empty() && !allowed.iter().any(|pattern| pattern.matches(&topic)) {
        let known: Vec<&str> = allowed.iter().map(TopicPattern::as_str).collect();
        let known = known.join(", ");
        return Err(Failure::refused(format!(
            "this agent may not publish to {topic}, only to {known}"
        )));
    }
    if topics::is_own(&topic) {
        return Err(Failure::refused(format!(
            "only AgentRunner itself publishes to {topic}; take another topic"
        )));
    }
    if data.to_string().len() > MAX_BYTES {
        return Err(Failure::refused(format!(
            "the data of an event has at most {MAX_BYTES} bytes of JSON"
        )));
    }
    if call.hops >= MAX_HOPS {
        return Err(Failure::refused(format!(
            "{MAX_HOPS} events led to this one; the chain is cut here, because it looks like a loop"
        )));
    }
    let id = call
        .idempotency_key
        .parse()
        .map_err(|error| Failure::refused(format!("{error}")))?;
    let event = Event {
        id,
        topic: topic.clone(),
        source: format!("agentrunner/{}", call.agent),
        time: clock(),
        trace_id: call.trace_id.clone(),
        hops: call.hops + 1,
        data,
    };
    host.publish(event).await.map_err(Failure::Failed)?;
    Ok(format!("published to {topic}").into())
}
