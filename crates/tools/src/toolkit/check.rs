//! Asking a check tool whether an earlier call has happened.

use domain::ToolOutcome;
use domain::definition::Tool;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Call, Checked, Toolbox};

#[derive(Deserialize)]
struct Answer {
    happened: bool,
    #[serde(default)]
    result: Value,
}

/// Calls the check tool of `call` and reads its answer; one that says something else leaves the matter open.
pub(super) async fn check(toolbox: &dyn Toolbox, call: &Call<'_>, check_entry: &Tool) -> Checked {
    let arguments = json!({
        "idempotency_key": call.idempotency_key,
        "tool": call.tool,
        "arguments": call.arguments,
    });
    let key = format!("{}:check", call.idempotency_key);
    let question = Call {
        entry: check_entry,
        tool: call.entry.check.as_deref().unwrap_or(&check_entry.name),
        arguments: &arguments,
        idempotency_key: &key,
        ..call.clone()
    };
    match toolbox.call(question).await {
        ToolOutcome::Succeeded { content, truncated } => read(&content, truncated),
        ToolOutcome::Failed { message }
        | ToolOutcome::Refused { message }
        | ToolOutcome::Unknown { message } => {
            Checked::Unknown(format!("the check tool could not tell: {message}"))
        }
    }
}

fn read(content: &str, truncated: bool) -> Checked {
    match serde_json::from_str::<Answer>(content) {
        Ok(Answer {
            happened: false, ..
        }) => Checked::DidNotHappen,
        Ok(Answer { result, .. }) => Checked::Happened(match result {
            Value::Null => String::new(),
            Value::String(text) => text,
            other => other.to_string(),
        }),
        Err(_) if truncated => Checked::Unknown(
            "the check tool's answer is longer than its max_result_bytes".to_owned(),
        ),
        Err(_) => Checked::Unknown(
            "the check tool did not answer {\"happened\": true or false, \"result\": …}".to_owned(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_answer_settles_it() {
        let of = |content| read(content, false);
        assert_eq!(of(r#"{"happened": false}"#), Checked::DidNotHappen);
        assert_eq!(
            of(r#"{"happened": true}"#),
            Checked::Happened(String::new())
        );
        assert_eq!(
            of(r#"{"happened": true, "result": {"id": 7}}"#),
            Checked::Happened(r#"{"id":7}"#.to_owned())
        );
        for unclear in ["", "yes", "{}", r#"{"happened": "true"}"#, "[true]"] {
            assert!(matches!(of(unclear), Checked::Unknown(_)), "{unclear}");
        }
    }
}
