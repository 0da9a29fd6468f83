//! Events: what happened, addressed by topic, in the shape of CloudEvents 1.0.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

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
}

/// The topics that AgentRunner itself publishes to.
pub mod topics {
    use super::{AgentName, ExecutionId, Topic};

    fn topic(text: String) -> Option<Topic> {
        text.parse().ok()
    }

    /// A new execution of the autonomous mode waits to be claimed.
    pub const AUTONOMOUS_SUBMITTED: &str = "autonomous.task.submitted";
    /// An execution ended well.
    pub const EXECUTION_COMPLETED: &str = "agent.execution.completed";
    /// An execution ended otherwise.
    pub const EXECUTION_FAILED: &str = "agent.execution.failed";

    /// The answers of one agent.
    pub fn output(agent: &AgentName) -> Option<Topic> {
        topic(format!("agent.output.{agent}"))
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
