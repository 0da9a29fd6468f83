//! From the monitor by an event to the analyst: one execution for each event that was published, in the monitor's trace;
//! and nobody else woke the analyst.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::{Evidence, Report, number, same, text};
use crate::five_kinds::api::Service;
use crate::five_kinds::clients::Promises;
use crate::five_kinds::company::Company;

pub(super) async fn check(
    company: &Company,
    promises: &Promises,
    evidence: &Evidence,
    report: &mut Report,
) {
    let asked: HashMap<&str, &str> = promises
        .questions
        .iter()
        .map(|(name, id)| (id.as_str(), name.as_str()))
        .collect();
    let mut answered = HashSet::new();
    let mut woken = HashMap::new();
    for task in evidence.of("analyst") {
        let id = text(task, "execution_id");
        let subject = match (task["event_id"].as_str(), asked.get(id)) {
            (Some(event), None) => {
                if woken.insert(event.to_owned(), task).is_some() {
                    report.wrong(format!("event {event} woke the analyst twice"));
                }
                format!("event {event}")
            }
            (None, Some(name)) => {
                answered.insert((*name).to_owned());
                (*name).to_owned()
            }
            _ => {
                report.wrong(format!("nobody asked the analyst: {task}"));
                continue;
            }
        };
        found_out(task, &subject, evidence, report);
    }
    let wanted = promises.questions.iter().map(|(name, _)| name.clone());
    same("questions", &wanted.collect(), &answered, report);

    let mut published = HashMap::new();
    for task in evidence.of("monitor") {
        let event = event_of(task, evidence, report);
        published.extend(event.map(|event| (event, task)));
    }
    let (out, got) = (published.keys().cloned(), woken.keys().cloned());
    same(
        "events of the monitor",
        &out.collect(),
        &got.collect(),
        report,
    );
    for (event, monitor) in &published {
        let Some(analyst) = woken.get(event) else {
            continue;
        };
        one_trace(company, event, monitor, analyst, report).await;
    }
    report.incidents = published.len();
    report.figure("events that woke the analyst", published.len());
    report.figure("answers that had to be repaired", report.repaired);
}

/// The analyst's answer is about this, by its schema, and uses what both tools said.
fn found_out(task: &Value, subject: &str, evidence: &Evidence, report: &mut Report) {
    let wanted = json!({ "subject": subject, "cause": "payments", "action": "switch_provider" });
    let found = evidence.outcome(task).map(|outcome| &outcome["structured"]);
    if found != Some(&wanted) {
        report.wrong(format!("the analyst found {found:?} and not {wanted}"));
    }
    let is_bad = |step: &&Value| step["violations"].as_array().is_some_and(|v| !v.is_empty());
    report.repaired += evidence.journal(task).iter().filter(is_bad).count();
}

/// The event that an execution of the monitor published. What it says in the end fits.
fn event_of(task: &Value, evidence: &Evidence, report: &mut Report) -> Option<String> {
    let journal = evidence.journal(task);
    let intent = journal.iter().find(|step| step["tool"] == "publish_event");
    let wanted = match intent {
        Some(_) => "I reported it.",
        None => "All is well.",
    };
    if evidence.output(task) != Some(wanted) {
        let said = evidence.output(task);
        report.wrong(format!(
            "the monitor says {said:?} and not {wanted:?}: {task}"
        ));
    }
    Some(text(intent?, "key").to_owned())
}

async fn one_trace(
    company: &Company,
    event: &str,
    monitor: &Value,
    analyst: &Value,
    report: &mut Report,
) {
    let trace = text(monitor, "trace_id");
    let path = format!("/tasks?trace_id={trace}");
    let family = company.api.all(Service::Orchestrator, &path).await;
    let names: Vec<&str> = family.iter().map(|task| text(task, "agent_name")).collect();
    if analyst["trace_id"] != trace || names != ["analyst", "monitor"] {
        report.wrong(format!("trace {trace} has {names:?}: {analyst}"));
    }
    let path = format!("/tasks/{}", text(analyst, "execution_id"));
    let shown = company.api.get(Service::Orchestrator, &path).await;
    let told = &shown["task_data"]["event"];
    let is_it = told["id"] == event
        && told["topic"] == "incident.detected"
        && told["source"] == "agentrunner/monitor"
        && told["data"]["status"] == "degraded";
    if !is_it || number(monitor, "tool_calls") != 2 {
        report.wrong(format!("the analyst was told {told} by {monitor}"));
    }
}
