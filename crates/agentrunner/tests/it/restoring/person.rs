//! The person who answers: about an unknown outcome by what the tool's own book says.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use testkit::EffectsStandIn;
use testkit::effects::Route;

/// Looks into the inbox again and again, and answers, until it is dropped.
pub(super) struct Person {
    task: tokio::task::JoinHandle<()>,
}

impl Person {
    pub(super) fn new(
        url: String,
        effects: Arc<EffectsStandIn>,
        unknown: Arc<AtomicUsize>,
    ) -> Self {
        let client = reqwest::Client::builder().no_proxy().build().unwrap();
        let task = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(200)).await;
                let inbox = client.get(format!("{url}/inbox?limit=500")).send().await;
                let Ok(inbox) = inbox else { continue };
                let questions: Value = inbox.json().await.unwrap_or_default();
                for question in questions.as_array().into_iter().flatten() {
                    let id = question["execution_id"].as_str().unwrap_or_default();
                    let answer = answer(question, &effects);
                    let input = client.post(format!("{url}/tasks/{id}/input")).json(&answer);
                    let taken = input.send().await;
                    let is_taken = taken.is_ok_and(|taken| taken.status().is_success());
                    if is_taken && question["question"] == "unknown_outcome" {
                        unknown.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
        });
        Self { task }
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(question: &Value, effects: &EffectsStandIn) -> Value {
    let arguments = question["arguments"].as_str().unwrap_or_default();
    let arguments: Value = serde_json::from_str(arguments).unwrap_or_default();
    let is_in_the_book = || {
        let charges = effects.effects(Route::Charge);
        charges
            .iter()
            .any(|charge| charge.body["what"] == arguments["what"])
    };
    let mut answer = match question["question"].as_str() {
        Some("approval") => json!({ "answer": "approve" }),
        Some("clarification") => json!({ "text": "You shall." }),
        _ if is_in_the_book() => json!({ "answer": "happened", "result": "it is in the book" }),
        _ => json!({ "answer": "repeat" }),
    };
    answer["request"] = question["request"].clone();
    answer
}
