//! What was consumed.

use axum::Json;
use axum::extract::State;
use serde::{Deserialize, Serialize};
use store::UsageFilter;
use utoipa::{IntoParams, ToSchema};

use crate::execution::{UsageOut, provider};
use crate::http::caller::Caller;
use crate::http::error::ErrorBody;
use crate::http::params::Params;
use crate::http::{Answer, ApiError, App, Code};

/// Tokens and cost of an agent with a model on a day.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct UsageRowOut {
    /// Whose.
    agent_name: String,
    /// With whose model.
    provider: &'static str,
    /// Which.
    model: String,
    /// The UTC day.
    #[schema(example = "2026-01-31")]
    day: String,
    /// Answers of the model.
    model_calls: u64,
    /// Tool calls begun.
    tool_calls: u64,
    /// Tokens.
    #[serde(flatten)]
    usage: UsageOut,
    /// Dollars, as far as prices are known.
    cost_usd: f64,
}

/// Which usage.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct UsageParams {
    /// Of one agent.
    agent_name: Option<String>,
    /// From this UTC day on, `YYYY-MM-DD`.
    from_day: Option<String>,
    /// To this UTC day, included.
    to_day: Option<String>,
}

/// Lists tokens and cost by agent, model and UTC day.
#[utoipa::path(get, path = "/usage", tag = "usage", params(UsageParams), responses(
    (status = 200, body = Vec<UsageRowOut>),
    (status = 400, body = ErrorBody),
))]
pub(super) async fn list(
    State(app): State<App>,
    caller: Caller,
    Params(params): Params<UsageParams>,
) -> Answer<Json<Vec<UsageRowOut>>> {
    let agent = params.agent_name.map(|name| name.parse()).transpose();
    let filter = UsageFilter {
        agent: agent
            .map_err(|error: domain::id::InvalidId| invalid("agent_name", &error.to_string()))?,
        from_day: day("from_day", params.from_day)?,
        to_day: day("to_day", params.to_day)?,
    };
    let rows = app.engine.store().usage(filter).await?;
    let own = rows.into_iter().filter(|row| caller.covers(&row.agent));
    let rows = own.map(|row| UsageRowOut {
        agent_name: row.agent.to_string(),
        provider: provider(row.provider),
        model: row.model,
        day: row.day,
        model_calls: row.model_calls,
        tool_calls: row.tool_calls,
        usage: row.usage.into(),
        cost_usd: row.cost_usd.usd(),
    });
    Ok(Json(rows.collect()))
}

fn day(field: &str, text: Option<String>) -> Answer<Option<String>> {
    match text {
        Some(text) if text.parse::<chrono::NaiveDate>().is_err() || text.len() != 10 => {
            Err(invalid(field, "it is a day, such as 2026-01-31"))
        }
        text => Ok(text),
    }
}

fn invalid(field: &str, why: &str) -> ApiError {
    ApiError::new(
        Code::InvalidRequest,
        format!("query parameter {field}: {why}"),
    )
}
