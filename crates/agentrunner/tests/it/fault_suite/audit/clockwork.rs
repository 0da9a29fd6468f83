//! What schedules must have led to: each due time has one row, each row that started has one execution and each execution
//! one row, what was left out was missed as its policy says, and runs that wait for each other went in their order.

use std::collections::{BTreeMap, HashMap};

use domain::schedule::Trigger;
use domain::{ExecutionId, ScheduleName, Status};
use store::{RunState, ScheduleRun};

use super::super::agents::Kind;
use super::super::clockwork::{Clockwork, SCHEDULES};
use super::book::Book;
use super::{Case, Check, Evidence, Findings};

/// More than one schedule has runs.
const ALL: usize = 10_000;

/// What an execution of a schedule is called: by schedule and due time, so that two of one name are one too many.
pub(super) fn name_of(metadata: &serde_json::Value) -> Option<String> {
    let (name, due) = (metadata["schedule"].as_str()?, &metadata["fire_time"]);
    Some(format!("{name}@{}", due.as_str()?))
}

/// The schedule of an execution of that name.
pub(super) fn schedule_of(name: &str) -> Option<&'static Clockwork> {
    let (schedule, _) = name.split_once('@')?;
    SCHEDULES.iter().find(|one| one.name == schedule)
}

/// I3, I4 of due times.
pub(super) async fn check(
    evidence: &Evidence<'_>,
    cases: &[Case],
    book: &Book,
    findings: &mut Findings,
) {
    let store = evidence.store;
    let tickers = cases.iter().filter(|case| case.kind == Kind::Ticker);
    let mut started: HashMap<ExecutionId, &Case> =
        tickers.map(|case| (case.row.execution.id, case)).collect();
    for one in evidence.schedules {
        let name: ScheduleName = one.name.parse().unwrap();
        let Some(schedule) = store.schedule(&name).await.unwrap() else {
            findings.wrong(Check::DueTimes, format!("{name} is not there"));
            continue;
        };
        if schedule.record.cursor + one.pause() < findings.mended {
            let until = schedule.record.cursor;
            findings.wrong(
                Check::DueTimes,
                format!("{name} was acted on until {until}"),
            );
        }
        let (mut runs, _) = store.schedule_runs(&name, None, ALL).await.unwrap();
        runs.reverse();
        let (made, done) = (schedule.record.created_at, schedule.record.cursor);
        let counted_from = match &schedule.record.schedule.trigger {
            Trigger::Interval { anchor, .. } => *anchor,
            _ => made,
        };
        let due = one.due(counted_from, done);
        let found: Vec<_> = runs.iter().map(|run| run.fire_time).collect();
        if found != due {
            let missing = due.iter().filter(|due| !found.contains(due));
            let extra = found.iter().filter(|found| !due.contains(found));
            findings.wrong(
                Check::DueTimes,
                format!(
                    "{name}: {} rows for {} due times from {made} to {done}; missing {:?}, not due {:?}",
                    found.len(),
                    due.len(),
                    missing.collect::<Vec<_>>(),
                    extra.collect::<Vec<_>>()
                ),
            );
        }
        let mut own = Vec::new();
        for run in &runs {
            if let Some(wrong) = what_is_wrong(one, run) {
                findings.wrong(Check::DueTimes, format!("{name}: {wrong}: {run:?}"));
            }
            let count = match run.state {
                RunState::Skipped => run.reason.as_deref().unwrap_or("skipped"),
                RunState::Started | RunState::Waiting => run.state.as_str(),
            };
            *findings.due_times.entry(count.to_owned()).or_default() += 1;
            let Some(id) = run.execution else { continue };
            match started.remove(&id) {
                Some(case) => own.push(case),
                None => findings.wrong(
                    Check::DueTimes,
                    format!("{name}: the execution of {run:?} is not there, or is another's"),
                ),
            }
        }
        one_after_another(one, &own, book, findings);
        book.check_anonymous(one.name, &own, findings);
    }
    for case in started.into_values() {
        findings.wrong(
            Check::DueTimes,
            format!("{} ({}) has no row", case.name, case.row.execution.id),
        );
    }
}

/// Why a row is not one that its schedule explains, if so.
fn what_is_wrong(one: &Clockwork, run: &ScheduleRun) -> Option<&'static str> {
    // One is missed when it is looked at only after the next is due.
    let was_missed = run.noticed_at >= run.fire_time + one.pause();
    let policy = match run.reason.as_deref() {
        Some("misfire") => "skip",
        Some("coalesced") => "once",
        _ => "",
    };
    match run.state {
        RunState::Waiting => Some("it waits for ever"),
        RunState::Started if run.execution.is_none() => Some("it started nothing"),
        RunState::Started => None,
        RunState::Skipped if run.execution.is_some() => Some("left out, and started"),
        RunState::Skipped if policy != one.misfire => Some("left out for no reason of its policy"),
        RunState::Skipped if !was_missed => Some("left out, and was not missed"),
        RunState::Skipped => None,
    }
}

/// Where runs wait for the one before, what they did is in the order of their due times.
fn one_after_another(one: &Clockwork, own: &[&Case], book: &Book, findings: &mut Findings) {
    if one.overlap != "queue" {
        return;
    }
    let done = own
        .iter()
        .filter_map(|case| Some((book.first_effect(&case.name)?, &case.name)));
    let done: Vec<(usize, &String)> = done.collect();
    for pair in done.windows(2) {
        if pair[0].0 > pair[1].0 {
            findings.wrong(
                Check::DueTimes,
                format!("{} was at work before {}", pair[1].1, pair[0].1),
            );
        }
    }
}

/// Whether a run may have ended like this: it is completed, or the next one took its place.
pub(super) fn may_end_so(case: &Case) -> bool {
    let Some(one) = schedule_of(&case.name) else {
        return false;
    };
    match case.row.status {
        Status::Completed => true,
        Status::Cancelled => {
            let by = case.row.cancel.as_ref().map(|cancel| cancel.by.as_str());
            one.overlap == "cancel" && by == Some(&format!("schedule {}", one.name))
        }
        _ => false,
    }
}

/// How the due times turned out, for the table.
pub(super) type DueTimes = BTreeMap<String, usize>;
