//! The agents of the simulated world.

use std::collections::BTreeMap;
use std::sync::Arc;

use agentrunner_engine::{Agent, Agents};
use domain::{AgentName, Definition, Time};
use serde_json::{Value, json};
use store::ConfigRecord;

/// Does what it is asked with tools of every effect, people and another agent.
pub(crate) const MAIN: &str = "main";
/// Is given work by the main one and by events; two at once per worker at most.
pub(crate) const HELPER: &str = "helper";
/// Is started by events only, and has no tools.
pub(crate) const LISTENER: &str = "listener";
/// What starts the helper and the listener.
pub(crate) const TOPIC: &str = "orders.created";

fn tool(name: &str, more: Value) -> Value {
    let mut tool =
        json!({ "name": name, "type": "api", "url": "http://127.0.0.1/", "timeout_seconds": 20 });
    tool.as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    tool
}

fn definition(name: &str, more: Value) -> Definition {
    let mut value = json!({
        "name": name, "execution_mode": "autonomous", "system_prompt": format!("You are agent {name}."),
        "llm_config": { "provider": "scripted", "model": "m", "timeout": 30 },
        "retry_config": { "retry_delay_seconds": 1, "max_retries": 3, "max_retry_delay": 10 },
    });
    value
        .as_object_mut()
        .unwrap()
        .extend(more.as_object().unwrap().clone());
    serde_json::from_value(value).unwrap()
}

fn definitions() -> [Definition; 3] {
    let look = tool("look", json!({ "effect": "read_only" }));
    let put = tool("put", json!({ "effect": "idempotent" }));
    let order = tool("order", json!({ "effect": "checkable", "check": "look" }));
    let charge = tool("charge", json!({ "effect": "unsafe" }));
    let pay = tool("pay", json!({ "effect": "unsafe", "on_unknown": "fail" }));
    let delete = tool(
        "delete",
        json!({ "effect": "unsafe", "requires_approval": true }),
    );
    let ask = json!({ "name": "ask", "type": "function", "function": "ask_human" });
    let helper = json!({ "name": HELPER, "type": "agent" });
    let tools = json!([look, put, order, charge, pay, delete, ask, helper]);
    [
        definition(MAIN, json!({ "tools": tools, "timeout_seconds": 90 })),
        definition(
            HELPER,
            json!({ "tools": [look, order, charge], "timeout_seconds": 60, "concurrency": 2,
                "event_subscriptions": ["orders.*"] }),
        ),
        definition(
            LISTENER,
            json!({ "timeout_seconds": 60, "event_subscriptions": ["orders.created"] }),
        ),
    ]
}

/// The definitions as the store keeps them.
pub(crate) fn records(now: Time) -> Vec<ConfigRecord> {
    let record = |definition: Definition| ConfigRecord {
        version: definition.content_hash(),
        definition,
        source: String::new(),
        path: "agents.yml".to_owned(),
        loaded_at: now,
    };
    definitions().into_iter().map(record).collect()
}

/// The agents as a worker knows them.
pub(crate) fn agents(records: &[ConfigRecord]) -> Agents {
    let agents = Agents::new(Arc::new(|definition: &Definition| Ok(definition.clone())));
    let one = |record: &ConfigRecord| {
        let agent = Agent {
            definition: Arc::new(record.definition.clone()),
            version: record.version.clone(),
            path: record.path.clone(),
            loaded_at: record.loaded_at,
            rejected: None,
            switched_off: None,
        };
        (record.definition.name.clone(), agent)
    };
    agents.replace(
        records
            .iter()
            .map(one)
            .collect::<BTreeMap<AgentName, Agent>>(),
    );
    agents
}
