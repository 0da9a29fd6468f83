//! Spans in the library's form, and the way to the collector.

use std::borrow::Cow;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use axum::body::Bytes;
use domain::Span;
use domain::span::{Attribute, Kind};
use http::{Request, Response};
use opentelemetry::trace::{
    SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState,
};
use opentelemetry::{Array, InstrumentationScope, KeyValue, StringValue, Value};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_sdk::trace::SpanData;
use tokio::runtime::Handle;

/// How many characters of a text a span carries.
pub(super) const LONGEST: usize = 8192;
/// How much of an answer of the collector is read.
const LONGEST_ANSWER: usize = 64 << 10;

/// Who says so.
pub(super) fn scope() -> InstrumentationScope {
    InstrumentationScope::builder("agentrunner")
        .with_version(env!("CARGO_PKG_VERSION"))
        .build()
}

/// A span in the library's form, its texts shown as they may be.
pub(super) fn data(
    span: Span,
    scope: InstrumentationScope,
    show: &dyn Fn(&str) -> String,
) -> SpanData {
    let trace = TraceId::from_hex(span.trace_id.as_str()).unwrap_or(TraceId::INVALID);
    let id = |id: domain::SpanId| SpanId::from(id.get());
    let context = SpanContext::new(
        trace,
        id(span.id),
        TraceFlags::SAMPLED,
        false,
        TraceState::default(),
    );
    let attribute =
        |(name, value): (&'static str, Attribute)| KeyValue::new(name, shown(value, show));
    SpanData {
        span_context: context,
        parent_span_id: span.parent.map_or(SpanId::INVALID, id),
        parent_span_is_remote: matches!(span.kind, Kind::Server),
        span_kind: match span.kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
            Kind::Internal => SpanKind::Internal,
        },
        name: Cow::Owned(show(&span.name)),
        start_time: span.start.into(),
        end_time: span.end.into(),
        attributes: span.attributes.into_iter().map(attribute).collect(),
        dropped_attributes_count: 0,
        events: Default::default(),
        links: Default::default(),
        status: if span.failed {
            Status::error("")
        } else {
            Status::Unset
        },
        instrumentation_scope: scope,
    }
}

fn shown(value: Attribute, show: &dyn Fn(&str) -> String) -> Value {
    match value {
        Attribute::Text(text) => Value::String(show(&text).into()),
        Attribute::Texts(texts) => {
            let texts = texts.iter().map(|text| StringValue::from(show(text)));
            Value::Array(Array::String(texts.collect()))
        }
        Attribute::Int(number) => Value::I64(number),
        Attribute::Float(number) => Value::F64(number),
    }
}

/// The way to the collector. The library asks from a thread of its own that knows no runtime.
#[derive(Debug)]
pub(super) struct Collector {
    client: reqwest::Client,
    runtime: Handle,
}

impl Collector {
    /// Within the runtime that does the asking.
    ///
    /// # Errors
    /// There is no TLS.
    pub(super) fn new(patience: Duration) -> anyhow::Result<Self> {
        let client = reqwest::Client::builder()
            .timeout(patience)
            // The headers are for the collector that was named.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .context("the client for traces")?;
        Ok(Self {
            client,
            runtime: Handle::current(),
        })
    }
}

#[async_trait]
impl HttpClient for Collector {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let client = self.client.clone();
        let (head, body) = request.into_parts();
        let asked = async move {
            let request = client
                .request(head.method, head.uri.to_string())
                .headers(head.headers)
                .body(body);
            let mut answer = request.send().await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            let mut read = Vec::new();
            while let Some(chunk) = answer.chunk().await? {
                if read.len() + chunk.len() > LONGEST_ANSWER {
                    break;
                }
                read.extend_from_slice(&chunk);
            }
            Ok::<_, reqwest::Error>((status, headers, read))
        };
        let asked = self.runtime.spawn(asked).await?;
        // The address may hold a password.
        let (status, headers, read) = asked.map_err(reqwest::Error::without_url)?;
        let mut response = Response::new(Bytes::from(read));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}
