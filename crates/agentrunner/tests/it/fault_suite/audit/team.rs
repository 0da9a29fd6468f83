//! What teams must have done: one plan, each step by one execution, what they share written once, and no more consumed
//! than the lead may.

use std::collections::{BTreeMap, HashMap};

use domain::execution::Totals;
use domain::{ExecutionId, Planning, StepBody};
use store::Store;

use super::super::agents::{Kind, LEADS_BUDGET, PLAN, part_of};
use super::{Case, Check, Findings};

/// I1, I4, I6 and R5 of teams.
pub(super) async fn check(store: &dyn Store, cases: &[Case], findings: &mut Findings) {
    let mut teams: HashMap<ExecutionId, Vec<&Case>> = HashMap::new();
    for case in cases {
        if let Some(parent) = &case.row.execution.parent {
            teams.entry(parent.id).or_default().push(case);
        }
    }
    for lead in cases.iter().filter(|case| case.kind == Kind::Lead) {
        let id = lead.row.execution.id;
        let team = teams.get(&id).map_or(&[][..], Vec::as_slice);
        let made = lead.steps.iter().filter(|step| {
            matches!(&step.body, StepBody::Plan(plan) if matches!(**plan, Planning::Made { .. }))
        });
        let plans = made.count();
        if plans > 1 || (lead.is_completed() && plans != 1) {
            findings.wrong(Check::RepeatedStep, format!("{}: {plans} plans", lead.name));
        }
        within_budget(lead, team, findings);
        if lead.is_completed() {
            done_by_plan(lead, team, findings);
            shared_once(store, lead, team, findings).await;
        }
    }
}

fn done_by_plan(lead: &Case, team: &[&Case], findings: &mut Findings) {
    let mut names: Vec<(&str, Kind)> = team.iter().map(|c| (c.name.as_str(), c.kind)).collect();
    names.sort_unstable();
    let wanted = PLAN.map(|(step, kind)| (part_of(&lead.name, step), kind));
    let wanted: Vec<(&str, Kind)> = wanted.iter().map(|(n, k)| (n.as_str(), *k)).collect();
    if names != wanted {
        findings.wrong(
            Check::StartedTwice,
            format!("the plan of {} was done by {names:?}", lead.name),
        );
    }
}

fn within_budget(lead: &Case, team: &[&Case], findings: &mut Findings) {
    let mut all: Totals = lead.row.totals;
    for member in team {
        all += member.row.totals;
    }
    let tokens = all.usage.input_tokens.0 + all.usage.output_tokens.0;
    if tokens > LEADS_BUDGET {
        findings.wrong(
            Check::OverBudget,
            format!("{} and its team consumed {tokens} tokens", lead.name),
        );
    }
}

/// Each step has written its value: once, however often its write was repeated.
async fn shared_once(store: &dyn Store, lead: &Case, team: &[&Case], findings: &mut Findings) {
    let values = store.shared(lead.row.execution.id, &[]).await.unwrap();
    let found: BTreeMap<String, (u64, ExecutionId)> = values
        .into_iter()
        .map(|value| (value.key, (value.version, value.by)))
        .collect();
    let wanted = team
        .iter()
        .map(|case| (case.name.clone(), (1, case.row.execution.id)));
    let wanted: BTreeMap<String, (u64, ExecutionId)> = wanted.collect();
    if found != wanted {
        findings.wrong(
            Check::Effects,
            format!("{} shares {found:?}, written was {wanted:?}", lead.name),
        );
    }
}
