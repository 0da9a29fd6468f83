//! How a model is made to answer in a schema, where its provider can't enforce one.

use std::borrow::Cow;

use serde_json::{Map, Value};

/// The system prompt, with the schema that the answer must meet written out below it if there is one.
pub(crate) fn spelled_out<'a>(system: &'a str, schema: Option<&Value>) -> Cow<'a, str> {
    let Some(schema) = schema else {
        return Cow::Borrowed(system);
    };
    let space = if system.is_empty() { "" } else { "\n\n" };
    Cow::Owned(format!(
        "{system}{space}Your final answer must be a single JSON value that meets this JSON Schema, with no other \
         text around it:\n{schema}"
    ))
}

/// The keywords that OpenAI's strict mode knows. With any other it refuses the request; without strict mode, which
/// we then leave off, it takes the schema as a wish.
const STRICT: [&str; 19] = [
    "$defs",
    "$ref",
    "additionalProperties",
    "anyOf",
    "const",
    "description",
    "enum",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "items",
    "maxItems",
    "maximum",
    "minItems",
    "minimum",
    "multipleOf",
    "properties",
    "required",
    "title",
    "type",
];

/// Whether a schema keeps OpenAI's rules for strict mode: no keyword that it does not know, every object closed,
/// every property required.
pub(crate) fn is_strict(schema: &Value) -> bool {
    let Some(members) = schema.as_object() else {
        return false;
    };
    members
        .iter()
        .all(|(keyword, value)| match keyword.as_str() {
            "properties" | "$defs" => value
                .as_object()
                .is_some_and(|all| all.values().all(is_strict)),
            "anyOf" => value
                .as_array()
                .is_some_and(|all| all.iter().all(is_strict)),
            "items" => is_strict(value),
            keyword => STRICT.contains(&keyword),
        })
        && is_closed(members)
}

fn is_closed(schema: &Map<String, Value>) -> bool {
    let is_object = match schema.get("type") {
        Some(Value::Array(types)) => types.iter().any(|one| one == "object"),
        Some(one) => one == "object",
        None => schema.contains_key("properties"),
    };
    if !is_object {
        return true;
    }
    let properties = schema.get("properties").and_then(Value::as_object);
    let required = schema.get("required").and_then(Value::as_array);
    let is_required =
        |name: &String| required.is_some_and(|names| names.iter().any(|known| known == name));
    schema.get("additionalProperties") == Some(&Value::Bool(false))
        && properties.is_some_and(|all| all.keys().all(is_required))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn strict_means_closed_all_the_way_down() {
        let inner = json!({
            "type": "object", "properties": {"a": {"type": "string"}},
            "required": ["a"], "additionalProperties": false
        });
        assert!(is_strict(&inner));
        let outer = |inner: &Value| {
            json!({
                "type": "object", "properties": {"list": {"type": "array", "items": inner}},
                "required": ["list"], "additionalProperties": false
            })
        };
        assert!(is_strict(&outer(&inner)));
        assert!(!is_strict(&outer(&json!({"type": "object"}))));
        assert!(!is_strict(
            &json!({"type": "object", "properties": {"a": {}}})
        ));
    }
}
