//! The one place where errors become answers.
//!
//! A handler returns an [`ApiError`]; the edge renders it, because only the edge knows the trace.

use std::borrow::Cow;
use std::time::Duration;

use axum::response::{IntoResponse, Response};
use domain::{Time, TraceId};
use http::{HeaderValue, StatusCode, Uri, header};
use serde::Serialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use crate::redact::Redactor;

/// What kind of error, in a word to branch on. Each has a page in `docs/errors/`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Code {
    /// The body or query can't be understood.
    InvalidRequest,
    /// The task can't be accepted as it is.
    InvalidTaskData,
    /// The definition can't be used.
    InvalidConfig,
    /// The cron expression can't be understood.
    InvalidCron,
    /// No valid key.
    AuthFailed,
    /// The signature of a Slack request is not valid.
    SignatureInvalid,
    /// The caller may not do this.
    Forbidden,
    /// There is no such route or thing.
    NotFound,
    /// There is no such agent.
    AgentNotFound,
    /// There is no such execution.
    ExecutionNotFound,
    /// There is no such schedule.
    ScheduleNotFound,
    /// There is no such configuration.
    ConfigNotFound,
    /// The route has no such method.
    MethodNotAllowed,
    /// The state does not allow it.
    StateConflict,
    /// The schedule's name is taken.
    ScheduleConflict,
    /// The configuration's name is taken.
    ConfigConflict,
    /// The idempotency key came with another body.
    IdempotencyMismatch,
    /// The request with this idempotency key is still under way.
    IdempotencyInProgress,
    /// The body is too large.
    PayloadTooLarge,
    /// The content type is not understood.
    UnsupportedMediaType,
    /// Too many requests.
    RateLimitExceeded,
    /// Something in AgentRunner went wrong.
    Internal,
    /// The database holds something that can't be read.
    DatabaseError,
    /// The agent takes no work now.
    AgentUnhealthy,
    /// There is no place for the request now.
    QueueFull,
    /// Something that is needed can't be reached.
    DependencyUnavailable,
    /// It took too long.
    Timeout,
}

impl Code {
    /// All of them.
    pub const ALL: [Self; 27] = [
        Self::InvalidRequest,
        Self::InvalidTaskData,
        Self::InvalidConfig,
        Self::InvalidCron,
        Self::AuthFailed,
        Self::SignatureInvalid,
        Self::Forbidden,
        Self::NotFound,
        Self::AgentNotFound,
        Self::ExecutionNotFound,
        Self::ScheduleNotFound,
        Self::ConfigNotFound,
        Self::MethodNotAllowed,
        Self::StateConflict,
        Self::ScheduleConflict,
        Self::ConfigConflict,
        Self::IdempotencyMismatch,
        Self::IdempotencyInProgress,
        Self::PayloadTooLarge,
        Self::UnsupportedMediaType,
        Self::RateLimitExceeded,
        Self::Internal,
        Self::DatabaseError,
        Self::AgentUnhealthy,
        Self::QueueFull,
        Self::DependencyUnavailable,
        Self::Timeout,
    ];

