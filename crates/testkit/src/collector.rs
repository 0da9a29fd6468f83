//! A collector of traces on the true wire: OTLP over HTTP, protobuf.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use http::{HeaderMap, StatusCode, header};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind, status::StatusCode as Status};
use prost::Message as _;

use crate::log::Log;
use crate::server::Server;

/// A collector on a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct CollectorStandIn {
    state: Arc<Inner>,
    server: Server,
}

#[derive(Debug, Default)]
struct Inner {
    spans: Log<ToldSpan>,
    headers: Log<HeaderMap>,
    is_deaf: AtomicBool,
}

/// A span as it was told.
#[derive(Clone, Debug)]
pub struct ToldSpan {
    /// The `service.name` of whoever told it.
    pub service: String,
    /// The `service.instance.id`.
    pub instance: String,
    /// 32 hex digits.
    pub trace: String,
    /// 16 hex digits.
    pub id: String,
    /// 16 hex digits, or nothing.
    pub parent: String,
    /// Its name.
    pub name: String,
    /// `SERVER`, `CLIENT`, `INTERNAL`.
    pub kind: String,
    /// In nanoseconds since 1970.
    pub start: u64,
    /// In nanoseconds since 1970.
    pub end: u64,
    /// By name, as text.
    pub attributes: BTreeMap<String, String>,
    /// Whether its status is an error.
    pub failed: bool,
}

impl CollectorStandIn {
    /// Starts it on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When no port can be bound.
    #[must_use]
    pub fn start() -> Self {
        let state = Arc::<Inner>::default();
        let router = Router::new()
            .route("/v1/traces", post(take))
            .with_state(state.clone());
        let server = Server::start(0, router).expect("a free port");
        Self { state, server }
    }

    /// Returns the value for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// Has it answer nothing any more, with connections left open; or answer again.
    pub fn be_deaf(&self, is_deaf: bool) {
        self.state.is_deaf.store(is_deaf, Ordering::SeqCst);
    }

    /// Returns all spans so far.
    #[must_use]
    pub fn spans(&self) -> Vec<ToldSpan> {
        self.state.spans.all()
    }

    /// Returns the headers of each request so far.
    #[must_use]
    pub fn headers(&self) -> Vec<HeaderMap> {
        self.state.headers.all()
    }

    /// Waits until the spans so far are as `enough` wants them.
    pub async fn wait_until(&self, enough: impl Fn(&[ToldSpan]) -> bool) {
        self.state.spans.wait_until(enough).await;
    }
}

async fn take(
    State(state): State<Arc<Inner>>,
    headers: HeaderMap,
    body: Bytes,
) -> (StatusCode, Vec<u8>) {
    state.headers.append(|_| (headers.clone(), ()));
    if state.is_deaf.load(Ordering::SeqCst) {
        std::future::pending::<()>().await;
    }
    let is_proto = headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|value| value == "application/x-protobuf");
    let read = ExportTraceServiceRequest::decode(body);
    let (true, Ok(request)) = (is_proto, read) else {
        return (StatusCode::BAD_REQUEST, Vec::new());
    };
    let mut all = Vec::new();
    for group in request.resource_spans {
        let resource = group.resource.unwrap_or_default();
        let resource = texts(resource.attributes);
        let of = |name: &str| resource.get(name).cloned().unwrap_or_default();
        let (service, instance) = (of("service.name"), of("service.instance.id"));
        for span in group.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            all.push(told(span, &service, &instance));
        }
    }
    // At once: whoever waits for an execution's span has its tools' too.
    state.spans.extend(all);
    (StatusCode::OK, Vec::new())
}

fn told(span: Span, service: &str, instance: &str) -> ToldSpan {
    let kind = span.kind().as_str_name();
    let kind = kind.strip_prefix("SPAN_KIND_").unwrap_or(kind).to_owned();
    debug_assert_ne!(span.kind(), SpanKind::Unspecified);
    let failed = span
        .status
        .as_ref()
        .is_some_and(|status| status.code() == Status::Error);
    ToldSpan {
        service: service.to_owned(),
        instance: instance.to_owned(),
        trace: hex(&span.trace_id),
        id: hex(&span.span_id),
        parent: hex(&span.parent_span_id),
        name: span.name,
        kind,
        start: span.start_time_unix_nano,
        end: span.end_time_unix_nano,
        attributes: texts(span.attributes),
        failed,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn texts(pairs: Vec<KeyValue>) -> BTreeMap<String, String> {
    let pairs = pairs.into_iter();
    pairs
        .map(|pair| (pair.key, text(pair.value.unwrap_or_default())))
        .collect()
}

fn text(value: AnyValue) -> String {
    match value.value {
        Some(any_value::Value::StringValue(text)) => text,
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        Some(any_value::Value::DoubleValue(number)) => number.to_string(),
        Some(any_value::Value::BoolValue(is)) => is.to_string(),
        Some(any_value::Value::ArrayValue(list)) => {
            let texts: Vec<_> = list.values.into_iter().map(text).collect();
            texts.join(",")
        }
        _ => String::new(),
    }
}
