//! Every metric, with what it means: the texts of `/metrics`, and the table of `docs/monitoring.md`, which a test compares.

use metrics::{describe_counter, describe_gauge, describe_histogram};

/// How a metric moves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only up, from the beginning of the process on.
    Counter,
    /// Up and down.
    Gauge,
    /// How many were how large.
    Histogram,
}

impl Kind {
    /// As Prometheus spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name.
    pub name: &'static str,
    /// How it moves.
    pub kind: Kind,
    /// Its labels, separated by commas.
    pub labels: &'static str,
    /// What it means.
    pub about: &'static str,
}

const fn metric(
    name: &'static str,
    kind: Kind,
    labels: &'static str,
    about: &'static str,
) -> Metric {
    Metric {
        name,
        kind,
        labels,
        about,
    }
}

use Kind::{Counter, Gauge, Histogram};

/// Every metric that there is.
#[rustfmt::skip]
pub const METRICS: &[Metric] = &[
    // Executions.
    metric("agentrunner_executions_total", Counter, "agent, status", "Executions that ended, by how."),
    metric("agentrunner_execution_duration_seconds", Histogram, "mode", "How long executions took, from their begin to their end, waits for people included."),
    metric("agentrunner_execution_queue_seconds", Histogram, "mode", "How long executions waited to be begun."),
    metric("agentrunner_executions_active", Gauge, "pool", "Executions that this process performs now."),
    metric("agentrunner_executions_capacity", Gauge, "pool", "Executions that this process can perform at once."),
    metric("agentrunner_executions_queued", Gauge, "", "Executions of all processes that nobody has begun. Every process tells the same."),
    metric("agentrunner_executions_oldest_queued_seconds", Gauge, "", "How long the oldest of them has waited; 0 when none does. Every process tells the same."),
    metric("agentrunner_steps_total", Counter, "kind", "Steps that were written to journals."),
    metric("agentrunner_agents", Gauge, "", "Agents that this process knows."),
    // Models and tools.
    metric("agentrunner_model_calls_total", Counter, "agent, provider, model, outcome", "Calls of models: `answered`, `interrupted`, or the class of the error."),
    metric("agentrunner_model_call_seconds", Histogram, "provider", "How long calls of models took."),
    metric("agentrunner_model_first_token_seconds", Histogram, "provider", "How long it took until the first token came."),
    metric("agentrunner_model_call_cost_usd", Histogram, "agent, provider, model", "What calls of models cost in US dollars, where the price is known; `_sum` is what was spent."),
    metric("agentrunner_tokens_total", Counter, "agent, provider, model, type", "Tokens: `input`, `cached_input` (read from the provider's cache, not in `input`), `output`."),
    metric("agentrunner_tool_calls_total", Counter, "agent, outcome", "Calls of tools: `succeeded`, `failed`, `refused` (not called), `unknown` (nobody knows whether it happened)."),
    metric("agentrunner_tool_call_seconds", Histogram, "", "How long calls of tools took."),
    // Reliability.
    metric("agentrunner_leases_taken_over_total", Counter, "", "Executions that were taken over from a process that was lost."),
    metric("agentrunner_late_writes_refused_total", Counter, "", "Writes that came after the lease was lost; each was refused."),
    metric("agentrunner_calls_dropped_total", Counter, "kind", "Calls of a `model` or `tool` that a shutdown dropped because its time was up."),
    metric("agentrunner_dead_letters", Gauge, "", "Events that were given up and not replayed. Every process tells the same."),
    metric("agentrunner_dead_letters_total", Counter, "", "Events that were given up."),
    metric("agentrunner_schedule_lag_seconds", Histogram, "", "How long after its fire time a scheduled run was started."),
    metric("agentrunner_schedule_runs_total", Counter, "what", "Fire times, by what became of them: `started`, `waiting`, or why they were skipped."),
    metric("agentrunner_schedules_overdue", Gauge, "", "Active schedules whose fire time nobody has looked at for a minute. Every process tells the same."),
    metric("agentrunner_deliveries_total", Counter, "kind, outcome", "Callbacks and alerts that were sent out, by what came of it."),
    metric("agentrunner_alerts_total", Counter, "rule, event", "Alerts of `CONFIG_DIR/alerts.yml` that began or ended."),
    metric("agentrunner_cache_reads_total", Counter, "outcome", "Reads of the cache: `hit`, `miss`, `away`."),
    // HTTP.
    metric("http_requests_total", Counter, "service, method, route, status", "Requests that were answered."),
    metric("http_request_duration_seconds", Histogram, "service, method, route", "How long it took until an answer began."),
    metric("agentrunner_audit_failures_total", Counter, "", "Lines of the audit log that could not be written."),
    metric("agentrunner_tls_certificate_expires_timestamp_seconds", Gauge, "", "When the certificate of the listeners expires, in seconds since 1970."),
    metric("agentrunner_tls_handshakes_failed_total", Counter, "", "Connections that did not come to speak TLS."),
    // Slack.
    metric("agentrunner_slack_received_total", Counter, "kind", "What Slack sent."),
    metric("agentrunner_slack_refused_total", Counter, "", "Requests that said they were Slack's and could not prove it."),
    metric("agentrunner_slack_rate_limited_total", Counter, "method", "Calls that Slack put off."),
    metric("agentrunner_slack_undeliverable_total", Counter, "", "Messages that Slack does not take."),
    metric("agentrunner_slack_connections", Gauge, "", "Open connections of Socket Mode."),
    // Traces.
    metric("agentrunner_spans_total", Counter, "outcome", "Spans: `exported`, `failed` (the collector did not take them), `dropped` (too many waited)."),
    metric("agentrunner_traces_skipped_total", Counter, "reason", "Executions whose spans were not made: too many waited (`queue_full`), or the journal could not be read (`unreadable`)."),
    // The process.
    metric("agentrunner_build_info", Gauge, "version", "1; its label is the version of the program."),
    metric("agentrunner_uptime_seconds", Gauge, "", "How long the process has run."),
];

/// Tells the recorder what they mean.
pub(super) fn describe() {
    for metric in METRICS {
        match metric.kind {
            Counter => describe_counter!(metric.name, metric.about),
            Gauge => describe_gauge!(metric.name, metric.about),
            Histogram => describe_histogram!(metric.name, metric.about),
        }
    }
}
