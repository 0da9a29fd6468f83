//! What stands in the address: query parameters and path segments, read strictly.

use std::time::Duration;

use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRequestParts, Query};
use domain::{AgentName, ExecutionId};
use http::request::Parts;
use serde::de::DeserializeOwned;

use super::body::explain;
use super::{Answer, ApiError, Code};

/// The query of a request. Types deny unknown fields, so that a misspelt filter does not silently match everything.
#[derive(Debug, Clone)]
pub struct Params<T>(pub T);

impl<T: DeserializeOwned, S: Sync> FromRequestParts<S> for Params<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        Query::<T>::try_from_uri(&parts.uri)
            .map(|Query(value)| Self(value))
            .map_err(|rejection| refuse(&rejection))
    }
}

fn refuse(rejection: &QueryRejection) -> ApiError {
    let text = rejection.body_text();
    let text = text
        .strip_prefix("Failed to deserialize query string: ")
        .unwrap_or(&text);
    // serde_path_to_error puts the field before the message; an unknown one is its own.
    let (field, rest) = match text.split_once(": ") {
        Some((field, rest)) if !field.contains(' ') => (field, rest),
        _ => ("", text),
    };
    let (message, hint) = explain(rest);
    let field = match rest.strip_prefix("unknown field `") {
        Some(name) => name.split('`').next().unwrap_or_default(),
        None => field,
    };
    let at = if field.is_empty() {
        String::new()
    } else {
        format!(" {field}")
    };
    let tail = if hint.is_empty() {
        String::new()
    } else {
        format!("; {hint}")
    };
    ApiError::new(
        Code::InvalidRequest,
        format!("query parameter{at}: {message}{tail}"),
    )
    .with_field(field, &message, &hint)
}

/// Checks that a parameter is one of some words.
///
/// # Errors
/// It is another, named with those that are known.
pub(crate) fn one_of(field: &str, given: Option<&str>, words: &[&str]) -> Answer<()> {
    match given.filter(|given| !words.contains(given)) {
        None => Ok(()),
        Some(_) => {
            let message = format!("it is one of {}", words.join(", "));
            let error = ApiError::new(
                Code::InvalidRequest,
                format!("query parameter {field}: {message}"),
            );
            Err(error.with_field(field, &message, ""))
        }
    }
}

/// The words for modes of execution.
pub(crate) const MODES: [&str; 4] = ["autonomous", "collaborative", "continuous", "scheduled"];

/// An execution's id from the path.
///
/// # Errors
/// It is not one; then there is no such execution.
pub(crate) fn execution_id(text: &str) -> Answer<ExecutionId> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(80).collect();
        let message = format!("there is no execution {shown:?}; the id of an execution is a UUID");
        ApiError::new(Code::ExecutionNotFound, message)
    })
}

/// Says that there is no such execution.
pub(crate) fn no_execution(id: ExecutionId) -> ApiError {
    ApiError::new(
        Code::ExecutionNotFound,
        format!("there is no execution {id}; GET /tasks lists them"),
    )
}

/// An agent's name from the path.
///
/// # Errors
/// It is not one; then there is no such agent.
pub(crate) fn agent_name(text: &str, code: Code) -> Answer<AgentName> {
    text.parse().map_err(|_| {
        let shown: String = text.chars().take(80).collect();
        ApiError::new(
            code,
            format!("there is no agent {shown:?}; GET /agents lists them"),
        )
    })
}

/// A duration such as `30s`, `500ms`, `2m` or `30` (seconds), at most `longest`.
///
/// # Errors
/// It is none, or longer.
pub(crate) fn duration(field: &str, text: &str, longest: Duration) -> Answer<Duration> {
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor = match unit {
        "ms" => 0.001,
        "" | "s" => 1.0,
        "m" => 60.0,
        _ => f64::NAN,
    };
    let seconds = number.parse::<f64>().unwrap_or(f64::NAN) * factor;
    match Duration::try_from_secs_f64(seconds) {
        Ok(duration) if duration <= longest => Ok(duration),
        _ => {
            let shown: String = text.chars().take(40).collect();
            let message = format!(
                "query parameter {field}: {shown:?} is not taken; write it as 500ms, 30s or 2m, at most {}s",
                longest.as_secs()
            );
            Err(ApiError::new(Code::InvalidRequest, message))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read() {
        let longest = Duration::from_secs(300);
        for (text, ms) in [
            ("30s", 30_000),
            ("30", 30_000),
            ("250ms", 250),
            ("2m", 120_000),
            ("0.5s", 500),
        ] {
            assert_eq!(
                duration("wait", text, longest).unwrap().as_millis(),
                ms,
                "{text}"
            );
        }
        for text in ["", "s", "1h", "-1s", "6m", "1e9", "..", "30 s"] {
            assert!(duration("wait", text, longest).is_err(), "{text}");
        }
    }

    #[test]
    fn a_misspelt_parameter_gets_the_nearest_name() {
        #[derive(Debug, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Filter {
            #[expect(dead_code, reason = "only read")]
            limit: Option<usize>,
        }
        let error = |query: &str| {
            let uri = format!("http://x/?{query}").parse().unwrap();
            refuse(&Query::<Filter>::try_from_uri(&uri).unwrap_err()).message
        };
        assert_eq!(
            error("limt=3"),
            "query parameter limt: unknown field; did you mean limit? Known here: limit"
        );
        assert!(
            error("limit=x").starts_with("query parameter limit: invalid digit"),
            "{}",
            error("limit=x")
        );
        assert!(error("limit=1&limit=2").contains("duplicate field"));
    }
}
