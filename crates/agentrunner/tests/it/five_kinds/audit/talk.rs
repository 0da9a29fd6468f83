//! Conversations: answered in order, one at a time, each answer knowing what was said before; remembered whole; and what
//! was refunded is what each person decided, once.

use std::collections::BTreeMap;

use serde_json::Value;
use testkit::effects::Route;

use super::{Evidence, Report, text, time};
use crate::five_kinds::api::Service;
use crate::five_kinds::clients::{Message, Promises};
use crate::five_kinds::company::Company;

/// What a summary begins with.
const SUMMARY: &str = "[Summary of the conversation so far]";

pub(super) async fn check(
    company: &Company,
    promises: &Promises,
    evidence: &Evidence,
    report: &mut Report,
) {
    let mut conversations: BTreeMap<&str, Vec<&Message>> = BTreeMap::new();
    for message in &promises.messages {
        conversations
            .entry(&message.conversation)
            .or_default()
            .push(message);
    }
    let mut summarised = 0;
    for (name, messages) in &conversations {
        in_order(messages, evidence, report);
        let path = format!("/agents/support/state?conversation_id={name}&limit=1000");
        let state = company.api.get(Service::State, &path).await;
        if state["status"] != "waiting" || !state["execution_id"].is_null() {
            report.wrong(format!("conversation {name} is not at rest: {state}"));
        }
        let history = state["conversation_history"].as_array().expect("messages");
        summarised += usize::from(is_remembered(name, history, messages, report));
    }
    refunds(company, promises, report);
    report.figure("conversations", conversations.len());
    report.figure("messages", promises.messages.len());
    report.figure("conversations with a summary", summarised);
    let summaries = evidence
        .of("support")
        .flat_map(|task| evidence.journal(task));
    let summaries = summaries.filter(|step| step["purpose"].get("summary").is_some());
    report.figure("summaries made", summaries.count());
}

fn in_order(messages: &[&Message], evidence: &Evidence, report: &mut Report) {
    let mut before = ("nobody", None);
    for message in messages {
        let name = &message.name;
        let found = match &message.id {
            Some(id) => evidence.task(id),
            None => evidence
                .of("support")
                .find(|task| task["event_id"] == name.as_str()),
        };
        let Some(task) = found else {
            report.wrong(format!("message {name} is not there"));
            continue;
        };
        if task["conversation_id"] != message.conversation.as_str() {
            report.wrong(format!("{name} is in another conversation: {task}"));
        }
        let wanted = message.wish.answer(name, before.0);
        if evidence.output(task) != Some(&wanted) {
            let said = evidence.output(task);
            report.wrong(format!("{name}: {said:?} and not {wanted:?}"));
        }
        let (started, finished) = (time(task, "started_at"), time(task, "finished_at"));
        if started < before.1 {
            report.wrong(format!("{name} began before {} was over", before.0));
        }
        before = (name, finished);
    }
}

/// Whether it begins with a summary. What follows, or all of it, is what was said, in order.
fn is_remembered(
    name: &str,
    history: &[Value],
    messages: &[&Message],
    report: &mut Report,
) -> bool {
    let mut wanted = Vec::new();
    let mut before = "nobody";
    for message in messages {
        wanted.push(format!("user {}", message.name));
        if let Some(tool) = message.wish.tool() {
            wanted.push(format!("calls {tool}"));
            wanted.push(format!("tool {tool}"));
        }
        wanted.push(format!(
            "says {}",
            message.wish.answer(&message.name, before)
        ));
        before = &message.name;
    }
    let is_summarised = history
        .first()
        .is_some_and(|m| text(m, "content").starts_with(SUMMARY));
    let kept = &history[usize::from(is_summarised)..];
    let kept: Vec<String> = kept.iter().map(shorthand).collect();
    let expected = match is_summarised {
        true if kept.len() < wanted.len() => &wanted[wanted.len() - kept.len()..],
        _ => &wanted[..],
    };
    if kept != expected {
        report.wrong(format!(
            "conversation {name} is {kept:?} and not {expected:?}"
        ));
    }
    is_summarised
}

fn shorthand(message: &Value) -> String {
    let content = text(message, "content");
    match (
        text(message, "role"),
        message["tool_calls"][0]["name"].as_str(),
    ) {
        ("user", _) => {
            let name = crate::five_kinds::model::written(content).map(|(name, _)| name);
            format!("user {}", name.unwrap_or_else(|| content.to_owned()))
        }
        ("assistant", Some(tool)) => format!("calls {tool}"),
        ("assistant", None) => format!("says {content}"),
        (role, _) => format!("{role} {}", text(message, "name")),
    }
}

/// By the shop's own book.
fn refunds(company: &Company, promises: &Promises, report: &mut Report) {
    let mut given: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for call in company.effects.effects(Route::Set) {
        let amount = call.body["amount"].as_u64().unwrap_or_default();
        given
            .entry(call.name.unwrap_or_default())
            .or_default()
            .push(amount);
    }
    report.figure("refunds", given.len());
    for message in &promises.messages {
        let refund = message.wish.given_back();
        let wanted: Vec<u64> = refund.into_iter().collect();
        let found = given.remove(&message.name).unwrap_or_default();
        if found != wanted {
            report.wrong(format!("{found:?} was given back for {message:?}"));
        }
    }
    if !given.is_empty() {
        report.wrong(format!("given back for nobody: {given:?}"));
    }
}
