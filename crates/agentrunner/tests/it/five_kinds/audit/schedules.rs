//! Schedules: a row for each due time from the first to the last, one execution for each that was not skipped, and a
//! reason for each that was, which what happened then bears out.

use chrono::{DateTime, TimeDelta, Utc};
use serde_json::Value;

use super::{Evidence, Report, text, time};
use crate::five_kinds::api::Service;
use crate::five_kinds::company::{Company, LOOK_EVERY, REPORT_EVERY};

/// How late the last due time before the pause may have been noticed: a scheduler may have been starting then.
const NOTICE: TimeDelta = TimeDelta::seconds(10);

pub(super) async fn check(
    company: &Company,
    evidence: &Evidence,
    paused_at: DateTime<Utc>,
    report: &mut Report,
) {
    for (name, period) in [("daily-report", REPORT_EVERY), ("monitor", LOOK_EVERY)] {
        let schedule = format!("/schedules/{name}");
        let schedule = company.api.get(Service::Scheduler, &schedule).await;
        let path = format!("/schedules/{name}/runs?limit=1000");
        let mut runs = company.api.all(Service::Scheduler, &path).await;
        runs.reverse();
        no_gap(name, &runs, TimeDelta::seconds(period), report);
        let made = time(&schedule, "created_at");
        let first = runs.first().and_then(|run| time(run, "fire_time"));
        let last = runs.last().and_then(|run| time(run, "fire_time"));
        let (Some(made), Some(first), Some(last)) = (made, first, last) else {
            report.wrong(format!("{name} never fired: {schedule}"));
            continue;
        };
        let period = TimeDelta::seconds(period);
        if first - made > period || paused_at - last > period + NOTICE {
            report.wrong(format!(
                "{name}, made at {made} and paused at {paused_at}, fired from {first} to {last}"
            ));
        }
        for (n, run) in runs.iter().enumerate() {
            explain(name, &runs, n, period, evidence, report);
            if run["trigger"] != "schedule" {
                report.wrong(format!("nobody triggered {name}: {run}"));
            }
        }
        figures(name, &runs, report);
    }
    for task in evidence.of("daily-report") {
        let said = evidence.output(task);
        if said != Some("The sales were as ever.") {
            report.wrong(format!("the report says {said:?}"));
        }
    }
}

fn no_gap(name: &str, runs: &[Value], period: TimeDelta, report: &mut Report) {
    let times: Vec<_> = runs
        .iter()
        .filter_map(|run| time(run, "fire_time"))
        .collect();
    let by_calendar = name == "daily-report";
    let seconds = period.num_seconds();
    if by_calendar
        && times
            .iter()
            .any(|at| at.timestamp_millis() % (seconds * 1000) != 0)
    {
        report.wrong(format!(
            "{name} fired at no time of its calendar: {times:?}"
        ));
    }
    for pair in times.windows(2) {
        if pair[1] - pair[0] != period {
            report.wrong(format!("{name} fired at {} and {}", pair[0], pair[1]));
        }
    }
}

/// A run completed; or it was skipped, and that is what its policy says about what happened then.
fn explain(
    name: &str,
    runs: &[Value],
    n: usize,
    period: TimeDelta,
    evidence: &Evidence,
    report: &mut Report,
) {
    let run = &runs[n];
    let (Some(due), Some(noticed)) = (time(run, "fire_time"), time(run, "noticed_at")) else {
        report.wrong(format!("a run of {name} without times: {run}"));
        return;
    };
    // Another due time had come by then.
    let was_missed = noticed - due >= period;
    let was_busy = runs[..n].iter().any(|before| {
        time(before, "noticed_at").is_some_and(|at| at <= noticed)
            && before["execution_id"].is_string()
            && time(before, "finished_at")
                .is_none_or(|at| at >= noticed - TimeDelta::milliseconds(500))
    });
    let is_explained = match (name, text(run, "status"), text(run, "reason")) {
        (_, "completed", "") => evidence.task(text(run, "execution_id")).is_some(),
        ("monitor", "skipped", "overlap") => was_busy,
        ("monitor", "skipped", "misfire") | ("daily-report", "skipped", "coalesced") => was_missed,
        _ => false,
    };
    if !is_explained {
        report.wrong(format!("a run of {name} that nothing explains: {run}"));
    }
}

fn figures(name: &str, runs: &[Value], report: &mut Report) {
    let skipped: Vec<&str> = runs
        .iter()
        .filter(|run| run["status"] == "skipped")
        .map(|run| text(run, "reason"))
        .collect();
    let started = runs.iter().filter(|run| run["execution_id"].is_string());
    let mut lags: Vec<i64> = started
        .filter_map(|run| Some(time(run, "noticed_at")? - time(run, "fire_time")?))
        .map(|lag| lag.num_milliseconds())
        .collect();
    lags.sort_unstable();
    let middle = lags.get(lags.len() / 2).copied().unwrap_or_default();
    let most = lags.last().copied().unwrap_or_default();
    report.figure(
        format!("due times of {name}"),
        format!(
            "{}, {} skipped {skipped:?}, noticed after {middle} ms (median), at most {most} ms",
            runs.len(),
            skipped.len()
        ),
    );
}
