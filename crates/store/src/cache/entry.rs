//! What is kept under a key: the key itself, a line's end, the value as JSON.
//!
//! The key stands in it so that a value that came to lie in another's place is not taken for it.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::MAX_VALUE_BYTES;
use crate::codec;

/// A value in the form in which it is kept; `None` when it is too large or too deep to be kept.
pub(super) fn seal<T: Serialize>(key: &str, value: &T) -> Option<Vec<u8>> {
    let json = codec::encode("a copy", value).ok()?;
    let entry = format!("{key}\n{json}");
    (entry.len() <= MAX_VALUE_BYTES).then(|| entry.into_bytes())
}

/// The value that was kept under a key.
///
/// # Errors
/// It was not, or it is damaged; in words.
pub(super) fn open<T: DeserializeOwned>(key: &str, entry: &[u8]) -> Result<T, String> {
    if entry.len() > MAX_VALUE_BYTES {
        return Err(format!("it has more than {MAX_VALUE_BYTES} bytes"));
    }
    let json = entry
        .strip_prefix(key.as_bytes())
        .and_then(|rest| rest.strip_prefix(b"\n"))
        .ok_or("it does not belong to its key")?;
    serde_json::from_slice(json).map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;

    use domain::{Definition, Execution, Message};
    use serde_json::{Value, json};

    use super::*;
    use crate::{ConfigRecord, ExecutionRow};

    /// The form as other processes may hold it now.
    fn stays<T: Serialize + DeserializeOwned>(form: Value) {
        let value = T::deserialize(&form).unwrap();
        let now = serde_json::to_value(value).unwrap();
        assert_eq!(
            now, form,
            "the form has changed: raise FORMAT, and write the new form down here"
        );
    }

    fn execution() -> Value {
        json!({
            "id": "01890000-0000-7000-8000-000000000001", "agent": "a", "version": "0123456789abcdef",
            "mode": "autonomous", "input": { "prompt": "x" }, "priority": "normal",
            "created_at": "2027-01-15T08:00:00Z", "deadline": "2027-01-15T09:00:00Z",
            "budget": serde_json::to_value(domain::budget::BudgetLimits::default()).unwrap(),
            "trace_id": "0123456789abcdef0123456789abcdef", "hops": 0,
        })
    }

    #[test]
    fn what_is_kept_has_the_form_that_other_processes_expect() {
        stays::<Execution>(execution());
        stays::<ExecutionRow>(json!({
            "execution": execution(), "status": "completed", "status_reason": null, "worker": null,
            "heartbeat_at": null, "epoch": 1, "due_at": null, "started_at": "2027-01-15T08:00:00Z",
            "finished_at": "2027-01-15T08:00:01Z",
            "totals": { "input_tokens": 0, "output_tokens": 0, "cached_tokens": 0, "cost_usd": 0.0,
                "model_calls": 1, "tool_calls": 0 },
            "steps": 2, "outcome": { "status": "completed", "output": "42", "stop": "end_turn" },
            "cancel": { "by": "x", "reason": "y" }, "crashes": 0,
        }));
        stays::<Vec<Message>>(json!([{ "role": "user", "text": "hello" }]));
        let definition: Definition = serde_json::from_value(json!({
            "name": "a", "execution_mode": "autonomous", "system_prompt": "x",
            "llm_config": { "provider": "scripted", "model": "s" },
        }))
        .unwrap();
        let definition = serde_json::to_value(definition).unwrap();
        stays::<ConfigRecord>(json!({
            "definition": definition, "version": "0123456789abcdef", "source": "# x", "path": "a.yml",
            "loaded_at": "2027-01-15T08:00:00Z",
        }));
    }

    #[test]
    fn what_lies_in_anothers_place_or_is_damaged_is_refused() {
        let refused = |entry: &[u8]| open::<Vec<Message>>("k", entry).unwrap_err();
        let good = seal("k", &vec![Message::User { text: "x".into() }]).unwrap();
        assert_eq!(open::<Vec<Message>>("k", &good).unwrap().len(), 1);
        assert!(refused(b"kk\n[]").contains("does not belong"));
        assert!(refused(b"").contains("does not belong"));
        for damaged in ["k\n", "k\n[", "k\n{}", "k\n[1]", "k\n[] x", "k\n\u{0}"] {
            refused(damaged.as_bytes());
        }
        refused(&good[..good.len() - 1]);
        let deep = format!("k\n{}", "[".repeat(100_000));
        refused(deep.as_bytes());
        refused(&vec![b'k'; MAX_VALUE_BYTES + 1]);
    }

    #[test]
    fn what_is_too_large_is_not_kept() {
        fn kept(value: impl Serialize + Debug) -> bool {
            seal("k", &value).is_some()
        }
        assert!(kept("x".repeat(MAX_VALUE_BYTES - 4)));
        assert!(!kept("x".repeat(MAX_VALUE_BYTES - 3)));
    }
}
