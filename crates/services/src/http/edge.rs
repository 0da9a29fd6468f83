//! The edge: what every request passes on its way in and out.
//!
//! In: its trace, the guard, a place among the requests under way, a deadline. Out: errors rendered, headers, metrics,
//! one line of log.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::{FromRequestParts, MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use domain::TraceId;
use futures::FutureExt;
use http::request::Parts;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tracing::Instrument;
use uuid::Uuid;

use super::access;
use super::door::Door;
use super::guard::Guard;
use super::params::duration;
use super::passage::Passage;
use super::{Answer, ApiError, App, Code, Service};
use crate::openai;

/// The longest that a caller may ask to wait.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(300);

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// What the edge of one listener works with.
#[derive(Clone)]
pub(crate) struct Edge {
    service: Service,
    app: App,
    guard: Guard,
    door: Door,
}

impl Edge {
    pub(crate) fn new(service: Service, app: App, door: Door, loopback: bool) -> Self {
        let settings = &app.settings;
        let guard = Guard::new(loopback, &settings.allowed_hosts, &settings.allowed_origins);
        Self {
            service,
            app,
            guard,
            door,
        }
    }
}

/// The trace of a request: made here when the caller brings none.
#[derive(Debug, Clone)]
pub struct Trace {
    /// The trace.
    pub id: TraceId,
    /// The caller's own name for the request, given back as it came.
    request_id: HeaderValue,
}

impl Trace {
    fn of(headers: &HeaderMap) -> Self {
        let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
        let given = text(REQUEST_ID).filter(|id| {
            !id.is_empty() && id.len() <= 128 && id.bytes().all(|b| b.is_ascii_graphic())
        });
        let id = text(TRACEPARENT)
            .and_then(trace_of_parent)
            .or_else(|| given?.parse().ok())
            .unwrap_or_else(|| TraceId::from_uuid(Uuid::now_v7()));
        let request_id = given
            .and_then(|given| HeaderValue::from_str(given).ok())
            .or_else(|| HeaderValue::from_str(id.as_str()).ok())
            .unwrap_or_else(|| HeaderValue::from_static("-"));
        Self { id, request_id }
    }

    fn sign(&self, headers: &mut HeaderMap) {
        headers.insert(REQUEST_ID, self.request_id.clone());
        let (span, _) = Uuid::new_v4().as_u64_pair();
        let parent = format!("00-{}-{span:016x}-01", self.id);
        if let Ok(parent) = HeaderValue::try_from(parent) {
            headers.insert(TRACEPARENT, parent);
        }
    }
}

/// The trace id of a W3C `traceparent`; none when it is malformed, as the standard wants it.
fn trace_of_parent(text: &str) -> Option<TraceId> {
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, _, ..] = parts.as_slice() else {
        return None;
    };
    let hex = |s: &str, n| {
        s.len() == n
            && s.bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
    };
    let valid = hex(version, 2) && *version != "ff" && hex(trace, 32) && hex(span, 16);
    (valid && !span.bytes().all(|b| b == b'0'))
        .then(|| trace.parse().ok())
        .flatten()
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

/// Lets a request pass, in and out.
pub(crate) async fn pass(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let trace = Trace::of(request.headers());
    request.extensions_mut().insert(trace.clone());
    let method = request.method().clone();
    let route = request
        .extensions()
        .get::<MatchedPath>()
        .map_or_else(|| "-".to_owned(), |path| path.as_str().to_owned());
    let span = tracing::info_span!(
        "request",
        component = edge.service.as_str(),
        trace_id = %trace.id,
        %method,
        route,
    );
    let mut passage = Passage::default();
    let answer = run(&edge, request, next, &mut passage)
        .instrument(span.clone())
        .await;
    let code = match &answer {
        Ok(response) => response
            .extensions()
            .get::<ApiError>()
            .map(|error| error.code),
        Err(error) => Some(error.code),
    };
    let mut response = finish(answer, &edge, &trace, &route);
    trace.sign(response.headers_mut());
    if let Some(quota) = &passage.quota {
        quota.sign(response.headers_mut());
    }
    if let Some(record) = passage.record(&edge.app, &trace, &response, code) {
        edge.app.audit.write(record).instrument(span.clone()).await;
    }
    let status = response.status().as_u16();
    let took = begun.elapsed();
    super::metrics::count_request(edge.service, method.as_str(), &route, status, took);
    span.in_scope(|| {
        // Hundredths are as fine as anyone reads.
        let ms = (took.as_secs_f64() * 1e5).round() / 1e2;
        // Probes and scrapes come every few seconds and say nothing.
        if route.starts_with("/health") || route == "/metrics" {
            tracing::debug!(status, ms, "request");
        } else {
            tracing::info!(status, ms, "request");
        }
    });
    response
}

