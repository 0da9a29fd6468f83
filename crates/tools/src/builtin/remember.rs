//! `remember`: keeps a fact of this agent across executions.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Failure, arguments};
use crate::{Call, Host};

pub(super) const DESCRIPTION: &str = "Keeps a fact under a key, for later executions of this agent; what the key held \
     before is replaced. `recall` gives it back.";

/// The longest key, in bytes.
const MAX_KEY: usize = 200;
/// The largest value, in bytes of JSON.
const MAX_VALUE: usize = 64 << 10;

pub(super) fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "key": {
                "type": "string",
                "description": "A short name to find it by, such as customer-42/language.",
                "minLength": 1,
                "maxLength": MAX_KEY,
            },
            "value": {
                "description": "The fact: a text or any JSON.",
            },
        },
        "required": ["key", "value"],
        "additionalProperties": false,
    })
}

#[derive(Deserialize)]
struct Arguments {
    key: String,
    value: Value,
}

pub(super) async fn call(host: &dyn Host, call: &Call<'_>) -> Result<Answer, Failure> {
    let Arguments { key, value } = arguments(call)?;
    if key.is_empty() || key.len() > MAX_KEY || key.chars().any(char::is_control) {
        return Err(Failure::refused(format!(
            "a key is 1 to {MAX_KEY} bytes without control characters"
        )));
    }
    if value.to_string().len() > MAX_VALUE {
        return Err(Failure::refused(format!(
            "a value has at most {MAX_VALUE} bytes of JSON"
        )));
    }
    host.remember(call.agent, &key, &value, call.idempotency_key)
        .await
        .map_err(Failure::Failed)?;
    Ok(format!("kept under {key:?}").into())
}
