//! Errors in OpenAI's shape.

use axum::response::{IntoResponse, Response};
use domain::TraceId;
use http::{HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use crate::http::{ApiError, Code};

/// An error, as OpenAI's clients read it.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenAiError {
    /// What went wrong.
    error: OpenAiErrorDetail,
}

/// What went wrong.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct OpenAiErrorDetail {
    /// What, and what to do.
    message: String,
    /// `invalid_request_error`, `rate_limit_error` or `server_error`.
    #[serde(rename = "type")]
    #[schema(example = "invalid_request_error")]
    kind: &'static str,
    /// The field that is wrong, where it is one.
    param: Option<String>,
    /// A word to branch on.
    #[schema(example = "model_not_found")]
    code: String,
}

impl OpenAiError {
    /// The same error in this shape.
    pub(super) fn new(error: &ApiError) -> Self {
        let status = error.code.status();
        let kind = match status {
            StatusCode::TOO_MANY_REQUESTS => "rate_limit_error",
            status if status.is_server_error() => "server_error",
            _ => "invalid_request_error",
        };
        let code = match error.code {
            Code::AgentNotFound => "model_not_found".to_owned(),
            Code::AuthFailed => "invalid_api_key".to_owned(),
            Code::RateLimitExceeded => "rate_limit_exceeded".to_owned(),
            code => match json!(code) {
                serde_json::Value::String(word) => word.to_lowercase(),
                _ => String::new(),
            },
        };
        let field = error.details.get("fields").and_then(|fields| fields.get(0));
        let param = field.and_then(|field| field.get("field")?.as_str().map(str::to_owned));
        Self {
            error: OpenAiErrorDetail {
                message: error.message.clone(),
                kind,
                param,
                code,
            },
        }
    }
}

impl OpenAiError {
    /// Its code, message and field: in events they stand by themselves.
    pub(super) fn parts(self) -> (String, String, Option<String>) {
        let OpenAiErrorDetail {
            code,
            message,
            param,
            ..
        } = self.error;
        (code, message, param)
    }
}

/// The answer, complete. What has begun is said not to be asked again: clients repeat what fails by themselves, and an
/// agent would do its work once more.
pub(crate) fn render(error: &ApiError, trace_id: &TraceId) -> Response {
    let mut response = (error.code.status(), axum::Json(OpenAiError::new(error))).into_response();
    let headers = response.headers_mut();
    if let Some(delay) = error.retry_after {
        headers.insert(
            header::RETRY_AFTER,
            HeaderValue::from(delay.as_secs().max(1)),
        );
    }
    if let Some(id) = error.details.get("execution_id").and_then(|id| id.as_str())
        && let Ok(id) = HeaderValue::from_str(id)
    {
        headers.insert(EXECUTION_ID, id);
        headers.insert(
            HeaderName::from_static("x-should-retry"),
            HeaderValue::from_static("false"),
        );
    }
    if let Ok(trace) = HeaderValue::from_str(trace_id.as_str()) {
        headers.insert(HeaderName::from_static("x-trace-id"), trace);
    }
    response
}

/// The header that names the execution.
pub(super) const EXECUTION_ID: HeaderName = HeaderName::from_static("x-execution-id");
