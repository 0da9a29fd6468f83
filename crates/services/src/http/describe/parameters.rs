//! What values parameters take, said once for all routes: clients that are made from the description, and programs that
//! test the services by it, ask for nothing that is refused.

use serde_json::Value;
use utoipa::openapi::RefOr;
use utoipa::openapi::path::{Operation, Parameter};
use utoipa::openapi::schema::{ObjectBuilder, Schema, SchemaType, Type};

use crate::http::params::MODES;

const NAME: &str = "^[a-z0-9][a-z0-9_-]{0,62}$";
const UUID: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";
/// 1 to 255 characters, none of them a control character; in UTF-8 no more than 255 bytes either.
const ID: &str = r"^[^\x00-\x1f\x7f-\x9f]{1,255}$";
/// Days from 1900 to 2099 that there were and will be.
const DAY: &str = "^((19|20)[0-9]{2}-((0[1-9]|1[0-2])-(0[1-9]|1[0-9]|2[0-8])|(0[13-9]|1[0-2])-(29|30)|(0[13578]|1[02])-31)|(19(0[48]|[2468][048]|[13579][26])|20([02468][048]|[13579][26]))-02-29)$";
/// By W3C Trace Context: not all zeros.
const TRACE: &str = "^(?!0{32})[0-9a-f]{32}$";
const STATUS: &str = "^(queued|running|waiting_for_input|completed|failed|timeout|cancelled)(,(queued|running|waiting_for_input|completed|failed|timeout|cancelled))*$";
/// The year 9999, in microseconds.
pub(crate) const LAST_MICROSECOND: i64 = 253_402_300_799_999_999;

/// How an act that is written down may have ended.
pub(crate) const OUTCOMES: [&str; 4] = ["done", "refused", "denied", "failed"];

/// The values that a parameter takes.
enum Takes {
    Words(&'static [&'static str]),
    Pattern(&'static str),
    Number(i64, i64),
}

use Takes::{Number, Pattern, Words};

fn takes(path: &str, name: &str) -> Option<Takes> {
    Some(match (path, name) {
        (_, "limit") => Number(1, 1000),
        (_, "count") => Number(1, 100),
        (_, "Idempotency-Key") => Pattern("^([!#-~]{1,255}|\"[!#-~]{1,255}\")$"),
        (_, "X-Conversation-Id") => Pattern("^[!-~]{1,255}$"),
        ("/configs/upload", "If-Match") => Pattern("^\"?[0-9a-f]{16}\"?$"),
        (_, "If-Match") => Pattern("^\"?[0-9]{1,18}\"?$"),
        (_, "execution_mode") => Words(&MODES),
        ("/agents", "status") => {
            Words(&["ready", "running", "degraded", "unavailable", "disabled"])
        }
        ("/alerts", "state") => Words(&["pending", "firing", "resolved"]),
        (_, "state") => Words(&["pending", "delivered", "failed"]),
        (_, "outcome") => Words(&OUTCOMES),
        ("/workers", "status") => Words(&["alive", "lost"]),
        (_, "status") => Pattern(STATUS),
        (_, "pool") => Words(&[
            "up",
            "autonomous-agent-pool",
            "collaborative-agent-pool",
            "continuous-agent-runner",
        ]),
        (_, "managed_by") => Words(&["api", "file"]),
        (_, "bodies") => Words(&["true", "cut", "false", "none", "full"]),
        (_, "question") => Words(&["clarification", "approval", "unknown_outcome", "plan"]),
        (_, "agent_name") | ("/schedules", "cursor") => Pattern(NAME),
        (_, "trace_id") => Pattern(TRACE),
        (_, "conversation_id") => Pattern(ID),
        (_, "parent_execution_id" | "execution_id") => Pattern(UUID),
        (_, "from_day" | "to_day") => Pattern(DAY),
        (_, "wait") => Pattern("^([0-9]{1,2}|[12][0-9]{2}|300)s?$"),
        ("/executions" | "/tasks" | "/callbacks", "cursor") => {
            Pattern("^[0-9a-f]{1,15}-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$")
        }
        ("/keys" | "/dead-letters" | "/audit" | "/alerts/deliveries", "cursor") => {
            Pattern("^[0-9a-f]{1,15}-[!-~]{1,200}$")
        }
        ("/inbox", "cursor") => {
            Pattern("^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}:[0-9]{1,9}$")
        }
        ("/schedules/{name}/runs", "cursor") => Number(0, LAST_MICROSECOND),
        ("/executions/{id}/steps", "cursor" | "after") => Number(0, i64::from(u32::MAX)),
        _ => return None,
    })
}

/// Says of an operation's parameters which values they take; none of them is ever null.
pub(super) fn constrain(operation: &mut Operation, path: &str) {
    for parameter in operation.parameters.iter_mut().flatten() {
        // None of ours is described elsewhere.
        let RefOr::T(parameter) = parameter else {
            continue;
        };
        match takes(path, &parameter.name) {
            Some(takes) => parameter.schema = Some(RefOr::T(takes.schema())),
            None => not_null(parameter),
        }
    }
}

impl Takes {
    fn schema(self) -> Schema {
        let object = match self {
            Self::Words(words) => ObjectBuilder::new()
                .schema_type(Type::String)
                .enum_values(Some(words.iter().copied())),
            Self::Pattern(pattern) => ObjectBuilder::new()
                .schema_type(Type::String)
                .pattern(Some(pattern)),
            Self::Number(least, most) => ObjectBuilder::new()
                .schema_type(Type::Integer)
                .minimum(Some(least))
                .maximum(Some(most)),
        };
        Schema::Object(object.build())
    }
}

/// A parameter that is left out is not there; there is no null in an address.
fn not_null(parameter: &mut Parameter) {
    let Some(RefOr::T(Schema::Object(object))) = &mut parameter.schema else {
        return;
    };
    if let SchemaType::Array(types) = &mut object.schema_type {
        types.retain(|one| *one != Type::Null);
        if let [one] = types.as_slice() {
            object.schema_type = SchemaType::Type(one.clone());
        }
    }
    if object.default == Some(Value::Null) {
        object.default = None;
    }
}
