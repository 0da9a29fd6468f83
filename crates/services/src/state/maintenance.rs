//! What is done now and then so that the database does not grow for ever.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use domain::Time;
use serde::{Deserialize, Serialize};
use store::Cleanup;
use utoipa::ToSchema;

use crate::http::body::{OptionalBody, Payload};
use crate::http::caller::Caller;
use crate::http::error::ErrorBody;
use crate::http::{Answer, ApiError, App, Code};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// A hundred years.
const MOST_DAYS: u32 = 36_500;

/// What is to be forgotten.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CleanupIn {
    /// What was over so many days ago, 1 to 36500; STATE_RETENTION_DAYS when nothing is said.
    #[serde(default)]
    #[schema(minimum = 1, maximum = 36500, example = 30)]
    older_than_days: Option<u32>,
    /// Only count it.
    #[serde(default)]
    #[schema(example = true)]
    dry_run: bool,
}

impl Payload for CleanupIn {}

/// What was forgotten.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct CleanupOut {
    /// Whether it was only counted.
    dry_run: bool,
    /// What was over before this.
    #[schema(value_type = String, format = DateTime)]
    before: Time,
    /// How many executions, each with its journal, task, questions and result.
    executions: u64,
    /// How many conversations in which nothing was said or kept since, with their messages.
    conversations: u64,
    /// How many dead letters.
    dead_letters: u64,
    /// How many rows of the audit log; what is kept of it can still be checked.
    audit_rows: u64,
    /// The months that went whole, as YYYY-MM; their executions are counted in `executions`.
    months: Vec<String>,
    /// Whether there is more: a request deletes some ten thousand at most. Ask again.
    has_more: bool,
}

/// Forgets executions that were over long ago, with all that belongs to them, conversations and dead letters of which
/// nothing was heard since, and old rows of the audit log; or only counts them (`dry_run`). Nothing that goes on is touched,
/// nor the children of what goes on. What was consumed stays counted in `/usage`. The services do the same by themselves every
/// hour, by STATE_RETENTION_DAYS.
#[utoipa::path(post, path = "/maintenance/cleanup", tag = "maintenance",
    request_body(content = Option<CleanupIn>, content_type = "application/json"),
    responses(
        (status = 200, description = "It is done, as far as one request does it.", body = CleanupOut),
        (status = 400, body = ErrorBody),
    ))]
pub(super) async fn clean_up(
    State(app): State<App>,
    caller: Caller,
    OptionalBody(body): OptionalBody<CleanupIn>,
) -> Answer<Json<CleanupOut>> {
    let given = body.value;
    let age = match given.older_than_days {
        None => app.settings.retention,
        Some(days @ 1..=MOST_DAYS) => DAY * days,
        Some(days) => {
            let (message, hint) = (
                format!("{days} is out of range"),
                format!("write 1 to {MOST_DAYS}"),
            );
            let error = ApiError::new(
                Code::InvalidRequest,
                format!("older_than_days: {message}; {hint}"),
            );
            return Err(error.with_field("older_than_days", &message, &hint));
        }
    };
    let cleanup = Cleanup {
        before: app.engine.now() - age,
        dry_run: given.dry_run,
    };
    caller.note("before", cleanup.before.to_rfc3339());
    caller.note("dry_run", given.dry_run.to_string());
    let store = app.engine.store();
    let cleaned = store.cleanup(cleanup).await?;
    let audit_rows = app
        .audit
        .forget(&**store, cleanup.before, cleanup.dry_run)
        .await?;
    if !given.dry_run {
        let executions = cleaned.executions;
        tracing::info!(executions, before = %cleanup.before, by = caller.name(), "old executions were deleted");
    }
    Ok(Json(CleanupOut {
        dry_run: given.dry_run,
        before: cleanup.before,
        executions: cleaned.executions,
        conversations: cleaned.conversations,
        dead_letters: cleaned.dead_letters,
        audit_rows,
        months: cleaned.months,
        has_more: cleaned.has_more,
    }))
}
