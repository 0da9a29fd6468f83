//! The trace of a request: whose it is, and the span that the request is in it.

use axum::extract::FromRequestParts;
use domain::span::{Kind, traceparent};
use domain::{Sampling, Span, SpanId, Time, TraceId, Upstream};
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue};
use uuid::Uuid;

use super::{Answer, ApiError};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The trace of a request: made here when the caller brings none.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The trace.
    pub id: TraceId,
    /// The caller's own name for the request, given back as it came.
    request_id: HeaderValue,
    /// The request's own span.
    span: SpanId,
    /// The caller's.
    parent: Option<SpanId>,
    is_recorded: bool,
}

impl Trace {
    pub(crate) fn of(headers: &HeaderMap, sampling: Sampling) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let given = text(REQUEST_ID).filter(|id| {
            !id.is_empty() && id.len() <= 128 && id.bytes().all(|b| b.is_ascii_graphic())
        });
        let above = text(TRACEPARENT).and_then(Above::read);
        let id = above
            .as_ref()
            .map(|above| above.trace.clone())
            .or_else(|| given?.parse().ok())
            .unwrap_or_else(|| TraceId::from_uuid(Uuid::now_v7()));
        let request_id = given
            .and_then(|given| HeaderValue::from_str(given).ok())
            .or_else(|| HeaderValue::from_str(id.as_str()).ok())
            .unwrap_or_else(|| HeaderValue::from_static("-"));
        let is_recorded = sampling.takes(&id, above.as_ref().map(|above| above.sampled));
        Self {
            request_id,
            span: SpanId::from_uuid(Uuid::new_v4()),
            parent: above.map(|above| above.span),
            is_recorded,
            id,
        }
    }

    /// What is asked for in this request is a part of it.
    pub fn upstream(&self) -> Upstream {
        Upstream {
            span: self.span,
            sampled: self.is_recorded,
        }
    }

    pub(crate) fn sign(&self, headers: &mut HeaderMap) {
        headers.insert(REQUEST_ID, self.request_id.clone());
        let parent = traceparent(&self.id, self.span, self.is_recorded);
        if let Ok(parent) = HeaderValue::try_from(parent) {
            headers.insert(TRACEPARENT, parent);
        }
    }

    /// The span of the request, if its trace is recorded.
    pub(crate) fn span(&self, request: &Answered<'_>) -> Option<Span> {
        if !self.is_recorded {
            return None;
        }
        let method = known_method(request.method);
        let name = match (method, request.route) {
            (Some(method), "-") => method.to_owned(),
            (Some(method), route) => format!("{method} {route}"),
            (None, _) => "HTTP".to_owned(),
        };
        let mut attributes = vec![
            ("http.request.method", method.unwrap_or("_OTHER").into()),
            ("url.path", request.path.into()),
            ("agentrunner.service", request.service.into()),
            (
                "http.response.status_code",
                u64::from(request.status).into(),
            ),
        ];
        if request.route != "-" {
            attributes.push(("http.route", request.route.into()));
        }
        // What a caller did wrong is no failure of the server's.
        let failed = request.status >= 500;
        if failed {
            attributes.push(("error.type", request.status.to_string().into()));
        }
        Some(Span {
            trace_id: self.id.clone(),
            id: self.span,
            parent: self.parent,
            name,
            kind: Kind::Server,
            start: request.begun,
            end: request.ended.max(request.begun),
            attributes,
            failed,
        })
    }
}

/// A request and its answer, as far as a trace tells.
pub(crate) struct Answered<'a> {
    pub(crate) service: &'static str,
    pub(crate) method: &'a str,
    pub(crate) route: &'a str,
    pub(crate) path: &'a str,
    pub(crate) status: u16,
    pub(crate) begun: Time,
    pub(crate) ended: Time,
}

/// The method, unless the caller made it up.
pub(crate) fn known_method(method: &str) -> Option<&str> {
    const KNOWN: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    KNOWN.contains(&method).then_some(method)
}

/// Where a caller stands in a trace.
struct Above {
    trace: TraceId,
    span: SpanId,
    sampled: bool,
}

impl Above {
    /// Reads a W3C `traceparent`; none when it is malformed, as the standard wants it.
    fn read(text: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('-').collect();
        let [version, trace, span, flags, ..] = parts.as_slice() else {
            return None;
        };
        let hex = |s: &str, n| {
            s.len() == n
                && s.bytes()
                    .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        let valid = hex(version, 2) && *version != "ff" && hex(trace, 32) && hex(flags, 2);
        if !valid {
            return None;
        }
        Some(Self {
            trace: trace.parse().ok()?,
            span: span.parse().ok()?,
            sampled: u8::from_str_radix(flags, 16).ok()? & 1 == 1,
        })
    }
}

impl<S: Sync> FromRequestParts<S> for Trace {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Answer<Self> {
        parts
            .extensions
            .get::<Self>()
            .cloned()
            .ok_or_else(ApiError::internal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn of(name: &'static str, value: &str) -> Trace {
        let mut headers = HeaderMap::new();
        headers.insert(name, value.parse().unwrap());
        Trace::of(&headers, Sampling::ALL)
    }

    #[test]
    fn traces_are_taken_from_the_caller_when_they_are_valid() {
        assert_eq!(
            of("traceparent", PARENT).id.as_str(),
            "0af7651916cd43dd8448eb211c80319c"
        );
        let uuid = of("x-request-id", "0af76519-16cd-43dd-8448-eb211c80319c");
        assert_eq!(uuid.id.as_str(), "0af7651916cd43dd8448eb211c80319c");
        let own = of("x-request-id", "order-17");
        assert_eq!(own.request_id, "order-17");
        assert_eq!(own.id.as_str().len(), 32);
        for bad in [
            "00-xyz-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-zz",
            "00",
        ] {
            assert_ne!(
                of("traceparent", bad).id.as_str(),
                "0af7651916cd43dd8448eb211c80319c"
            );
        }
        assert_ne!(of("x-request-id", "a b").request_id, "a b");
    }

    #[test]
    fn the_answer_names_the_span_that_is_told() {
        let trace = of("traceparent", PARENT);
        let mut headers = HeaderMap::new();
        trace.sign(&mut headers);
        let answered = Answered {
            service: "agent-orchestrator",
            method: "POST",
            route: "/tasks",
            path: "/tasks",
            status: 202,
            begun: Time::UNIX_EPOCH,
            ended: Time::UNIX_EPOCH,
        };
        let span = trace.span(&answered).unwrap();
        assert_eq!(span.name, "POST /tasks");
        assert_eq!(span.parent.unwrap().to_string(), "b7ad6b7169203331");
        assert_eq!(
            headers["traceparent"],
            traceparent(&span.trace_id, span.id, true).as_str()
        );
        assert!(!span.failed);
        let failed = trace
            .span(&Answered {
                status: 503,
                ..answered
            })
            .unwrap();
        assert!(failed.failed);
    }

    #[test]
    fn whoever_does_not_have_a_trace_recorded_is_heard() {
        let trace = of("traceparent", &PARENT.replace("-01", "-00"));
        assert!(!trace.upstream().sampled);
        let mut headers = HeaderMap::new();
        trace.sign(&mut headers);
        assert!(headers["traceparent"].to_str().unwrap().ends_with("-00"));
    }
}
