//! Asking a check tool whether an earlier call has happened.

use domain::ToolOutcome;
use domain::definition::Tool;
use serde_json::{Map, Value, json};

use crate::{Call, Checked, Toolbox};

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
        pin: None,
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
    if truncated {
        let reason = "the check tool's answer is longer than its max_result_bytes";
        return Checked::Unknown(reason.to_owned());
    }
    let answer: Map<String, Value> = serde_json::from_str(content).unwrap_or_default();
    match (answer.get("happened"), answer.get("result")) {
        (Some(Value::Bool(false)), _) => Checked::DidNotHappen,
        (Some(Value::Bool(true)), None | Some(Value::Null)) => Checked::Happened(String::new()),
        (Some(Value::Bool(true)), Some(Value::String(text))) => Checked::Happened(text.clone()),
        (Some(Value::Bool(true)), Some(other)) => Checked::Happened(other.to_string()),
        _ => Checked::Unknown(
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
