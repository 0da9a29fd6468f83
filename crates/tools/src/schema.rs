//! Whether a value meets a JSON Schema, with compiled schemas kept.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, PoisonError, RwLock};

use jsonschema::{PatternOptions, Validator};
use serde_json::Value;

use crate::text::short;

/// How many compiled schemas are kept.
const MAX_KEPT: usize = 1024;
/// How many violations are told of one value.
const MAX_VIOLATIONS: usize = 10;
/// The longest violation, in bytes: it quotes the value.
const MAX_VIOLATION_BYTES: usize = 300;
/// How often a pattern of a schema may backtrack: schemas come from servers, patterns may be malicious.
const MAX_BACKTRACKS: usize = 100_000;

/// Compiled JSON Schemas, by their content. Made once and shared.
#[derive(Debug, Default)]
pub struct Schemas {
    kept: RwLock<HashMap<u64, Vec<Arc<Kept>>>>,
}

/// A schema and what became of compiling it.
#[derive(Debug)]
struct Kept {
    schema: Value,
    validator: Result<Validator, String>,
}

impl Schemas {
    /// Checks arguments, or an answer, against a schema. References to other documents are never followed.
    ///
    /// # Errors
    /// What is wrong, each with the place in the value, at most ten; or that the schema itself is not valid.
    pub fn validate_arguments(&self, schema: &Value, arguments: &Value) -> Result<(), Vec<String>> {
        let kept = self.compiled(schema);
        let validator = match &kept.validator {
            Ok(validator) => validator,
            Err(reason) => return Err(vec![format!("the schema itself is not valid: {reason}")]),
        };
        let violations: Vec<String> = validator
            .iter_errors(arguments)
            .take(MAX_VIOLATIONS)
            .map(|violation| {
                let place = violation.instance_path().to_string();
                let place = if place.is_empty() { "/" } else { &place };
                short(&format!("{place}: {violation}"), MAX_VIOLATION_BYTES)
            })
            .collect();
        if violations.is_empty() {
            Ok(())
        } else {
            Err(violations)
        }
    }

    fn compiled(&self, schema: &Value) -> Arc<Kept> {
        let mut hasher = DefaultHasher::new();
        schema.hash(&mut hasher);
        let hash = hasher.finish();
        let same = |kept: &&Arc<Kept>| kept.schema == *schema;
        let known = self
            .kept
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&hash)
            .and_then(|kept| kept.iter().find(same).cloned());
        if let Some(known) = known {
            return known;
        }
        let new = Arc::new(Kept {
            schema: schema.clone(),
            validator: compile(schema),
        });
        let mut kept = self.kept.write().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MAX_KEPT {
            kept.clear();
        }
        kept.entry(hash).or_default().push(new.clone());
        new
    }
}

fn compile(schema: &Value) -> Result<Validator, String> {
    jsonschema::options()
        .with_pattern_options(PatternOptions::fancy_regex().backtrack_limit(MAX_BACKTRACKS))
        .build(schema)
        .map_err(|error| short(&error.to_string(), MAX_VIOLATION_BYTES))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn violations(schema: &Value, value: &Value) -> Vec<String> {
        Schemas::default()
            .validate_arguments(schema, value)
            .err()
            .unwrap_or_default()
    }

    #[test]
    fn all_violations_are_told_with_their_place() {
        let schema = json!({
            "type": "object",
            "properties": {"n": {"type": "integer"}, "s": {"type": "string"}},
            "required": ["n"],
            "additionalProperties": false,
        });
        assert_eq!(violations(&schema, &json!({"n": 1})), Vec::<String>::new());
        let found = violations(&schema, &json!({"n": "x", "s": 1, "more": 2}));
        assert_eq!(found.len(), 3, "{found:?}");
        assert!(found.iter().any(|v| v.starts_with("/n: ")), "{found:?}");
    }

    #[test]
    fn a_huge_value_gives_short_violations() {
        let schema = json!({"type": "array", "items": {"type": "integer"}});
        let found = violations(&schema, &json!(vec!["x".repeat(10_000); 100]));
        assert_eq!(found.len(), MAX_VIOLATIONS);
        assert!(found.iter().all(|v| v.len() <= MAX_VIOLATION_BYTES + 3));
    }

    #[test]
    fn a_schema_that_points_elsewhere_is_not_fetched() {
        let found = violations(&json!({"$ref": "http://127.0.0.1:9/schema"}), &json!(1));
        assert!(found[0].contains("not valid"), "{found:?}");
    }

    #[test]
    fn a_malicious_pattern_ends() {
        let schema = json!({"type": "string", "pattern": "^(?=(a+)+$)(a|a)*b$"});
        let found = violations(&schema, &json!("a".repeat(60)));
        assert_eq!(found.len(), 1, "{found:?}");
    }

    #[test]
    fn a_schema_is_compiled_once() {
        let schemas = Schemas::default();
        let schema = json!({"type": "object"});
        let first = schemas.compiled(&schema);
        assert!(Arc::ptr_eq(&first, &schemas.compiled(&schema.clone())));
    }
}
