//! What came of a run: for people, and as JSON for whoever compares runs.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};

use super::audit::{Check, Findings};
use super::chaos::Done;

/// What came of a run.
pub(super) struct Table {
    pub(super) title: &'static str,
    pub(super) seed: u64,
    pub(super) took: Duration,
    pub(super) took_to_settle: Duration,
    pub(super) accepted: usize,
    pub(super) asked_again: usize,
    pub(super) unknown_outcomes: usize,
    pub(super) answers: usize,
    pub(super) starts: usize,
    pub(super) vain_starts: usize,
    pub(super) skipped: Vec<String>,
    pub(super) done: Done,
    pub(super) figures: Vec<(String, String)>,
    pub(super) findings: Findings,
}

impl Table {
    pub(super) fn kills(&self) -> usize {
        let kills = self
            .done
            .iter()
            .filter(|(what, _)| what.starts_with("kill"));
        kills.map(|(_, times)| times).sum()
    }

    pub(super) fn is_clean(&self) -> bool {
        self.findings.wrong.is_empty()
    }

    fn rows(&self) -> Vec<(String, String)> {
        let findings = &self.findings;
        let mut rows = vec![("executions".to_owned(), findings.executions().to_string())];
        let mut row = |what: &str, figure: String| rows.push((what.to_owned(), figure));
        for (status, count) in &findings.executions {
            row(&format!("  {status}"), count.to_string());
        }
        row("asked for and accepted", self.accepted.to_string());
        row(
            "requests that had to be repeated",
            self.asked_again.to_string(),
        );
        row("steps", findings.steps.to_string());
        row("model requests", findings.model_requests.to_string());
        row("  for summaries", findings.summaries.to_string());
        row("tool calls", findings.tool_calls.to_string());
        let due: usize = findings.due_times.values().sum();
        row("due times of schedules", due.to_string());
        for (what, count) in &findings.due_times {
            row(&format!("  {what}"), count.to_string());
        }
        row("leases after the first", findings.takeovers.to_string());
        row("kills", self.kills().to_string());
        for (what, count) in &self.done {
            row(&format!("  {what}"), count.to_string());
        }
        for what in &self.skipped {
            row(&format!("  skipped: {what}"), "-".to_owned());
        }
        row("starts of processes", self.starts.to_string());
        row("  in vain, a server was away", self.vain_starts.to_string());
        row("answers of a person", self.answers.to_string());
        row(
            "unknown outcomes settled by a person",
            self.unknown_outcomes.to_string(),
        );
        row(
            "refused late writes",
            findings.refused_late_writes.to_string(),
        );
        row(
            "acts that came late from a lost owner",
            findings.late_arrivals.to_string(),
        );
        for (what, figure) in &self.figures {
            row(what, figure.clone());
        }
        for check in Check::ALL {
            row(check.name(), self.count(check).to_string());
        }
        rows
    }

    fn count(&self, check: Check) -> usize {
        self.findings.wrong.get(&check).map_or(0, Vec::len)
    }

    /// Plain text, and what was wrong below it.
    pub(super) fn text(&self) -> String {
        let mut text = format!(
            "{}, seed {}: {:.0} s of faults, settled after {:.0} s\n",
            self.title,
            self.seed,
            self.took.as_secs_f64(),
            self.took_to_settle.as_secs_f64()
        );
        for (what, figure) in self.rows() {
            writeln!(text, "  {what:<52} {figure:>8}").unwrap();
        }
        for (check, wrong) in &self.findings.wrong {
            writeln!(text, "{}:", check.name()).unwrap();
            for what in wrong.iter().take(20) {
                writeln!(text, "  {what}").unwrap();
            }
        }
        text
    }

    /// Where what is left of a run is put.
    pub(super) fn folder(&self) -> PathBuf {
        let all = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(self.title.replace(' ', "-"));
        all.join(format!("seed-{}", self.seed))
    }

    /// Writes the same as JSON; answers where.
    pub(super) fn save(&self) -> PathBuf {
        let rows: serde_json::Map<String, Value> = self
            .rows()
            .into_iter()
            .map(|(what, figure)| {
                let figure = figure.parse::<u64>().map_or(Value::Null, Value::from);
                (what.trim().to_owned(), figure)
            })
            .collect();
        let wrong: serde_json::Map<String, Value> = self
            .findings
            .wrong
            .iter()
            .map(|(check, wrong)| (check.name().to_owned(), json!(wrong)))
            .collect();
        let all = json!({
            "seed": self.seed, "seconds": self.took.as_secs(), "seconds_to_settle": self.took_to_settle.as_secs(),
            "figures": rows, "wrong": wrong,
        });
        let folder = self.folder();
        std::fs::create_dir_all(&folder).unwrap();
        let path = folder.join("table.json");
        std::fs::write(&path, serde_json::to_string_pretty(&all).unwrap()).unwrap();
        path
    }
}