async fn run(edge: &Edge, request: Request, next: Next, passage: &mut Passage) -> Answer<Response> {
    // What a stranger sends is not looked at beyond the head.
    let (mut head, body) = request.into_parts();
    edge.guard.check(&head.method, &head.uri, &head.headers)?;
    passage.enter(&edge.app, &edge.door, &head).await?;
    if let Some(caller) = &passage.caller {
        head.extensions.insert(caller.clone());
    }
    let request = Request::from_parts(head, body);
    let settings = &edge.app.settings;
    let wait = wait_of(&request)?;
    let places = if wait.is_zero() {
        &edge.app.requests
    } else {
        &edge.app.streams
    };
    let _place = places.try_acquire().map_err(|_| full())?;
    let work = AssertUnwindSafe(next.run(request)).catch_unwind();
    let bounded = tokio::time::timeout(settings.timeout + wait, work);
    let done = tokio::select! {
        done = bounded => done,
        // Whoever waits is not to hear what came of it when the key was revoked meanwhile.
        () = ended(passage), if !wait.is_zero() => return Err(access::revoked()),
    };
    match done {
        Ok(Ok(response)) => Ok(response),
        Ok(Err(panic)) => {
            let what = panic
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| panic.downcast_ref::<String>().cloned());
            tracing::error!(panic = what.unwrap_or_default(), "a handler panicked");
            Err(ApiError::internal())
        }
        Err(_) => {
            let message = format!(
                "the answer took longer than {} s; what was asked may still have been done",
                (settings.timeout + wait).as_secs()
            );
            Err(ApiError::new(Code::Timeout, message))
        }
    }
}

async fn ended(passage: &Passage) {
    match &passage.caller {
        Some(caller) => caller.ended().await,
        None => std::future::pending().await,
    }
}

/// Asks proxies that gather answers before they pass them on not to: words and events are to come as they are said.
pub(crate) fn unbuffered(mut response: Response) -> Response {
    let name = HeaderName::from_static("x-accel-buffering");
    response
        .headers_mut()
        .insert(name, HeaderValue::from_static("no"));
    response
}

pub(crate) fn full() -> ApiError {
    let message = "too many requests are under way; try again in a moment";
    ApiError::new(Code::QueueFull, message).retry_after(Duration::from_secs(1))
}

/// How long the caller asks to wait, by `?wait=`.
fn wait_of(request: &Request) -> Answer<Duration> {
    let query = request.uri().query().unwrap_or_default();
    match query.split('&').find_map(|part| part.strip_prefix("wait=")) {
        None if openai::waits(request.uri().path()) => Ok(LONGEST_WAIT),
        Some(text) => duration("wait", text, LONGEST_WAIT),
        None => Ok(Duration::ZERO),
    }
}

/// Renders errors: ours, and those of the layers below that know nothing of our form.
fn finish(answer: Answer<Response>, edge: &Edge, trace: &Trace, route: &str) -> Response {
    let render = |error: ApiError| {
        let error = error.masked(&edge.app.redactor);
        if openai::is_ours(route) {
            openai::render(&error, &trace.id)
        } else {
            error.render(&trace.id, edge.app.engine.now())
        }
    };
    let mut response = match answer {
        Ok(response) => response,
        Err(error) => return render(error),
    };
    if let Some(error) = response.extensions_mut().remove::<ApiError>() {
        let allow = response.headers_mut().remove(header::ALLOW);
        let mut rendered = render(error);
        if let Some(allow) = allow {
            rendered.headers_mut().insert(header::ALLOW, allow);
        }
        return rendered;
    }
    let status = response.status();
    let content_type = response.headers().get(header::CONTENT_TYPE);
    let is_json =
        content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
    if (status.is_client_error() || status.is_server_error()) && !is_json {
        return render(stand_in(status));
    }
    response
}

fn stand_in(status: StatusCode) -> ApiError {
    let (code, message) = match status {
        StatusCode::NOT_FOUND => (
            Code::NotFound,
            "there is nothing here; GET /docs lists the routes",
        ),
        StatusCode::METHOD_NOT_ALLOWED => (Code::MethodNotAllowed, "the route has no such method"),
        StatusCode::PAYLOAD_TOO_LARGE => (Code::PayloadTooLarge, "the body is too large"),
        StatusCode::UNSUPPORTED_MEDIA_TYPE => {
            (Code::UnsupportedMediaType, "the content type is not taken")
        }
        status if status.is_client_error() => (
            Code::InvalidRequest,
            "the address can't be understood; check its encoding",
        ),
        _ => return ApiError::internal(),
    };
    ApiError::new(code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_taken_from_the_caller_when_they_are_valid() {
        let of = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            Trace::of(&headers)
        };
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        assert_eq!(
            of("traceparent", parent).id.as_str(),
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
            "00",
        ] {
            assert_ne!(
                of("traceparent", bad).id.as_str(),
                "0af7651916cd43dd8448eb211c80319c"
            );
        }
        assert_ne!(of("x-request-id", "a b").request_id, "a b");
    }
}
