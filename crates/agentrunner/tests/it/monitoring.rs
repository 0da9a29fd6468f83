//! What an operator sees in Prometheus and Grafana: the page names every metric, `/metrics` shows no other, and the rules and
//! the dashboard ask for none that does not exist. That Prometheus itself takes them is `make monitoring-check`'s.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::Value;
use services::http::metrics::table::{Kind, METRICS};

use crate::project::Project;

fn file(path: &str) -> (PathBuf, String) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .join(path);
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    (path, text)
}

fn known() -> BTreeMap<&'static str, Kind> {
    METRICS
        .iter()
        .map(|metric| (metric.name, metric.kind))
        .collect()
}

/// The metric that a series belongs to.
fn metric_of(series: &str) -> Option<&'static str> {
    let known = known();
    let of = |name: &str| known.get_key_value(name).map(|(name, kind)| (*name, *kind));
    if let Some((name, kind)) = of(series) {
        return (kind != Kind::Histogram).then_some(name);
    }
    ["_bucket", "_sum", "_count"]
        .into_iter()
        .filter_map(|suffix| of(series.strip_suffix(suffix)?))
        .find_map(|(name, kind)| (kind == Kind::Histogram).then_some(name))
}

/// The series of ours that a query names.
fn series(query: &str) -> impl Iterator<Item = &str> {
    let is_name = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    query
        .split(move |c| !is_name(c))
        .filter(|word| word.starts_with("agentrunner_") || word.starts_with("http_request"))
}

#[test]
fn the_page_names_every_metric_once_and_as_it_is() {
    let (_, page) = file("docs/monitoring.md");
    for metric in METRICS {
        let labels = metric.labels.split(", ").filter(|label| !label.is_empty());
        let labels: Vec<_> = labels.map(|label| format!("`{label}`")).collect();
        let row = format!(
            "| `{}` | {} | {} | {} |",
            metric.name,
            metric.kind.as_str(),
            labels.join(", "),
            metric.about
        );
        assert_eq!(
            page.matches(&row).count(),
            1,
            "docs/monitoring.md lacks\n{row}"
        );
    }
    let rows = page
        .lines()
        .filter(|line| line.starts_with("| `agentrunner_") || line.starts_with("| `http_"));
    assert_eq!(rows.count(), METRICS.len(), "the page has a row too many");
}

#[test]
fn names_keep_to_the_rules_of_prometheus() {
    for metric in METRICS {
        let is_total = metric.name.ends_with("_total");
        assert_eq!(is_total, metric.kind == Kind::Counter, "{}", metric.name);
        for unit in [
            "_ms",
            "_millis",
            "_milliseconds",
            "_minutes",
            "_percent",
            "_kb",
        ] {
            assert!(!metric.name.ends_with(unit), "{}: a base unit", metric.name);
        }
    }
}

#[test]
fn rules_and_dashboard_ask_for_what_there_is_and_each_alert_has_its_page() {
    let (_, rules) = file("deploy/prometheus/agentrunner.rules.yml");
    let rules: Value = serde_saphyr::from_str(&rules).unwrap();
    let rules = rules["groups"][0]["rules"].as_array().unwrap().clone();
    let mut queries = Vec::new();
    for rule in &rules {
        let name = rule["alert"].as_str().unwrap();
        queries.push(rule["expr"].as_str().unwrap().to_owned());
        let page = format!("docs/runbooks/{name}.md");
        let url = rule["annotations"]["runbook_url"].as_str().unwrap();
        assert!(url.ends_with(&page), "{url}");
        let (_, text) = file(&page);
        assert!(text.starts_with(&format!("# {name}: ")), "{page}");
    }
    let pages = file("docs/runbooks/README.md").0;
    let pages = std::fs::read_dir(pages.parent().unwrap()).unwrap().count();
    assert_eq!(pages, rules.len() + 1, "a page without an alert");
    let (_, dashboard) = file("deploy/grafana/agentrunner.json");
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    for panel in dashboard["panels"].as_array().unwrap() {
        let targets = panel["targets"].as_array().into_iter().flatten();
        queries.extend(targets.map(|target| target["expr"].as_str().unwrap().to_owned()));
    }
    assert!(queries.len() > 50, "{}", queries.len());
    for query in &queries {
        for series in series(query) {
            assert!(metric_of(series).is_some(), "there is no {series}: {query}");
        }
    }
}

#[tokio::test]
async fn what_is_shown_is_on_the_page_with_its_meaning() {
    let project = Project::new();
    let _server = project.up().await;
    let ran = project.run(&["run", "greeter", "hello"]).await;
    assert_eq!(ran.code, 0, "{ran:?}");
    let text = reqwest::get(project.url("/metrics")).await.unwrap();
    let text = text.text().await.unwrap();
    let mut shown = Vec::new();
    for line in text.lines() {
        if let Some(told) = line.strip_prefix("# TYPE ") {
            let (name, kind) = told.split_once(' ').unwrap();
            let wanted = known().get(name).map(|kind| kind.as_str());
            assert_eq!(wanted, Some(kind), "{name}");
            shown.push(name.to_owned());
        } else if let Some(told) = line.strip_prefix("# HELP ") {
            let (name, about) = told.split_once(' ').unwrap();
            let metric = METRICS.iter().find(|metric| metric.name == name).unwrap();
            assert_eq!(about, metric.about, "{name}");
        } else if !line.is_empty() {
            let end = line.find(['{', ' ']).unwrap();
            let series = line.get(..end).unwrap();
            assert!(metric_of(series).is_some(), "{series}");
        }
    }
    // From the first task on, and what alerts ask for from the beginning.
    for name in [
        "agentrunner_executions_total",
        "agentrunner_execution_duration_seconds",
        "agentrunner_execution_queue_seconds",
        "agentrunner_executions_active",
        "agentrunner_executions_oldest_queued_seconds",
        "agentrunner_model_calls_total",
        "agentrunner_tokens_total",
        "agentrunner_leases_taken_over_total",
        "agentrunner_late_writes_refused_total",
        "agentrunner_dead_letters",
        "agentrunner_schedules_overdue",
        "agentrunner_build_info",
        "http_requests_total",
    ] {
        assert!(
            shown.iter().any(|one| one == name),
            "{name} is not in\n{text}"
        );
    }
    assert!(
        text.contains(r#"agentrunner_executions_total{agent="greeter",status="completed"} 1"#),
        "{text}"
    );
}
