//! `recall`: gives back what `remember` kept.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, Failure, arguments};
use crate::{Call, Host};

pub(super) const DESCRIPTION: &str =
    "Gives back facts that `remember` kept, newest first, as a JSON object of keys and values.";

/// How many facts come back when nothing is said.
const USUAL: usize = 20;
/// How many facts come back at most.
const MAX: usize = 100;

pub(super) fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "key": {
                "type": "string",
                "description": "Only facts whose key contains this text; all when absent.",
                "maxLength": 200,
            },
            "limit": {
                "type": "integer",
                "description": "How many facts at most.",
                "minimum": 1,
                "maximum": MAX,
                "default": USUAL,
            },
        },
        "additionalProperties": false,
    })
}

#[derive(Deserialize)]
struct Arguments {
    #[serde(default)]
    key: String,
    #[serde(default = "usual")]
    limit: usize,
}

const fn usual() -> usize {
    USUAL
}

pub(super) async fn call(host: &dyn Host, call: &Call<'_>) -> Result<Answer, Failure> {
    let Arguments { key, limit } = arguments(call)?;
    let facts = host
        .recall(call.agent, &key, limit.clamp(1, MAX))
        .await
        .map_err(Failure::Failed)?;
    if facts.is_empty() {
        return Ok("nothing is kept under such a key".to_owned().into());
    }
    let facts: Map<String, Value> = facts.into_iter().collect();
    Ok(Value::Object(facts).to_string().into())
}