    /// The word, and the status that it comes with.
    const fn row(self) -> (&'static str, StatusCode) {
        match self {
            Self::InvalidRequest => ("INVALID_REQUEST", StatusCode::BAD_REQUEST),
            Self::InvalidTaskData => ("INVALID_TASK_DATA", StatusCode::BAD_REQUEST),
            Self::InvalidConfig => ("INVALID_CONFIG", StatusCode::BAD_REQUEST),
            Self::InvalidCron => ("INVALID_CRON", StatusCode::BAD_REQUEST),
            Self::AuthFailed => ("AUTH_FAILED", StatusCode::UNAUTHORIZED),
            Self::SignatureInvalid => ("SIGNATURE_INVALID", StatusCode::UNAUTHORIZED),
            Self::Forbidden => ("FORBIDDEN", StatusCode::FORBIDDEN),
            Self::NotFound => ("NOT_FOUND", StatusCode::NOT_FOUND),
            Self::AgentNotFound => ("AGENT_NOT_FOUND", StatusCode::NOT_FOUND),
            Self::ExecutionNotFound => ("EXECUTION_NOT_FOUND", StatusCode::NOT_FOUND),
            Self::ScheduleNotFound => ("SCHEDULE_NOT_FOUND", StatusCode::NOT_FOUND),
            Self::ConfigNotFound => ("CONFIG_NOT_FOUND", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => ("METHOD_NOT_ALLOWED", StatusCode::METHOD_NOT_ALLOWED),
            Self::StateConflict => ("STATE_CONFLICT", StatusCode::CONFLICT),
            Self::ScheduleConflict => ("SCHEDULE_CONFLICT", StatusCode::CONFLICT),
            Self::ConfigConflict => ("CONFIG_CONFLICT", StatusCode::CONFLICT),
            Self::IdempotencyMismatch => ("IDEMPOTENCY_MISMATCH", StatusCode::CONFLICT),
            Self::IdempotencyInProgress => ("IDEMPOTENCY_IN_PROGRESS", StatusCode::CONFLICT),
            Self::PayloadTooLarge => ("PAYLOAD_TOO_LARGE", StatusCode::PAYLOAD_TOO_LARGE),
            Self::UnsupportedMediaType => {
                ("UNSUPPORTED_MEDIA_TYPE", StatusCode::UNSUPPORTED_MEDIA_TYPE)
            }
            Self::RateLimitExceeded => ("RATE_LIMIT_EXCEEDED", StatusCode::TOO_MANY_REQUESTS),
            Self::Internal => ("INTERNAL", StatusCode::INTERNAL_SERVER_ERROR),
            Self::DatabaseError => ("DATABASE_ERROR", StatusCode::INTERNAL_SERVER_ERROR),
            Self::AgentUnhealthy => ("AGENT_UNHEALTHY", StatusCode::SERVICE_UNAVAILABLE),
            Self::QueueFull => ("QUEUE_FULL", StatusCode::SERVICE_UNAVAILABLE),
            Self::DependencyUnavailable => {
                ("DEPENDENCY_UNAVAILABLE", StatusCode::SERVICE_UNAVAILABLE)
            }
            Self::Timeout => ("TIMEOUT", StatusCode::GATEWAY_TIMEOUT),
        }
    }

    /// The word.
    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    /// The status.
    pub const fn status(self) -> StatusCode {
        self.row().1
    }
}

/// A refusal or failure, as the caller is told of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    /// What kind.
    pub code: Code,
    /// What was wrong with which field, and what to do. Never a stack, a secret, a path or SQL.
    pub message: String,
    /// More for programs.
    pub details: Map<String, Value>,
    /// When it is worth trying again.
    pub retry_after: Option<Duration>,
}

impl ApiError {
    /// An error with a message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Map::new(),
            retry_after: None,
        }
    }

    /// Adds something for programs.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }

    /// Names the field that is wrong, with what to do about it.
    #[must_use]
    pub fn with_field(self, field: &str, message: &str, hint: &str) -> Self {
        let field = json!({"field": field, "message": message, "hint": hint});
        self.with("fields", vec![field])
    }

    /// Says when it is worth trying again.
    #[must_use]
    pub const fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// Something in here went wrong; the cause is in the log, under the trace.
    pub fn internal() -> Self {
        let message = "something went wrong inside AgentRunner; look for the trace_id in its log";
        Self::new(Code::Internal, message)
    }

    /// The same without known secrets.
    pub(crate) fn masked(mut self, redactor: &Redactor) -> Self {
        if let Cow::Owned(masked) = redactor.mask(&self.message) {
            self.message = masked;
        }
        for value in self.details.values_mut() {
            redactor.mask_json(value);
        }
        self
    }

    /// The answer, complete.
    pub(crate) fn render(self, trace_id: &TraceId, now: Time) -> Response {
        let body = json!({"error": {
            "code": self.code,
            "message": self.message,
            "details": self.details,
            "trace_id": trace_id,
            "timestamp": now,
        }});
        let mut response = (self.code.status(), axum::Json(body)).into_response();
        if let Some(delay) = self.retry_after {
            let seconds = delay.as_secs().max(1);
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.code == Code::AuthFailed {
            let scheme = HeaderValue::from_static("Bearer realm=\"agentrunner\"");
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, scheme);
        }
        response
    }
}

/// Hands the error to the edge, which renders it.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl From<store::Error> for ApiError {
    fn from(error: store::Error) -> Self {
        match error.class() {
            store::Class::Unavailable => {
                tracing::warn!(%error, "the store is unavailable");
                let message = match error.certainty() {
                    // The store's own words say what to do: a disk that is full helps nobody who only tries again.
                    store::Certainty::NotApplied => format!("nothing was changed: {error}"),
                    store::Certainty::Unknown => {
                        "the database is unavailable and it is not known whether the change was made; \
                         try again with the same Idempotency-Key"
                            .to_owned()
                    }
                };
                Self::new(Code::DependencyUnavailable, message)
                    .with("dependency", "database")
                    .retry_after(Duration::from_secs(1))
            }
            store::Class::Corrupt | store::Class::Fatal => {
                tracing::error!(%error, "the store failed");
                let message = "the database holds something that can't be read; look for the trace_id in the log";
                Self::new(Code::DatabaseError, message)
            }
        }
    }
}

