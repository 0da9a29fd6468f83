//! The people who answer: whatever is in the inbox, they answer it, each in one way that follows from what is asked.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::api::Service;
use super::company::Company;
use super::model::{TOO_MUCH, plan_of};

/// Between two looks into the inbox.
const GLANCE: Duration = Duration::from_millis(250);
/// Who they are.
pub(super) const PERSON: &str = "ada";
/// What a refund of 70 is made into.
pub(super) const LESS: u64 = 45;

/// Answers everything, for ever.
pub(super) async fn answer_everything(company: Arc<Company>) {
    let mut rejected = HashSet::new();
    loop {
        let inbox = company
            .api
            .all(Service::Orchestrator, "/inbox?limit=1000")
            .await;
        for item in inbox {
            match answer(&item, &mut rejected) {
                Some(answer) => give(&company, &item, answer).await,
                None => company.complain(format!("nobody expected to be asked {item}")),
            }
        }
        tokio::time::sleep(GLANCE).await;
    }
}

async fn give(company: &Company, item: &Value, mut answer: Value) {
    answer["request"] = item["request"].clone();
    answer["by"] = PERSON.into();
    let path = item["answer_to"].as_str().expect("an address");
    let reply = company.api.try_post(path, &answer, None).await;
    // Cut off after it was taken, and given again: then the first is this very one.
    let is_mine = reply.status == 409 && reply.body["error"]["details"]["first"]["by"] == PERSON;
    if reply.status != 200 && !is_mine {
        let status = reply.status;
        company.complain(format!("{path}: {status}: {} to {item}", reply.body));
    }
}

/// What is said to this; none when it should not have been asked.
fn answer(item: &Value, rejected: &mut HashSet<String>) -> Option<Value> {
    match (item["question"].as_str()?, item["agent_name"].as_str()?) {
        ("approval", "support") => {
            let arguments = item["arguments"].as_str()?;
            let mut arguments: Value = serde_json::from_str(arguments).ok()?;
            match arguments["amount"].as_u64()? {
                60 => Some(json!({ "answer": "approve" })),
                70 => {
                    arguments["amount"] = LESS.into();
                    Some(json!({ "answer": "edit", "arguments": arguments }))
                }
                80 => Some(json!({ "answer": "reject", "reason": TOO_MUCH })),
                _ => None,
            }
        }
        ("clarification", "research-team") => Some(json!({ "text": "For people without a car." })),
        ("plan", "research-team") => {
            let instruction = item["plan"]["steps"][0]["instruction"].as_str()?;
            let (task, _) = instruction.split_once('/')?;
            let number: usize = task.trim_start_matches('t').parse().ok()?;
            let is_new = rejected.insert(item["execution_id"].as_str()?.to_owned());
            Some(match number % 4 {
                1 if is_new => json!({ "answer": "reject", "reason": "think again" }),
                2 => {
                    let plan = json!({ "steps": plan_of(task, &["facts", "check"])["steps"] });
                    json!({ "answer": "edit_plan", "plan": plan })
                }
                _ => json!({ "answer": "approve" }),
            })
        }
        _ => None,
    }
}
