//! What parents and children must be to each other: each child was started once, by its parent's journal; its end and
//! what it cost are told there as they were; and none outlives its parent.

use std::collections::{BTreeMap, HashMap};

use domain::execution::Totals;
use domain::team::VerdictKind;
use domain::{CallRef, ExecutionId, Planning, StepBody};

use super::{Entry, Flaw, Rule, flaw};

/// I4, I6 and I7 of families.
pub(super) fn check(all: &[&Entry], flaws: &mut Vec<Flaw>) {
    let by_id: HashMap<ExecutionId, &Entry> = all
        .iter()
        .map(|entry| (entry.row.execution.id, *entry))
        .collect();
    let mut children: HashMap<ExecutionId, Vec<&Entry>> = HashMap::new();
    for child in all {
        let Some(parent) = &child.row.execution.parent else {
            continue;
        };
        children.entry(parent.id).or_default().push(child);
        let Some(parent) = by_id.get(&parent.id) else {
            let what = format!("{} has a parent that is not there", child.name());
            flaws.push(flaw(Rule::I4, what));
            continue;
        };
        if parent.row.status.is_terminal() && !child.row.status.is_terminal() {
            let what = format!("{} goes on without its parent", child.name());
            flaws.push(flaw(Rule::I7, what));
        }
    }
    for parent in all {
        let id = parent.row.execution.id;
        let own = children.get(&id).map_or(&[][..], Vec::as_slice);
        started_once(parent, own, flaws);
        told_as_it_was(parent, &by_id, &children, flaws);
    }
}

/// The children that there are, are those that the journal started; each once, and each call by one unless it failed.
fn started_once(parent: &Entry, own: &[&Entry], flaws: &mut Vec<Flaw>) {
    let started = parent.steps.iter().filter_map(|step| match &step.body {
        StepBody::ChildStarted { call, child, .. } => Some((*call, *child)),
        _ => None,
    });
    let started: Vec<(CallRef, ExecutionId)> = started.collect();
    let mut ids: Vec<ExecutionId> = started.iter().map(|(_, child)| *child).collect();
    let mut there: Vec<ExecutionId> = own.iter().map(|child| child.row.execution.id).collect();
    ids.sort_unstable();
    there.sort_unstable();
    if ids != there {
        let what = format!(
            "{} started {ids:?}, its children are {there:?}",
            parent.name()
        );
        flaws.push(flaw(Rule::I4, what));
    }
    let is_again = |step: &domain::Step| match &step.body {
        StepBody::Plan(planning) => match &**planning {
            Planning::Retried { .. } => true,
            Planning::Reviewed { verdicts } => {
                verdicts.iter().any(|v| v.verdict == VerdictKind::Retry)
            }
            _ => false,
        },
        _ => false,
    };
    let mut times: BTreeMap<CallRef, usize> = BTreeMap::new();
    for (call, _) in &started {
        *times.entry(*call).or_default() += 1;
    }
    let again = parent.steps.iter().filter(|step| is_again(step)).count();
    for (call, times) in times {
        if times > 1 + again {
            let what = format!("{}: call {call} was begun {times} times", parent.name());
            flaws.push(flaw(Rule::I4, what));
        }
    }
}

/// A child's end and cost are in its parent's journal once, as they were.
fn told_as_it_was(
    parent: &Entry,
    by_id: &HashMap<ExecutionId, &Entry>,
    children: &HashMap<ExecutionId, Vec<&Entry>>,
    flaws: &mut Vec<Flaw>,
) {
    let mut told: HashMap<ExecutionId, usize> = HashMap::new();
    for step in &parent.steps {
        let StepBody::ChildFinished {
            child,
            outcome,
            spent,
            ..
        } = &step.body
        else {
            continue;
        };
        *told.entry(*child).or_default() += 1;
        let Some(row) = by_id.get(child).map(|child| &child.row) else {
            continue;
        };
        if row.outcome.as_ref() != Some(outcome) {
            let what = format!(
                "{} was told that {child} ended as {outcome:?}, it ended as {:?}",
                parent.name(),
                row.outcome
            );
            flaws.push(flaw(Rule::I8, what));
        }
        let whole = whole(*child, by_id, children);
        if *spent != whole {
            let what = format!(
                "{} was told that {child} spent {spent:?}, it spent {whole:?}",
                parent.name()
            );
            flaws.push(flaw(Rule::I6, what));
        }
    }
    let started = parent.steps.iter().filter_map(|step| match &step.body {
        StepBody::ChildStarted { child, .. } => Some(*child),
        _ => None,
    });
    for child in started {
        let times = told.get(&child).copied().unwrap_or_default();
        if times > 1 || (parent.is_completed() && times != 1) {
            let what = format!("{} was told {times} ends of {child}", parent.name());
            flaws.push(flaw(Rule::I3, what));
        }
    }
}

/// What an execution and all below it consumed.
fn whole(
    id: ExecutionId,
    by_id: &HashMap<ExecutionId, &Entry>,
    children: &HashMap<ExecutionId, Vec<&Entry>>,
) -> Totals {
    let mut totals = by_id
        .get(&id)
        .map_or_else(Totals::default, |entry| entry.row.totals);
    for child in children.get(&id).into_iter().flatten() {
        totals += whole(child.row.execution.id, by_id, children);
    }
    totals
}
