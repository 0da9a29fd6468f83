//! The agents of these tests, and the model that tells them what to do. Each call names its execution and its place in it, so
//! that the tool's book tells how often it was made.

use std::time::Duration;

use serde_json::{Value, json};
use testkit::ProviderStandIn;
use testkit::provider::{Answer, Request, Role};

use crate::product::Project;

/// What an agent does, turn by turn.
pub(super) const KINDS: [(&str, &[&str]); 6] = [
    ("charger", &["charge", "set", "charge"]),
    ("setter", &["set", "order"]),
    ("asker", &["ask_human", "charge"]),
    ("approver", &["approved_charge"]),
    ("delegator", &["helper", "charge"]),
    ("helper", &["charge"]),
];
/// Those that somebody outside asks for.
pub(super) const ASKED_FOR: usize = 5;

pub(super) fn provider() -> ProviderStandIn {
    ProviderStandIn::start(answer)
}

fn answer(request: &Request) -> Answer {
    // Different each time, so that the backup and the loss find executions at all places.
    let pause = Duration::from_millis(10 + (request.number as u64 * 7919) % 700);
    let system = request.messages.iter().find(|m| m.role == Role::System);
    let kind = system.and_then(|system| system.text.strip_prefix("You are "));
    let kind = kind.map(|kind| kind.trim_end_matches(|c: char| !c.is_alphabetic()));
    let kind = kind.map(|kind| kind.split(['.', '\n']).next().unwrap_or(kind));
    let name = name_in(request.last_user());
    let calls = KINDS.iter().find(|(name, _)| Some(*name) == kind);
    let call = calls.and_then(|(_, calls)| calls.get(request.turn));
    let answer = match call {
        None => Answer::say("done"),
        Some(&"ask_human") => Answer::call("ask_human", json!({ "question": "Shall I?" })),
        Some(&"helper") => Answer::call("helper", json!({ "task": format!("{name}-child") })),
        Some(tool) => Answer::call(*tool, json!({ "what": format!("{name}.{}", request.turn) })),
    };
    answer.after(pause)
}

/// The name of the execution that is told this.
fn name_in(text: &str) -> String {
    let value: Option<Value> = serde_json::from_str(text).ok();
    let task = value.as_ref().and_then(|value| value["task"].as_str());
    task.unwrap_or(text).to_owned()
}

/// Writes the agents' files; one of them works by itself, every second.
pub(super) fn write(project: &Project, url: &str) {
    for (kind, calls) in KINDS {
        let mut text = format!(
            "name: {kind}\nexecution_mode: autonomous\nsystem_prompt: You are {kind}.\n\
             llm_config: {{ provider: openai, model: gpt-4o-mini }}\ntools:\n"
        );
        let mut calls = calls.to_vec();
        calls.sort_unstable();
        calls.dedup();
        for tool in calls {
            text += &entry(tool, url);
        }
        project.agent(kind, &text);
    }
    project.agent(
        "ticker",
        "name: ticker\nexecution_mode: scheduled\nsystem_prompt: You are ticker.\n\
         llm_config: { provider: openai, model: gpt-4o-mini }\n\
         schedule_config: { type: cron, cron: '* * * * * *', misfire_policy: once }\n",
    );
}

fn entry(tool: &str, url: &str) -> String {
    const WHAT: &str =
        "parameters: { type: object, properties: { what: { type: string } }, required: [what] }";
    let charge = format!(
        "name: charge, type: api, method: POST, url: '{url}/charge', body: {{ what: '{{what}}' }}, {WHAT}"
    );
    match tool {
        "set" => format!(
            "  - {{ name: set, type: api, method: PUT, url: '{url}/set/{{what}}', body: {{ value: 1 }}, effect: idempotent, {WHAT} }}\n"
        ),
        "order" => format!(
            "  - {{ name: order, type: api, method: POST, url: '{url}/order', body: {{ what: '{{what}}' }}, effect: checkable, check: check, {WHAT} }}\n  \
             - {{ name: check, type: api, method: POST, url: '{url}/order/check', effect: read_only, body: {{ key: '{{idempotency_key}}' }}, \
             parameters: {{ type: object, properties: {{ idempotency_key: {{ type: string }} }} }} }}\n"
        ),
        "charge" => format!("  - {{ {charge} }}\n"),
        "approved_charge" => format!(
            "  - {{ {}, requires_approval: true }}\n",
            charge.replacen("charge", "approved_charge", 1)
        ),
        "helper" => "  - { name: helper, type: agent }\n".to_owned(),
        other => format!("  - {{ name: {other}, type: function }}\n"),
    }
}
