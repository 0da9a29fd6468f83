//! How a model is made to answer in a schema, where its provider can't enforce one.

use std::borrow::Cow;

use serde_json::Value;

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

/// Whether a schema keeps OpenAI's rules for strict mode: every object closed, every property required.
pub(crate) fn is_strict(schema: &Value) -> bool {
    match schema {
        Value::Object(members) => is_closed(members) && members.values().all(is_strict),
        Value::Array(items) => items.iter().all(is_strict),
        _ => true,
    }
}

fn is_closed(schema: &serde_json::Map<String, Value>) -> bool {
    let Some(properties) = schema.get("properties").and_then(Value::as_object) else {
        return schema.get("type") != Some(&Value::from("object"));
    };
    // A property may itself be called `properties`; then this is not a schema, and looser is safe.
    let required = schema.get("required").and_then(Value::as_array);
    let is_required = |name: &String| {
        required.is_some_and(|names| names.iter().any(|known| known.as_str() == Some(name)))
    };
    schema.get("additionalProperties") == Some(&Value::Bool(false))
        && properties.keys().all(is_required)
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
