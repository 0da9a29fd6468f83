//! What a definition refuses, and what it forgives.

use agentrunner_domain::Definition;
use agentrunner_domain::definition::{Effect, Severity};
use serde_json::{Value, json};

use crate::simulation::definition;

fn read(value: Value) -> Result<Definition, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

fn with_tool(tool: Value) -> Value {
    json!({
        "name": "a", "execution_mode": "autonomous", "system_prompt": "x",
        "llm_config": { "provider": "openai", "model": "m" }, "tools": [tool],
    })
}

fn errors(definition: &Definition) -> Vec<String> {
    let problems = definition
        .problems()
        .into_iter()
        .filter(|problem| problem.severity == Severity::Error);
    problems.map(|problem| problem.path).collect()
}

#[test]
fn the_smallest_definition_is_valid_and_hashes_alike_everywhere() {
    let definition = definition(json!({ "tools": [] }));
    assert_eq!(definition.problems(), []);
    let again: Definition =
        serde_json::from_str(&serde_json::to_string(&definition).unwrap()).unwrap();
    assert_eq!(again.content_hash(), definition.content_hash());
    let other = Definition {
        max_steps: 7,
        ..definition.clone()
    };
    assert_ne!(other.content_hash(), definition.content_hash());
}

#[test]
fn unknown_and_misplaced_fields_are_refused() {
    let tool = json!({ "name": "t", "type": "function", "function": "calculate", "color": 1 });
    assert!(
        read(with_tool(tool))
            .unwrap_err()
            .contains("unknown field `color`")
    );
    let tool = json!({ "name": "t", "type": "function", "function": "calculate", "command": "sh" });
    assert!(
        read(with_tool(tool))
            .unwrap_err()
            .contains("`command` has no meaning for type \"function\"")
    );
    let tool = json!({ "name": "t", "type": "api" });
    assert!(
        read(with_tool(tool))
            .unwrap_err()
            .contains("needs the field `url`")
    );
}

#[test]
fn tools_come_back_from_json_as_they_were() {
    for tool in [
        json!({ "name": "fs", "type": "mcp", "command": "node", "args": ["x"], "effects": { "read": "read_only" }, "allow": ["read"] }),
        json!({ "name": "web", "type": "mcp", "url": "https://x/", "auth": { "type": "bearer_token", "token": "${T}" } }),
        json!({ "name": "get", "type": "api", "url": "https://x/{id}", "method": "PUT", "effect": "idempotent", "requires_approval": true }),
        json!({ "name": "calculate", "type": "function" }),
        json!({ "name": "b", "type": "agent" }),
    ] {
        let definition = read(with_tool(tool)).unwrap();
        let again = read(serde_json::to_value(&definition).unwrap()).unwrap();
        assert_eq!(again, definition);
    }
}

#[test]
fn every_problem_names_its_place() {
    for (change, path) in [
        (json!({ "system_prompt": " " }), "system_prompt"),
        (json!({ "max_steps": 0 }), "max_steps"),
        (json!({ "concurrency": 0 }), "concurrency"),
        (json!({ "timeout_seconds": 0 }), "timeout_seconds"),
        (json!({ "execution_mode": "scheduled" }), "schedule_config"),
        (
            json!({ "llm_config": { "provider": "openai", "model": "m", "temperature": 3.0 } }),
            "llm_config.temperature",
        ),
        (
            json!({ "llm_config": { "provider": "openai", "model": "m", "api_key": "sk-1" } }),
            "llm_config.api_key",
        ),
        (
            json!({ "llm_config": { "provider": "openai", "model": "m", "api_base": "ftp://x" } }),
            "llm_config.api_base",
        ),
        (
            json!({ "retry_config": { "max_retries": 99 } }),
            "retry_config.max_retries",
        ),
        (
            json!({ "tools": [{ "name": "x", "type": "function" }] }),
            "tools[0].name",
        ),
        (
            json!({ "tools": [{ "name": "read_file", "type": "function" }] }),
            "tools[0]",
        ),
        (
            json!({ "tools": [{ "name": "m", "type": "mcp" }] }),
            "tools[0]",
        ),
        (
            json!({ "tools": [{ "name": "a", "type": "agent" }] }),
            "tools[0].agent",
        ),
        (
            json!({ "tools": [{ "name": "g", "type": "api", "url": "https://x", "effect": "checkable" }] }),
            "tools[0].check",
        ),
        (
            json!({ "tools": [{ "name": "calculate", "type": "function" }, { "name": "calculate", "type": "function" }] }),
            "tools[1].name",
        ),
    ] {
        assert_eq!(errors(&definition(change.clone())), [path], "{change}");
    }
}

#[test]
fn a_coordinator_that_has_only_itself_or_nobody_twice_is_refused_in_words() {
    let coordinator = |config: Value| {
        let extra = json!({ "execution_mode": "collaborative", "collaborative_config": config });
        definition(extra).problems().into_iter()
    };
    for (config, path, words) in [
        (
            json!({ "preferred_collaborators": ["a", "b"] }),
            "preferred_collaborators[0]",
            "can't collaborate with itself",
        ),
        (
            json!({ "preferred_collaborators": ["b", "b"] }),
            "preferred_collaborators[1]",
            "named twice",
        ),
        (
            json!({ "preferred_collaborators": ["b"], "min_collaborators": 2 }),
            "preferred_collaborators",
            "at least 2 must take part",
        ),
        (
            json!({ "min_collaborators": 3, "max_collaborators": 2 }),
            "min_collaborators",
            "more than max_collaborators",
        ),
        (
            json!({ "max_plan_steps": 0 }),
            "max_plan_steps",
            "out of range",
        ),
    ] {
        let path = format!("collaborative_config.{path}");
        let mut errors = coordinator(config).filter(|p| p.severity == Severity::Error);
        let first = errors.next().unwrap();
        assert_eq!(first.path, path);
        assert!(first.message.contains(words), "{first:?}");
    }
}

#[test]
fn an_effect_that_nobody_declares_is_unsafe() {
    let effect = |tool: Value| read(with_tool(tool)).unwrap().tools[0].effect_of("t");
    assert_eq!(
        effect(json!({ "name": "t", "type": "api", "url": "https://x" })),
        Effect::Unsafe
    );
    assert_eq!(
        effect(json!({ "name": "calculate", "type": "function" })),
        Effect::ReadOnly
    );
    assert_eq!(
        effect(
            json!({ "name": "m", "type": "mcp", "url": "https://x", "effects": { "t": "read_only" } })
        ),
        Effect::ReadOnly
    );
}
