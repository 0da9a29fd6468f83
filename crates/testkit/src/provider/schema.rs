//! Checks that several faces share.

use serde_json::Value;

/// Tells whether a name may be given to a tool: letters, digits, `_` and `-`, at most `longest`.
pub(super) fn is_tool_name(name: &str, longest: usize) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    !name.is_empty() && name.len() <= longest && name.chars().all(allowed)
}

/// Finds what providers reject in a tool's JSON Schema: a root that is no object, an array without
/// `items`. Returns the reason.
pub(super) fn fault_in(schema: &Value) -> Option<String> {
    if !schema.is_object() {
        return Some(format!("{schema} is not of type 'object', 'boolean'"));
    }
    if schema["type"] != "object" {
        let have = schema["type"].as_str().unwrap_or("None");
        return Some(format!(
            "schema must be a JSON Schema of 'type: \"object\"', got 'type: \"{have}\"'"
        ));
    }
    if schema
        .get("properties")
        .is_some_and(|properties| !properties.is_object())
    {
        return Some("'properties' must be an object".to_owned());
    }
    array_without_items(schema)
}

fn array_without_items(schema: &Value) -> Option<String> {
    if schema["type"] == "array" && schema.get("items").is_none() {
        return Some("array schema missing items".to_owned());
    }
    let properties = schema["properties"].as_object();
    let nested = properties
        .into_iter()
        .flat_map(|properties| properties.values());
    nested
        .chain(schema.get("items"))
        .find_map(array_without_items)
}

/// Finds a member of `raw` that is not among the words of `known`.
pub(super) fn unknown<'a>(raw: &'a Value, known: &str) -> Option<&'a str> {
    let is_known = |key: &str| known.split_whitespace().any(|word| word == key);
    raw.as_object()?
        .keys()
        .map(String::as_str)
        .find(|key| !is_known(key))
}

/// Tells whether a member is absent, null, or a number within bounds.
pub(super) fn in_range(raw: &Value, member: &str, low: f64, high: f64) -> bool {
    match &raw[member] {
        Value::Null => true,
        value => value
            .as_f64()
            .is_some_and(|number| (low..=high).contains(&number)),
    }
}

/// Tells whether a member is absent, null, or a whole number of at least 1.
pub(super) fn is_count(raw: &Value, member: &str) -> bool {
    raw[member].is_null() || raw[member].as_u64().is_some_and(|number| number > 0)
}