impl From<engine::Error> for ApiError {
    fn from(error: engine::Error) -> Self {
        let message = error.to_string();
        match error {
            engine::Error::UnknownAgent { name, nearest, .. } => {
                Self::new(Code::AgentNotFound, message)
                    .with("agent_name", name)
                    .with("nearest", nearest.map(String::from))
            }
            engine::Error::Disabled(agent) | engine::Error::SwitchedOff { agent, .. } => {
                Self::new(Code::StateConflict, message).with("agent_name", String::from(agent))
            }
            engine::Error::Invalid {
                field,
                message: why,
            } => Self::new(Code::InvalidTaskData, message).with_field(field, &why, ""),
            engine::Error::UnknownSchedule { nearest, .. } => {
                let message = format!("{message}; GET /schedules lists them");
                Self::new(Code::ScheduleNotFound, message).with("nearest", nearest)
            }
            engine::Error::InvalidSchedule(flaws) => invalid_schedule(message, &flaws),
            engine::Error::ScheduleConflict(_) => Self::new(Code::ScheduleConflict, message),
            engine::Error::Busy { running, .. } => {
                Self::new(Code::StateConflict, message).with("execution_id", running.to_string())
            }
            engine::Error::QueueFull { waiting, .. } => Self::new(Code::QueueFull, message)
                .with("waiting", waiting)
                .retry_after(Duration::from_secs(5)),
            engine::Error::UnknownExecution(id) => {
                Self::new(Code::ExecutionNotFound, message).with("execution_id", id.to_string())
            }
            engine::Error::CanNotBranch { status, .. } => {
                Self::new(Code::StateConflict, message).with("status", status.as_str())
            }
            engine::Error::ToolsUnavailable(_) => {
                Self::new(Code::DependencyUnavailable, message).with("dependency", "tools")
            }
            engine::Error::KeyMismatch => Self::new(Code::IdempotencyMismatch, message),
            engine::Error::Store(error) => error.into(),
            other => {
                tracing::error!(error = %other, "the engine failed");
                Self::internal()
            }
        }
    }
}

/// What is wrong with when something is to run is a matter of its cron; anything else is of the request.
fn invalid_schedule(message: String, flaws: &[domain::schedule::Flaw]) -> ApiError {
    let is_about_time =
        |field: &str| matches!(field, "cron" | "timezone" | "interval_seconds" | "at");
    let code = if flaws.iter().any(|flaw| is_about_time(flaw.field)) {
        Code::InvalidCron
    } else {
        Code::InvalidRequest
    };
    let fields: Vec<Value> = flaws
        .iter()
        .map(|flaw| json!({"field": flaw.field, "message": flaw.message, "hint": flaw.hint}))
        .collect();
    ApiError::new(code, message).with("fields", fields)
}

/// The shape of every error.
#[derive(Debug, Serialize, ToSchema)]
#[schema(title = "Error")]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub struct ErrorDetail {
    /// What kind, in a word to branch on.
    pub code: Code,
    /// What was wrong with which field, and what to do.
    pub message: String,
    /// More for programs; `fields` lists what is wrong with single fields.
    #[schema(value_type = Object)]
    pub details: Value,
    /// The trace of the request, to look for in the log.
    pub trace_id: String,
    /// When.
    #[schema(value_type = String, format = DateTime)]
    pub timestamp: Time,
}

/// Answers what no route serves.
pub(crate) async fn no_route(uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::new(
        Code::NotFound,
        format!("there is no route {path}; GET /docs lists the routes of this service"),
    )
}

/// Answers a method that a route does not have.
pub(crate) async fn no_method(method: http::Method, uri: Uri) -> ApiError {
    let path: String = uri.path().chars().take(200).collect();
    ApiError::new(
        Code::MethodNotAllowed,
        format!("{path} has no method {method}; GET /docs lists the routes of this service"),
    )
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    #[test]
    fn every_code_has_a_page_and_every_page_a_code() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/errors");
        let pages: BTreeSet<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned()))
            .filter(|name| name != "README")
            .collect();
        let codes: BTreeSet<String> = Code::ALL.map(|code| code.as_str().to_owned()).into();
        assert_eq!(pages, codes);
    }

    #[test]
    fn a_code_is_written_as_its_word() {
        for code in Code::ALL {
            assert_eq!(serde_json::to_value(code).unwrap(), code.as_str());
            assert!(code.status().is_client_error() || code.status().is_server_error());
        }
    }
}
