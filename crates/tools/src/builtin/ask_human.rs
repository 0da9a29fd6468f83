//! `ask_human`: offered here, done by the engine, which parks the execution until a person answers.

use serde_json::{Value, json};

use super::{Answer, Failure};

pub(super) const DESCRIPTION: &str = "Asks a person and waits for the answer. Use it when a decision is not yours to \
     make, or when something is missing that nothing else can tell.";

pub(super) fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "question": {
                "type": "string",
                "description": "One clear question, with what the person needs to know to answer it.",
                "minLength": 1,
                "maxLength": 4000,
            },
        },
        "required": ["question"],
        "additionalProperties": false,
    })
}

pub(super) fn call() -> Result<Answer, Failure> {
    Err(Failure::refused(
        "a person is asked by the engine, not by a call",
    ))
}
