//! `shared_state_get` and `shared_state_set`: what the agents of one team know together while they work at one task.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{Answer, Failure, arguments};
use crate::{Call, Host, Share, Shared};

pub(super) const GET: &str = "Gives back the shared state of the team that you work for: a JSON object of keys, each \
     with its value and version.";
pub(super) const SET: &str = "Writes a value under a key of the shared state of the team that you work for, for the \
     other agents to read. With `expected_version` it is written only if nobody has written since.";

/// The longest key, in bytes.
const MAX_KEY: usize = 200;
/// The largest value, in bytes of JSON.
const MAX_VALUE: usize = 64 << 10;

pub(super) fn get_parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "key": {
                "type": "string",
                "description": "Only this key; all when absent.",
                "minLength": 1,
                "maxLength": MAX_KEY,
            },
        },
        "additionalProperties": false,
    })
}

pub(super) fn set_parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "key": {
                "type": "string",
                "description": "A short name, such as sources or draft/intro.",
                "minLength": 1,
                "maxLength": MAX_KEY,
            },
            "value": {
                "description": "A text or any JSON.",
            },
            "expected_version": {
                "type": "integer",
                "description": "The version that was read; 0 when there is to be nothing yet.",
                "minimum": 0,
            },
        },
        "required": ["key", "value"],
        "additionalProperties": false,
    })
}

#[derive(Deserialize)]
struct Wanted {
    #[serde(default)]
    key: Option<String>,
}

#[derive(Deserialize)]
struct Written {
    key: String,
    value: Value,
    #[serde(default)]
    expected_version: Option<u64>,
}

fn team(call: &Call<'_>) -> Result<domain::ExecutionId, Failure> {
    call.team.ok_or_else(|| {
        Failure::refused("there is no shared state: this task was not given by a coordinator")
    })
}

pub(super) async fn get(host: &dyn Host, call: &Call<'_>) -> Result<Answer, Failure> {
    let Wanted { key } = arguments(call)?;
    let keys: Vec<String> = key.into_iter().collect();
    let found = host.shared(team(call)?, &keys).await;
    let found = found.map_err(Failure::Failed)?;
    let found: Map<String, Value> = found
        .into_iter()
        .map(|(key, version, value)| (key, json!({ "value": value, "version": version })))
        .collect();
    Ok(Value::Object(found).to_string().into())
}

pub(super) async fn set(host: &dyn Host, call: &Call<'_>) -> Result<Answer, Failure> {
    let written: Written = arguments(call)?;
    let Written { key, value, .. } = &written;
    if key.is_empty() || key.len() > MAX_KEY || key.chars().any(char::is_control) {
        return Err(Failure::refused(format!(
            "a key is 1 to {MAX_KEY} bytes without control characters"
        )));
    }
    if value.to_string().len() > MAX_VALUE {
        return Err(Failure::refused(format!(
            "a value has at most {MAX_VALUE} bytes of JSON; keep the large thing elsewhere and share where it is"
        )));
    }
    let share = Share {
        team: team(call)?,
        by: call.execution,
        key,
        value,
        expected: written.expected_version,
        idempotency_key: call.idempotency_key,
    };
    match host.share(share).await.map_err(Failure::Failed)? {
        Shared::Written { version } => Ok(format!("{key:?} is at version {version} now").into()),
        Shared::Refused(why) => Err(Failure::refused(why)),
    }
}
