//! One JSON object a line, written compactly, so that `grep 'trace_id":"abc'` finds what belongs together. JSON's own
//! escaping keeps control characters out: nobody can forge a line or paint a terminal through a name or a prompt.

use std::fmt;
use std::io::Write;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::registry::LookupSpan;

/// The longest value that a line holds.
const MAX_VALUE_CHARS: usize = 4096;
/// Spelt first, when they are there, in this order.
const FIRST: [&str; 3] = ["trace_id", "execution_id", "agent_name"];

/// Writes every event as a line; an event has the fields of the spans that it is in.
pub(super) struct JsonLines {
    out: Mutex<Box<dyn Write + Send>>,
}

impl JsonLines {
    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        Self {
            out: Mutex::new(out),
        }
    }
}

/// The fields of a span or an event.
#[derive(Default)]
struct Fields(Map<String, Value>);

impl<S> Layer<S> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && span.extensions().get::<Fields>().is_none()
        {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context
            .event_scope(event)
            .into_iter()
            .flat_map(|scope| scope.from_root())
        {
            if let Some(inherited) = span.extensions().get::<Fields>() {
                fields.0.extend(inherited.0.clone());
            }
        }
        event.record(&mut fields);
        let metadata = event.metadata();
        let mut line =
            Value::Object(ordered(fields.0, *metadata.level(), metadata.target())).to_string();
        line.push('\n');
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        // There is nobody left to tell that the log can't be written.
        drop(out.write_all(line.as_bytes()));
    }
}

fn ordered(mut fields: Map<String, Value>, level: Level, target: &str) -> Map<String, Value> {
    let mut line = Map::new();
    let now = chrono::Utc::now().to_rfc3339_opts(chrono::SecondsFormat::Micros, true);
    let level = if level == Level::WARN {
        "WARNING"
    } else {
        level.as_str()
    };
    line.insert("timestamp".to_owned(), now.into());
    line.insert("level".to_owned(), level.into());
    line.insert("component".to_owned(), component(target).into());
    line.insert(
        "message".to_owned(),
        fields.shift_remove("message").unwrap_or("".into()),
    );
    for name in FIRST {
        if let Some(value) = fields.shift_remove(name) {
            line.insert(name.to_owned(), value);
        }
    }
    line.extend(fields);
    line
}

/// `agentrunner_engine::perform::model` is the component `engine`.
fn component(target: &str) -> &str {
    let name = target.split("::").next().unwrap_or(target);
    name.strip_prefix("agentrunner_").unwrap_or(name)
}

impl Fields {
    fn text(&mut self, field: &Field, mut text: String) {
        if let Some((end, _)) = text.char_indices().nth(MAX_VALUE_CHARS) {
            text.truncate(end);
            text.push('…');
        }
        self.0.insert(field.name().to_owned(), text.into());
    }
}

impl Visit for Fields {
    fn record_i64(&mut self, field: &Field, value: i64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.0.insert(field.name().to_owned(), value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.text(field, value.to_owned());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        let mut text = value.to_string();
        let mut cause = value.source();
        while let Some(error) = cause {
            text.push_str(&format!(": {error}"));
            cause = error.source();
        }
        self.text(field, text);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.text(field, format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use tracing_subscriber::layer::SubscriberExt;

    use super::*;

    #[derive(Clone, Default)]
    struct Buffer(Arc<Mutex<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn logged(what: impl FnOnce()) -> String {
        let buffer = Buffer::default();
        let layer = JsonLines::new(Box::new(buffer.clone()));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), what);
        let bytes = buffer.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_line_has_its_ids_where_grep_looks_for_them() {
        let line = logged(|| {
            let span = tracing::info_span!("execution", agent_name = "a", trace_id = "abc");
            let _inside = span.enter();
            tracing::warn!(target: "agentrunner_engine::perform", execution_id = %7, tries = 2, "model is slow");
        });
        assert!(
            line.contains(r#""trace_id":"abc","execution_id":"7","agent_name":"a","tries":2}"#),
            "{line}"
        );
        assert!(
            line.contains(r#""level":"WARNING","component":"engine","message":"model is slow""#),
            "{line}"
        );
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn nothing_that_is_logged_forges_a_line() {
        let line =
            logged(|| tracing::info!(name = "x\n{\"level\":\"ERROR\"}\u{1b}[2J", "hello\r\nworld"));
        assert_eq!(line.lines().count(), 1);
        assert!(!line.contains('\u{1b}'), "{line}");
    }
}
