//! Every execution is one that somebody was promised, and completed; nobody was promised one that is not there.

use std::collections::HashSet;

use super::{Evidence, Report, same, text};
use crate::five_kinds::api::Service;
use crate::five_kinds::clients::Promises;
use crate::five_kinds::company::Company;

pub(super) async fn check(
    company: &Company,
    promises: &Promises,
    evidence: &Evidence,
    report: &mut Report,
) {
    for task in &evidence.tasks {
        if task["status"] != "completed" {
            report.wrong(format!("it did not complete: {task}"));
        }
    }
    let ids = |agents: &[&str]| -> HashSet<String> {
        let tasks = agents.iter().flat_map(|agent| evidence.of(agent));
        tasks.map(|t| text(t, "execution_id").to_owned()).collect()
    };
    // Those that were asked for.
    let support = promises.messages.iter();
    let wanted = support.filter_map(|message| message.id.clone()).collect();
    let asked = evidence
        .of("support")
        .filter(|task| task["event_id"].is_null());
    let asked = asked.map(|t| text(t, "execution_id").to_owned()).collect();
    same("messages to support", &wanted, &asked, report);
    let wanted = promises.teams.iter().map(|(_, id)| id.clone()).collect();
    same(
        "tasks of the team",
        &wanted,
        &ids(&["research-team"]),
        report,
    );
    // Those that an event started, one for each id.
    let mail = promises.messages.iter().filter(|one| one.id.is_none());
    let wanted: HashSet<String> = mail.map(|message| message.name.clone()).collect();
    let started = evidence
        .of("support")
        .filter(|task| !task["event_id"].is_null());
    let started: Vec<String> = started.map(|t| text(t, "event_id").to_owned()).collect();
    if started.len() != wanted.len() {
        let (started, wanted) = (started.len(), wanted.len());
        report.wrong(format!("{wanted} mails started {started} executions"));
    }
    same(
        "mails to support",
        &wanted,
        &started.into_iter().collect(),
        report,
    );
    // Those that a schedule started, one for each run.
    for name in ["daily-report", "monitor"] {
        let path = format!("/schedules/{name}/runs?limit=1000");
        let runs = company.api.all(Service::Scheduler, &path).await;
        let runs: Vec<&str> = runs
            .iter()
            .filter_map(|r| r["execution_id"].as_str())
            .collect();
        let wanted: HashSet<String> = runs.iter().map(|id| (*id).to_owned()).collect();
        if wanted.len() != runs.len() {
            report.wrong(format!("two runs of {name} are one execution"));
        }
        same(&format!("runs of {name}"), &wanted, &ids(&[name]), report);
    }
    let team = ids(&["research-team"]);
    for task in ["researcher", "critic"]
        .iter()
        .flat_map(|agent| evidence.of(agent))
    {
        if !team.contains(text(task, "parent_execution_id")) {
            report.wrong(format!("it works for nobody: {task}"));
        }
    }
}
