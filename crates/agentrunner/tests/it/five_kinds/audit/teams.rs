//! Teams: the plan is the one that a person let pass, every step was done by whom it names, and the result says who did
//! what and what it cost.

use std::collections::BTreeMap;

use serde_json::Value;

use super::{Evidence, Report, number, text};
use crate::five_kinds::api::Service;
use crate::five_kinds::clients::Promises;
use crate::five_kinds::company::Company;
use crate::five_kinds::model::STEPS;
use crate::five_kinds::person::PERSON;

pub(super) async fn check(
    company: &Company,
    promises: &Promises,
    evidence: &Evidence,
    report: &mut Report,
) {
    for (n, id) in &promises.teams {
        let path = format!("/collaborative/tasks/{id}");
        let shown = company.api.get(Service::Orchestrator, &path).await;
        team(*n, &shown, report);
        let path = format!("/tasks/{id}/tree");
        let tree = company.api.get(Service::Orchestrator, &path).await;
        cost(id, &shown, &tree, evidence, report);
        if let Some(task) = evidence.task(id) {
            asked(*n, evidence.journal(task), report);
        }
    }
}

fn team(n: usize, shown: &Value, report: &mut Report) {
    let steps: &[&str] = if n % 4 == 2 {
        &["facts", "check"]
    } else {
        &STEPS
    };
    // Of every third task the figures were looked up again, where there are any.
    let again = usize::from(n.is_multiple_of(3) && steps.len() == 3);
    let list = |field: &str| shown[field].as_array().cloned().unwrap_or_default();
    let mut wrong = Vec::new();
    let mut expect = |is_so: bool, what: &str| {
        if !is_so {
            wrong.push(what.to_owned());
        }
    };
    expect(shown["status"] == "completed", "status");
    expect(shown["output"] == format!("t{n} is answered"), "output");
    let writer = match n % 4 {
        2 => Value::from(PERSON),
        _ => Value::Null,
    };
    let plan = &shown["plan"];
    expect(
        plan["is_approved"] == true && plan["written_by"] == writer,
        "approval",
    );
    let planned = plan["steps"].as_array().cloned().unwrap_or_default();
    let names: Vec<&str> = planned.iter().map(|step| text(step, "id")).collect();
    expect(names == steps, "steps");
    expect(
        planned.iter().all(|step| step["status"] == "completed"),
        "steps' status",
    );
    expect(number(&shown["progress"], "percent") == 100, "progress");
    let mut participants = list("participating_agents");
    participants.sort_by_key(ToString::to_string);
    expect(participants == ["critic", "researcher"], "participants");
    let done = list("contributions");
    expect(done.len() == steps.len() + again, "contributions");
    for one in &done {
        let agent = if one["step"] == "check" {
            "critic"
        } else {
            "researcher"
        };
        let is_so = one["agent_name"] == agent && one["status"] == "completed";
        expect(
            is_so && one["cost_usd"].as_f64() > Some(0.0),
            "a contribution",
        );
    }
    let mut by_step: BTreeMap<&str, usize> = BTreeMap::new();
    for one in &done {
        *by_step.entry(text(one, "step")).or_default() += 1;
    }
    let figures = by_step.get("figures").copied().unwrap_or_default();
    expect(figures == usize::from(steps.len() == 3) + again, "figures");
    let shared = list("shared_state");
    expect(shared.len() == steps.len() - 1, "shared state");
    let facts = shared.iter().find(|value| value["key"] == "facts");
    let writer = done.iter().find(|one| one["step"] == "facts");
    let (by, id) = (
        facts.map(|v| &v["written_by"]),
        writer.map(|v| &v["execution_id"]),
    );
    expect(
        facts.is_some_and(|v| v["version"] == 1) && by == id,
        "facts",
    );
    if !wrong.is_empty() {
        report.wrong(format!(
            "task t{n} of the team: {}: {shown}",
            wrong.join(", ")
        ));
    }
}

/// The tree's sums are those of the executions in it, and each contribution is what its execution says.
fn cost(id: &str, shown: &Value, tree: &Value, evidence: &Evidence, report: &mut Report) {
    let children = evidence
        .tasks
        .iter()
        .filter(|t| t["parent_execution_id"] == id);
    let family: Vec<&Value> = evidence.task(id).into_iter().chain(children).collect();
    let tokens: u64 = family
        .iter()
        .map(|task| number(&task["usage"], "total_tokens"))
        .sum();
    let dollars: f64 = family
        .iter()
        .filter_map(|task| task["cost_usd"].as_f64())
        .sum();
    let is_so = number(tree, "executions") == family.len() as u64
        && number(tree, "total_tokens") == tokens
        && (tree["total_cost_usd"].as_f64().unwrap_or_default() - dollars).abs() < 1e-6
        && tree["children"].as_array().map(Vec::len) == Some(family.len() - 1);
    if !is_so {
        report.wrong(format!(
            "{tokens} tokens and ${dollars} are not what the tree says: {tree}"
        ));
    }
    for one in shown["contributions"].as_array().into_iter().flatten() {
        let task = evidence.task(text(one, "execution_id"));
        let is_so = task.is_some_and(|task| {
            task["usage"] == one["usage"] && task["cost_usd"] == one["cost_usd"]
        });
        if !is_so {
            report.wrong(format!("{one} is not what its execution says: {task:?}"));
        }
    }
}

/// A person was asked about the plan, twice where they refused the first, and about what was vague.
fn asked(n: usize, journal: &[Value], report: &mut Report) {
    let count = |question: &str| {
        let asked = journal
            .iter()
            .filter(|step| step["question"]["question"] == question);
        asked.count()
    };
    let plans = if n % 4 == 1 { 2 } else { 1 };
    let vague = usize::from(n % 4 == 3);
    if (count("plan"), count("clarification")) != (plans, vague) {
        report.wrong(format!(
            "of t{n} a person was asked {} times about the plan and {} times else",
            count("plan"),
            count("clarification")
        ));
    }
    let answers = journal
        .iter()
        .filter(|step| step["kind"] == "input_received");
    if answers.clone().count() != plans + vague || !answers.clone().all(|s| s["by"] == PERSON) {
        let answers: Vec<&Value> = answers.collect();
        report.wrong(format!("of t{n} a person answered {answers:?}"));
    }
}
