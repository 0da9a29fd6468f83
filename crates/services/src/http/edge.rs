//! The edge: what every request passes on its way in and out.
//!
//! In: its trace, the guard, a place among the requests under way, a deadline. Out: errors rendered, headers, metrics,
//! one line of log.

use std::panic::AssertUnwindSafe;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::middleware::Next;
use axum::response::Response;
use futures::FutureExt;
use http::{HeaderName, HeaderValue, StatusCode, header};
use tracing::Instrument;

use super::access;
use super::door::Door;
use super::guard::Guard;
use super::params::duration;
use super::passage::Passage;
use super::trace::{Answered, Trace};
use super::{Answer, ApiError, App, Code, Service};
use crate::openai;

/// The longest that a caller may ask to wait.
pub(crate) const LONGEST_WAIT: Duration = Duration::from_secs(300);

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

/// Lets a request pass, in and out.
pub(crate) async fn pass(State(edge): State<Edge>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let traces = edge.app.traces.clone();
    let sampling = traces.as_ref().map(|traces| traces.sampling);
    let trace = Trace::of(request.headers(), sampling.unwrap_or_default());
    request.extensions_mut().insert(trace.clone());
    let method = request.method().clone();
    // For the trace, which tells when something was by the clock that journals go by.
    let told = traces.map(|traces| {
        (
            traces,
            edge.app.engine.now(),
            request.uri().path().to_owned(),
        )
    });
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
    // Probes and scrapes come every few seconds and say nothing.
    let says_nothing = route.starts_with("/health") || route == "/metrics";
    if let Some((traces, begun, path)) = told.filter(|_| !says_nothing) {
        let span = trace.span(&Answered {
            service: edge.service.as_str(),
            method: method.as_str(),
            route: &route,
            path: &path,
            status,
            begun,
            ended: edge.app.engine.now(),
        });
        if let Some(span) = span {
            (traces.export)(vec![span]);
        }
    }
    span.in_scope(|| {
        // Hundredths are as fine as anyone reads.
        let ms = (took.as_secs_f64() * 1e5).round() / 1e2;
        if says_nothing {
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
