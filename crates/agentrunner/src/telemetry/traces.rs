//! Traces, sent to a collector by OpenTelemetry's protocol. The library gathers, bounds and sends; what it is given are
//! finished spans. A collector that is slow or away costs spans, which are counted, and never work.

mod wire;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use domain::Span;
use opentelemetry::KeyValue;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, SpanData, SpanProcessor as _,
};
use services::redact::Redactor;

use crate::settings::Tracing;
use wire::{Collector, LONGEST, data, scope};

/// How many spans wait at most.
const QUEUE: usize = 4096;
/// How many are sent at once.
const BATCH: usize = 512;
/// How long a span waits for others to be sent with.
const DELAY: Duration = Duration::from_secs(1);
/// How long one answer of the collector, and the goodbye, may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// Counts spans by what became of them.
const SPANS: &str = "agentrunner_spans_total";

/// Sends traces until it is shut down.
#[derive(Clone)]
pub(crate) struct Sender(Arc<Inner>);

struct Inner {
    processor: BatchSpanProcessor,
    waiting: Arc<AtomicUsize>,
    redactor: Redactor,
    settings: Tracing,
}

impl Sender {
    /// Begins to send, if there is a collector. Called within the runtime that is to do the sending.
    ///
    /// # Errors
    /// The collector's address or headers can't be used.
    pub(crate) fn start(
        settings: &Tracing,
        instance: &str,
        redactor: &Redactor,
    ) -> anyhow::Result<Option<Self>> {
        let Some(endpoint) = &settings.endpoint else {
            return Ok(None);
        };
        // As they are sent: the setting holds them in another form.
        let shown = settings.headers.iter().map(|(_, value)| value.as_str());
        redactor.learn(shown.flat_map(|value| [value, value.rsplit(' ').next().unwrap_or(value)]));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new(PATIENCE)?)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .with_timeout(PATIENCE)
            .with_headers(settings.headers.clone().into_iter().collect())
            .build()
            .context("OTEL_EXPORTER_OTLP_ENDPOINT")?;
        let waiting = Arc::new(AtomicUsize::new(0));
        let counted = Counted {
            inner: exporter,
            waiting: waiting.clone(),
            is_away: AtomicBool::new(false),
        };
        let batch = BatchConfigBuilder::default()
            .with_max_queue_size(QUEUE)
            .with_max_export_batch_size(BATCH)
            .with_scheduled_delay(DELAY)
            .build();
        let mut processor = BatchSpanProcessor::new(counted, batch);
        let resource = Resource::builder()
            .with_service_name(settings.service_name.clone())
            .with_attributes([
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", instance.to_owned()),
            ])
            .build();
        processor.set_resource(&resource);
        Ok(Some(Self(Arc::new(Inner {
            processor,
            waiting,
            redactor: redactor.clone(),
            settings: settings.clone(),
        }))))
    }

    /// What engine and services need to tell traces.
    pub(crate) fn traces(&self) -> engine::Traces {
        // There from the beginning, so that none is told from unknown.
        for outcome in ["exported", "failed", "dropped"] {
            metrics::counter!(SPANS, "outcome" => outcome).increment(0);
        }
        let inner = self.0.clone();
        let redactor = self.0.redactor.clone();
        // Masked first: half a secret is not recognised.
        let show = move |text: &str| cut(&redactor.mask(text));
        engine::Traces {
            sampling: self.0.settings.sampling,
            show: (self.0.settings.content).then(|| Arc::new(show) as engine::Show),
            export: Arc::new(move |spans| inner.take(spans)),
        }
    }

    /// Sends what waits, and ends.
    pub(crate) async fn shutdown(self) {
        let ended =
            tokio::task::spawn_blocking(move || self.0.processor.shutdown_with_timeout(PATIENCE));
        if let Ok(Err(error)) = ended.await {
            tracing::warn!("the last spans were not sent: {error}");
        }
    }
}

impl Inner {
    fn take(&self, spans: Vec<Span>) {
        for span in spans {
            // Counted here, because the library does not tell what it drops.
            if self.waiting.fetch_add(1, Ordering::Relaxed) >= QUEUE {
                self.waiting.fetch_sub(1, Ordering::Relaxed);
                metrics::counter!(SPANS, "outcome" => "dropped").increment(1);
                continue;
            }
            let span = data(span, scope(), &|text| cut(&self.redactor.mask(text)));
            self.processor.on_end(span);
        }
    }
}

/// As much of a text as a span carries.
fn cut(text: &str) -> String {
    match text.char_indices().nth(LONGEST) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Knows how many spans wait, and tells what became of those that were sent.
#[derive(Debug)]
struct Counted {
    inner: SpanExporter,
    waiting: Arc<AtomicUsize>,
    is_away: AtomicBool,
}

impl opentelemetry_sdk::trace::SpanExporter for Counted {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        self.waiting.fetch_sub(count, Ordering::Relaxed);
        let result = self.inner.export(batch).await;
        let outcome = match &result {
            Ok(()) => {
                self.is_away.store(false, Ordering::Relaxed);
                "exported"
            }
            Err(error) => {
                // Once, not every second.
                if !self.is_away.swap(true, Ordering::Relaxed) {
                    tracing::warn!(
                        "spans can't be sent (OTEL_EXPORTER_OTLP_ENDPOINT), those of this while are lost: {error}"
                    );
                }
                "failed"
            }
        };
        metrics::counter!(SPANS, "outcome" => outcome).increment(count as u64);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.inner.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.inner.set_resource(resource);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_at_the_edge_of_what_is_carried_is_not_half_told() {
        let redactor = Redactor::default();
        redactor.learn(["sk-canary-0123456789"]);
        let text = format!("{}sk-canary-0123456789 and more", "x".repeat(LONGEST - 5));
        let shown = cut(&redactor.mask(&text));
        assert!(!shown.contains("sk-"), "{shown}");
        assert_eq!(shown.chars().count(), LONGEST + 1);
        assert_eq!(cut("short"), "short");
    }
}
