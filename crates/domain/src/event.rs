//! Events: what happened, addressed by topic, in the shape of CloudEvents 1.0.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use uuid::Uuid;

use crate::id::{EventId, TraceId};
use crate::topic::Topic;
use crate::{AgentName, ExecutionId, Time};

/// How many events may have caused one another before the chain is cut: bounds loops between agents.
pub const MAX_HOPS: u8 = 16;

/// Something that happened. Delivered at least once; consumers deduplicate by `id`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Event {
    /// Unique to the happening, not to the delivery.
    pub id: EventId,
    /// What it is about; the routing key on the bus.
    pub topic: Topic,
    /// Who says so: `agentrunner/{agent}` or a path of the API.
    pub source: String,
    /// When it happened.
    pub time: Time,
    /// The trace that it belongs to.
    pub trace_id: TraceId,
    /// How many events led to this one.
    #[serde(default)]
    pub hops: u8,
    /// The facts.
    pub data: Value,
}

impl Event {
    /// As a CloudEvents 1.0 JSON envelope, the form in which it leaves the process.
    pub fn to_cloud_event(&self) -> Value {
        serde_json::json!({
            "specversion": "1.0",
            "id": self.id,
            "source": self.source,
            "type": self.topic,
            "time": self.time,
            "datacontenttype": "application/json",
            "subject": self.topic,
            "traceparent": format!("00-{}-{}-01", self.trace_id, self.trace_id.as_str().get(..16).unwrap_or_default()),
            "hops": self.hops,
            "data": self.data,
        })
    }

    /// Reads a CloudEvents 1.0 JSON envelope: the inverse of [`Event::to_cloud_event`], and lenient towards what
    /// others publish. Without `traceparent` the trace id follows from the event id, so that each reading of one
    /// envelope gives the same event; what it knows nothing of is passed over.
    ///
    /// # Errors
    /// When it is no envelope, or lacks `id`, `source`, `type` or `time`.
    pub fn from_cloud_event(envelope: Value) -> Result<Self, InvalidCloudEvent> {
        let envelope: Envelope =
            serde_json::from_value(envelope).map_err(|e| InvalidCloudEvent(e.to_string()))?;
        if envelope.specversion != "1.0" {
            let version = envelope.specversion.chars().take(20).collect::<String>();
            let message = format!("specversion is {version:?}, not \"1.0\"");
            return Err(InvalidCloudEvent(message));
        }
        let trace_id = match &envelope.traceparent {
            Some(parent) => trace_of(parent).ok_or_else(|| {
                InvalidCloudEvent("traceparent is not that of W3C Trace Context".to_owned())
            })?,
            None => {
                let id = envelope.id.as_str().as_bytes();
                TraceId::from_uuid(Uuid::new_v5(&Uuid::NAMESPACE_OID, id))
            }
        };
        Ok(Self {
            id: envelope.id,
            topic: envelope.topic,
            source: envelope.source,
            time: envelope.time,
            trace_id,
            hops: envelope.hops,
            data: envelope.data,
        })
    }
}

/// Why a JSON value is not an event.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a CloudEvents 1.0 envelope: {0}")]
pub struct InvalidCloudEvent(String);

/// What is read of an envelope.
#[derive(Deserialize)]
struct Envelope {
    specversion: String,
    id: EventId,
    source: String,
    #[serde(rename = "type")]
    topic: Topic,
    time: Time,
    traceparent: Option<String>,
    #[serde(default)]
    hops: u8,
    #[serde(default)]
    data: Value,
}

/// The trace id in `{version}-{trace id}-{parent id}-{flags}`.
fn trace_of(parent: &str) -> Option<TraceId> {
    let id = parent.split('-').nth(1)?;
    (id.len() == 32).then(|| id.parse().ok())?
}

/// The topics that AgentRunner itself publishes to.
pub mod topics {
    use super::{AgentName, ExecutionId, Topic};

    /// How they begin.
    const OWN: [&str; 11] = [
        "agent.execution.",
        "agent.health.",
        "agent.output.",
        "agent.registered",
        "agent.tool.",
        "autonomous.task.",
        "collaboration.completed.",
        "collaborative.task.",
        "config.changed.",
        "continuous.task.",
        "scheduled.task.",
    ];

