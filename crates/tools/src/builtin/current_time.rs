//! `current_time`: what a model cannot know.

use chrono::{Datelike, SecondsFormat};
use chrono_tz::Tz;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, Failure, arguments};
use crate::{Call, Clock};

pub(super) const DESCRIPTION: &str =
    "Tells the date, weekday and time now, in UTC or in a time zone.";

pub(super) fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "timezone": {
                "type": "string",
                "description": "An IANA time zone such as Europe/Berlin; UTC when absent.",
            },
        },
        "additionalProperties": false,
    })
}

#[derive(Deserialize)]
struct Arguments {
    #[serde(default)]
    timezone: Option<String>,
}

pub(super) fn call(clock: &Clock, call: &Call<'_>) -> Result<Answer, Failure> {
    let Arguments { timezone } = arguments(call)?;
    let name = timezone.as_deref().unwrap_or("UTC");
    let zone: Tz = name.parse().map_err(|_| {
        Failure::refused(format!(
            "{name:?} is not an IANA time zone, such as Europe/Berlin or America/New_York"
        ))
    })?;
    let now = clock().with_timezone(&zone);
    Ok(json!({
        "time": now.to_rfc3339_opts(SecondsFormat::Secs, true),
        "weekday": now.weekday().to_string(),
        "timezone": zone.name(),
        "unix_seconds": now.timestamp(),
    })
    .to_string()
    .into())
}
