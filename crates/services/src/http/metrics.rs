//! The numbers of the process, for Prometheus and for people.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use metrics::{counter, gauge, histogram};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder};
use serde_json::{Map, Value, json};
use utoipa_axum::routes;

pub mod table;

use super::door::{Owner, READ, Routes};
use super::trace::known_method;
use super::{App, Service};
use crate::alerts::OVERDUE;

/// Bounds of the buckets of durations, in seconds.
const SECONDS: [f64; 12] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0,
];

/// Prepares the recorder of a process; the caller installs it, and hands its handle to [`App::new`].
///
/// # Errors
/// Never with these buckets.
pub fn recorder() -> Result<metrics_exporter_prometheus::PrometheusRecorder, BuildError> {
    let durations = Matcher::Suffix("_seconds".to_owned());
    let mut builder = PrometheusBuilder::new().set_buckets_for_metric(durations, &SECONDS)?;
    for name in LONG {
        builder = builder.set_buckets_for_metric(Matcher::Full(name.to_owned()), &LONG_SECONDS)?;
    }
    let cost = Matcher::Full("agentrunner_model_call_cost_usd".to_owned());
    let recorder = builder
        .set_buckets_for_metric(cost, &DOLLARS)?
        .build_recorder();
    metrics::with_local_recorder(&recorder, table::describe);
    Ok(recorder)
}

/// What takes as long as models, tools and people do.
const LONG: [&str; 5] = [
    "agentrunner_execution_duration_seconds",
    "agentrunner_execution_queue_seconds",
    "agentrunner_model_call_seconds",
    "agentrunner_model_first_token_seconds",
    "agentrunner_tool_call_seconds",
];
/// Bounds of their buckets, in seconds.
const LONG_SECONDS: [f64; 13] = [
    0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3600.0,
];
/// Bounds of the buckets of costs, in dollars.
const DOLLARS: [f64; 5] = [0.0001, 0.001, 0.01, 0.1, 1.0];

pub(crate) fn routes() -> Routes {
    Routes::new().with(READ.of(Owner::Everybody), routes!(show))
}

pub(crate) fn count_request(
    service: Service,
    method: &str,
    route: &str,
    status: u16,
    took: Duration,
) {
    // The method is the caller's to choose: only known ones become a label.
    let method = known_method(method).unwrap_or("other").to_owned();
    let labels = [
        ("service", service.as_str().to_owned()),
        ("method", method),
        ("route", route.to_owned()),
    ];
    histogram!("http_request_duration_seconds", &labels).record(took.as_secs_f64());
    let status = status.to_string();
    let [service, method, route] = labels;
    counter!(
        "http_requests_total",
        &[service, method, route, ("status", status)]
    )
    .increment(1);
}

/// The numbers of the process: Prometheus text, or JSON when that is asked for.
#[utoipa::path(get, path = "/metrics", tag = "health", responses(
    (status = 200, description = "Prometheus text; with `Accept: application/json` an object of lists.", content(
        (String = "text/plain"),
        (Object = "application/json"),
    )),
))]
async fn show(State(app): State<App>, headers: HeaderMap) -> Response {
    gauge!("agentrunner_build_info", "version" => app.settings.version.clone()).set(1.0);
    // Who performs nothing has no capacity.
    if app.engine.performs() {
        let pool = app.engine.registration().pool.as_str();
        let (active, capacity) = app.engine.load();
        gauge!("agentrunner_executions_active", "pool" => pool).set(active as f64);
        gauge!("agentrunner_executions_capacity", "pool" => pool).set(capacity as f64);
    }
    gauge!("agentrunner_agents").set(app.engine.agents().all().len() as f64);
    gauge!("agentrunner_uptime_seconds").set(app.started.elapsed().as_secs_f64());
    let now = app.engine.now();
    let read = || app.engine.store().vitals(&[], now - OVERDUE);
    // When the store is away the last figures stay, and `/health/ready` tells of it.
    if let Ok(vitals) = app.vitals.get(read).await {
        let queued: u64 = vitals.queued.iter().map(|(_, count, _)| count).sum();
        let oldest = vitals.queued.iter().map(|(.., since)| *since).min();
        let waited = oldest.and_then(|since| (now - since).to_std().ok());
        gauge!("agentrunner_executions_queued").set(queued as f64);
        gauge!("agentrunner_executions_oldest_queued_seconds")
            .set(waited.unwrap_or_default().as_secs_f64());
        gauge!("agentrunner_dead_letters").set(vitals.dead_letters as f64);
        gauge!("agentrunner_schedules_overdue").set(vitals.overdue.len() as f64);
    }
    let text = app
        .metrics
        .as_ref()
        .map_or_else(String::new, |metrics| metrics.render());
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok());
    if accept.is_some_and(|accept| accept.contains("application/json")) {
        return Json(to_json(&text)).into_response();
    }
    let content_type = [(
        header::CONTENT_TYPE,
        "text/plain; version=0.0.4; charset=utf-8",
    )];
    (content_type, text).into_response()
}

/// The same as JSON: a list of `{labels, value}` under each name.
fn to_json(text: &str) -> Value {
    let mut out = Map::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, read_labels(labels.trim_end_matches('}'))),
            None => (series, Map::new()),
        };
        let value: f64 = value.parse().unwrap_or_default();
        let list = out.entry(name).or_insert_with(|| json!([]));
        if let Value::Array(list) = list {
            list.push(json!({"labels": labels, "value": value}));
        }
    }
    Value::Object(out)
}

fn read_labels(text: &str) -> Map<String, Value> {
    let mut labels = Map::new();
    let mut rest = text;
    while let Some((name, after)) = rest.split_once("=\"") {
        let mut value = String::new();
        let mut chars = after.char_indices();
        let mut end = after.len();
        while let Some((at, c)) = chars.next() {
            match c {
                '"' => {
                    end = at + 1;
                    break;
                }
                '\\' => match chars.next() {
                    Some((_, 'n')) => value.push('\n'),
                    Some((_, other)) => value.push(other),
                    None => {}
                },
                other => value.push(other),
            }
        }
        labels.insert(
            name.trim_start_matches(',').to_owned(),
            Value::String(value),
        );
        rest = after.get(end..).unwrap_or_default();
    }
    labels
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prometheus_text_becomes_json() {
        let text = "# TYPE a counter\na{x=\"1\",y=\"q\\\"}\"} 3\na{x=\"2\"} 4.5\nb 1\n";
        assert_eq!(
            to_json(text),
            json!({
                "a": [
                    {"labels": {"x": "1", "y": "q\"}"}, "value": 3.0},
                    {"labels": {"x": "2"}, "value": 4.5},
                ],
                "b": [{"labels": {}, "value": 1.0}],
            })
        );
    }
}