    /// Whether only AgentRunner itself speaks on a topic: what is said there must be true.
    pub fn is_own(topic: &Topic) -> bool {
        OWN.iter().any(|own| topic.as_str().starts_with(own))
    }

    fn topic(text: String) -> Option<Topic> {
        text.parse().ok()
    }

    /// A new execution of the autonomous mode waits to be claimed.
    pub const AUTONOMOUS_SUBMITTED: &str = "autonomous.task.submitted";
    /// An execution ended well.
    pub const EXECUTION_COMPLETED: &str = "agent.execution.completed";
    /// An execution ended otherwise.
    pub const EXECUTION_FAILED: &str = "agent.execution.failed";

    /// A server changed a tool of an agent's, which is withheld now.
    pub const TOOL_CHANGED: &str = "agent.tool.changed";

    /// The answers of one agent.
    pub fn output(agent: &AgentName) -> Option<Topic> {
        topic(format!("agent.output.{agent}"))
    }

    /// A schedule has started an execution of one agent.
    pub fn scheduled_task(agent: &AgentName) -> Option<Topic> {
        topic(format!("scheduled.task.{agent}"))
    }

    /// The definition of one agent changed.
    pub fn config_changed(agent: &AgentName) -> Option<Topic> {
        topic(format!("config.changed.{agent}"))
    }

    /// The end of one collaborative task.
    pub fn collaboration_completed(task: ExecutionId) -> Option<Topic> {
        topic(format!("collaboration.completed.{task}"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event() -> Event {
        Event {
            id: "evt/1 ü".parse().unwrap(),
            topic: "orders.created".parse().unwrap(),
            source: "agentrunner/tests".to_owned(),
            time: "2026-11-24T09:30:00.125000001Z".parse().unwrap(),
            trace_id: "0af7651916cd43dd8448eb211c80319c".parse().unwrap(),
            hops: 3,
            data: json!({ "b": [1, 2.5, null], "a": { "text": "grüße" } }),
        }
    }

    #[test]
    fn what_leaves_as_an_envelope_comes_back() {
        let text = event().to_cloud_event().to_string();
        let read = serde_json::from_str(&text).unwrap();
        assert_eq!(Event::from_cloud_event(read).unwrap(), event());
    }

    #[test]
    fn the_least_that_others_publish_is_an_event() {
        let least = json!({
            "specversion": "1.0", "id": "1", "source": "/shop", "type": "orders.paid",
            "time": "2026-11-24T10:30:00+01:00", "somethingelse": true,
        });
        let read = Event::from_cloud_event(least.clone()).unwrap();
        assert_eq!((read.hops, &read.data), (0, &Value::Null));
        assert_eq!(read.time.to_rfc3339(), "2026-11-24T09:30:00+00:00");
        assert_eq!(Event::from_cloud_event(least).unwrap(), read, "each time");
    }

    #[test]
    fn what_is_no_envelope_is_refused_with_the_reason() {
        let whole = event().to_cloud_event();
        for (field, bad, reason) in [
            ("specversion", json!("0.3"), "specversion is \"0.3\""),
            ("specversion", Value::Null, "invalid type: null"),
            ("id", json!(""), "event id"),
            ("type", json!("orders.*"), "pattern"),
            (
                "time",
                json!("yesterday"),
                "input contains invalid characters",
            ),
            ("traceparent", json!("00-0-0-01"), "traceparent"),
            (
                "traceparent",
                json!(format!("00-{}-0-01", "0".repeat(32))),
                "traceparent",
            ),
            ("hops", json!(256), "u8"),
        ] {
            let mut envelope = whole.clone();
            envelope[field] = bad;
            let error = Event::from_cloud_event(envelope).unwrap_err().to_string();
            assert!(error.contains(reason), "{field}: {error}");
        }
        for field in ["specversion", "id", "source", "type", "time"] {
            let mut envelope = whole.clone();
            envelope.as_object_mut().unwrap().remove(field);
            let error = Event::from_cloud_event(envelope).unwrap_err().to_string();
            assert!(
                error.contains(&format!("missing field `{field}`")),
                "{error}"
            );
        }
        assert!(Event::from_cloud_event(json!([1, 2])).is_err());
    }
}
