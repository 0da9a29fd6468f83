//! Usage: what `/usage` counts by agent and day is the sum of what the executions say, and no more was asked of the model
//! than was counted and the ends of processes explain.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

use serde_json::Value;

use super::{Evidence, Report, number, text};
use crate::five_kinds::api::Service;
use crate::five_kinds::company::Company;

/// How many model calls may be under way in a process when it is ended.
const UNDER_WAY: u64 = 12;

/// Model calls, tool calls, tokens (in, out, from the cache), dollars.
#[derive(Debug, Default)]
struct Sum {
    counts: [u64; 5],
    dollars: f64,
}

impl Sum {
    fn add(&mut self, of: &Value, tokens: &Value) {
        let counts = [
            number(of, "model_calls"),
            number(of, "tool_calls"),
            number(tokens, "input_tokens"),
            number(tokens, "output_tokens"),
            number(tokens, "cached_tokens"),
        ];
        for (sum, count) in self.counts.iter_mut().zip(counts) {
            *sum += count;
        }
        self.dollars += of["cost_usd"].as_f64().unwrap_or_default();
    }

    fn is(&self, other: &Self) -> bool {
        self.counts == other.counts && (self.dollars - other.dollars).abs() < 1e-6
    }
}

pub(super) async fn check(company: &Company, evidence: &Evidence, report: &mut Report) {
    let mut spent: BTreeMap<&str, Sum> = BTreeMap::new();
    for task in &evidence.tasks {
        let sum = spent.entry(text(task, "agent_name")).or_default();
        sum.add(task, &task["usage"]);
    }
    let rows = company.api.all(Service::Orchestrator, "/usage").await;
    let mut counted: BTreeMap<&str, Sum> = BTreeMap::new();
    for row in &rows {
        counted
            .entry(text(row, "agent_name"))
            .or_default()
            .add(row, row);
    }
    let agrees = spent.len() == counted.len()
        && spent
            .iter()
            .all(|(agent, sum)| counted.get(agent).is_some_and(|one| one.is(sum)));
    if !agrees {
        report.wrong(format!("executions say {spent:?}, /usage says {counted:?}"));
    }
    let answers: u64 = spent.values().map(|sum| sum.counts[0]).sum();
    let dollars: f64 = spent.values().map(|sum| sum.dollars).sum();
    let asked = company.provider.count() as u64;
    report.figure("model calls that were counted", answers);
    report.figure("requests to the model", asked);
    report.figure("cost", format!("${dollars:.4}"));
    // Only pools ask, three of seven processes.
    let ends = company.ends.load(Ordering::Relaxed) as u64 * 3 / 7;
    if asked < answers || asked - answers > ends * UNDER_WAY {
        report.wrong(format!(
            "the model was asked {asked} times for {answers} answers"
        ));
    }
}
