//! Alerts: what is wrong, what was, and who was told.

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use domain::alert::{Severity, Standing};
use domain::{Delivery, Matter, Time};
use http::Uri;
use serde::{Deserialize, Serialize};
use store::{DeliveryFilter, DeliveryKind};
use utoipa::{IntoParams, ToSchema};

use super::callbacks::state;
use crate::alerts::known;
use crate::execution::invalid;
use crate::http::error::ErrorBody;
use crate::http::page::{Listed, cursor, next_address, page};
use crate::http::params::Params;
use crate::http::{Answer, App};

const STATES: [&str; 3] = ["pending", "firing", "resolved"];

/// Something that a rule found wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AlertOut {
    /// The rule and what it is about.
    #[schema(example = "failing/helper")]
    id: String,
    /// The rule.
    rule: String,
    /// What it is about: an agent or schedule; empty when it is about all.
    subject: String,
    /// pending (not for long enough to be told), firing or resolved.
    state: &'static str,
    /// info, warning or critical.
    #[schema(value_type = String, example = "warning")]
    severity: Severity,
    /// What is wrong, in words.
    summary: String,
    /// Since when it is.
    #[schema(value_type = String, format = DateTime)]
    since: Time,
    /// Since when it fires.
    #[schema(value_type = Option<String>, format = DateTime)]
    fired_at: Option<Time>,
    /// When it was last told.
    #[schema(value_type = Option<String>, format = DateTime)]
    told_at: Option<Time>,
    /// When it was over.
    #[schema(value_type = Option<String>, format = DateTime)]
    resolved_at: Option<Time>,
}

impl AlertOut {
    fn new(rule: &str, subject: String, standing: Standing) -> Self {
        Self {
            id: format!("{rule}/{subject}"),
            rule: rule.to_owned(),
            subject,
            state: standing.state(),
            severity: standing.severity,
            summary: standing.summary,
            since: standing.since,
            fired_at: standing.fired_at,
            told_at: standing.told_at,
            resolved_at: standing.resolved_at,
        }
    }
}

/// Which alerts; all of them when nothing is said.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// pending, firing or resolved.
    #[param(example = "firing")]
    state: Option<String>,
    /// How many at most: 1 to 1000, 100 when nothing is said.
    limit: Option<usize>,
    /// Where to go on: from the `Link` header of the answer before.
    cursor: Option<String>,
}

/// Lists what the rules of `alerts.yml` found wrong, by rule, and what was over within the last day.
#[utoipa::path(get, path = "/alerts", tag = "alerts", params(ListParams), responses(
    (status = 200, body = Vec<AlertOut>),
    (status = 400, body = ErrorBody),
))]
pub(super) async fn list(
    State(app): State<App>,
    Params(params): Params<ListParams>,
    uri: Uri,
) -> Answer<Response> {
    let wanted = params.state.as_deref();
    if let Some(state) = wanted.filter(|state| !STATES.contains(state)) {
        let why = format!(
            "{state:?} is no state of an alert; it is one of {}",
            STATES.join(", ")
        );
        return Err(invalid("state", &why));
    }
    let known = known(&app.engine.store().alert_state().await?);
    let mut alerts = Vec::new();
    for (rule, subjects) in known.rules {
        for (subject, standing) in subjects {
            alerts.push(AlertOut::new(&rule, subject, standing));
        }
    }
    alerts.retain(|alert| wanted.is_none_or(|state| state == alert.state));
    alerts.sort_by(|a, b| a.id.cmp(&b.id));
    let cursor = params.cursor.as_deref();
    let listed = Listed::of_all(alerts, |alert| &alert.id, params.limit, cursor, &uri)?;
    Ok(listed.into_response())
}

/// A message to a receiver.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct AlertDeliveryOut {
    /// Its id.
    id: String,
    /// To whom.
    receiver: String,
    /// alert.firing, alert.reminder or alert.resolved.
    event: String,
    /// pending, delivered or failed.
    state: &'static str,
    /// How often it was tried.
    attempts: u32,
    /// Since when it is to be delivered.
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    /// When it is tried next; null when it is not.
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<Time>,
    /// When it arrived or was given up.
    #[schema(value_type = Option<String>, format = DateTime)]
    settled_at: Option<Time>,
    /// Why it did not arrive the last time; null when it did.
    last_error: Option<String>,
}

impl AlertDeliveryOut {
    fn new(delivery: Delivery) -> Option<Self> {
        let Matter::Alert { receiver, .. } = delivery.matter else {
            return None;
        };
        let detail = delivery.last.map(|last| last.detail);
        Some(Self {
            id: delivery.id.to_string(),
            receiver,
            event: delivery.event,
            state: delivery.state.as_str(),
            attempts: delivery.attempts,
            created_at: delivery.created_at,
            next_attempt_at: delivery.next_at,
            settled_at: delivery.settled_at,
            last_error: detail.filter(|detail| !detail.is_empty()),
        })
    }
}

/// Which messages; all of them when nothing is said.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct DeliveryParams {
    /// pending, delivered or failed.
    #[param(example = "failed")]
    state: Option<String>,
    /// How many at most: 1 to 1000, 100 when nothing is said.
    limit: Option<usize>,
    /// Where to go on: from the `Link` header of the answer before.
    cursor: Option<String>,
}

/// Lists the messages to receivers of alerts, newest first: whether each has arrived, and why not.
#[utoipa::path(get, path = "/alerts/deliveries", tag = "alerts", params(DeliveryParams), responses(
    (status = 200, body = Vec<AlertDeliveryOut>),
    (status = 400, body = ErrorBody),
))]
pub(super) async fn deliveries(
    State(app): State<App>,
    Params(params): Params<DeliveryParams>,
    uri: Uri,
) -> Answer<Response> {
    let page = page(params.limit, params.cursor.as_deref())?;
    let limit = page.limit;
    let filter = DeliveryFilter {
        kind: DeliveryKind::Alert,
        state: state(params.state.as_deref())?,
        agents: Vec::new(),
        page,
    };
    let found = app.engine.store().deliveries(filter).await?;
    let last = found.last().filter(|_| found.len() == limit);
    let next = last.map(|last| next_address(&uri, &cursor(last.created_at, &last.id.to_string())));
    let items: Vec<AlertDeliveryOut> = found
        .into_iter()
        .filter_map(AlertDeliveryOut::new)
        .collect();
    Ok(Listed::new(items, next, None).into_response())
}
