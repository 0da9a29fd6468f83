//! The JSON Schema of an agent's YAML: what editors complete by, and what [`super::shape`] checks a file against.
//!
//! It comes from the types of the domain, so that it cannot say anything else than they do. It is written for
//! draft-07, which is what editors understand.

use std::sync::OnceLock;

use domain::Definition;
use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

/// The JSON Schema of an agent's file.
pub fn schema() -> &'static Value {
    static SCHEMA: OnceLock<Value> = OnceLock::new();
    SCHEMA.get_or_init(build)
}

fn build() -> Value {
    let root = SchemaSettings::draft07()
        .into_generator()
        .into_root_schema_for::<Definition>();
    let mut schema = root.to_value();
    set(&mut schema, "", "title", json!("AgentRunner agent"));
    set(
        &mut schema,
        "",
        "description",
        json!("One agent of AgentRunner: who it is, which model answers, what it may call."),
    );
    set(&mut schema, "", "examples", examples());
    // Other spellings that are accepted; serde's aliases are not part of the generated schema.
    let bedrock =
        json!({"description": "The same as bedrock.", "type": "string", "const": "aws_bedrock"});
    if let Some(words) = schema
        .pointer_mut("/definitions/Provider/oneOf")
        .and_then(Value::as_array_mut)
    {
        words.push(bedrock);
    }
    if let Some(cron) = schema
        .pointer("/definitions/ScheduleConfig/properties/cron")
        .cloned()
    {
        set(
            &mut schema,
            "/definitions/ScheduleConfig/properties",
            "cron_expression",
            cron,
        );
    }
    for (pointer, pattern) in [
        ("/definitions/AgentName", "^[a-z0-9][a-z0-9_-]{0,62}$"),
        ("/definitions/TopicPattern", r"^[^.]+(\.[^.]+)*$"),
    ] {
        set(&mut schema, pointer, "pattern", json!(pattern));
    }
    for (pointer, example) in FIELD_EXAMPLES {
        set(&mut schema, pointer, "examples", json!([example]));
    }
    schema
}

/// An example for each field that a newcomer has to guess at.
const FIELD_EXAMPLES: [(&str, &str); 7] = [
    ("/properties/name", "incident-writer"),
    (
        "/properties/system_prompt",
        "You read logs and write short incident reports.",
    ),
    ("/definitions/LlmConfig/properties/model", "gpt-4o-mini"),
    (
        "/definitions/LlmConfig/properties/api_base",
        "http://localhost:8000/v1",
    ),
    (
        "/definitions/LlmConfig/properties/api_key",
        "${OPENAI_API_KEY}",
    ),
    ("/definitions/ScheduleConfig/properties/cron", "0 9 * * 1-5"),
    (
        "/definitions/ScheduleConfig/properties/timezone",
        "Europe/Berlin",
    ),
];

fn examples() -> Value {
    json!([{
        "name": "incident-writer",
        "execution_mode": "autonomous",
        "llm_config": {"provider": "openai", "model": "gpt-4o-mini"},
        "system_prompt": "You read logs and write short incident reports.",
        "tools": [{"name": "read_file", "type": "function", "root": "./logs"}]
    }])
}

fn set(schema: &mut Value, pointer: &str, key: &str, value: Value) {
    if let Some(Value::Object(fields)) = schema.pointer_mut(pointer) {
        fields.insert(key.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schema_is_draft_07_and_accepts_its_own_example() {
        let schema = schema();
        assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
        assert!(schema.get("$defs").is_none());
        let validator = jsonschema::draft7::new(schema).unwrap();
        assert!(validator.is_valid(&schema["examples"][0]));
        assert!(!validator.is_valid(&json!({"name": "x", "colour": "red"})));
    }

    #[test]
    fn every_example_has_a_place() {
        for (pointer, example) in FIELD_EXAMPLES {
            let field = schema().pointer(pointer).expect(pointer);
            assert_eq!(field["examples"][0], example);
        }
    }

    #[test]
    fn every_object_is_closed_and_every_field_described() {
        fn walk(value: &Value, at: &str) {
            if let Some(properties) = value["properties"].as_object() {
                assert_eq!(value["additionalProperties"], false, "{at}");
                for (name, field) in properties {
                    let is_tag = field.get("const").is_some();
                    assert!(is_tag || field.get("description").is_some(), "{at}.{name}");
                    walk(field, &format!("{at}.{name}"));
                }
            }
            for key in ["oneOf", "anyOf", "allOf"] {
                for item in value[key].as_array().into_iter().flatten() {
                    walk(item, at);
                }
            }
        }
        walk(schema(), "");
        for (name, definition) in schema()["definitions"].as_object().unwrap() {
            walk(definition, name);
        }
    }
}
