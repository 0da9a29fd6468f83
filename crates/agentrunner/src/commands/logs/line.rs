//! One line of the log, as the program that wrote it meant it.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value};

use crate::screen::{one_line, plain};

/// What is shown before all others, or not at all because all lines have it.
const SHOWN: [&str; 5] = ["timestamp", "level", "component", "message", "trace_id"];
/// The longest value that is shown of a field.
const LONGEST: usize = 200;

pub(super) struct Line {
    pub(super) time: DateTime<Utc>,
    /// As it was written.
    pub(super) text: String,
    fields: Map<String, Value>,
}

impl Line {
    /// A line of ours; what `docker compose logs` puts before it is left out. `None` when it is none.
    pub(super) fn read(text: &str) -> Option<Self> {
        let text = text.get(text.find('{')?..)?;
        let fields: Map<String, Value> = serde_json::from_str(text).ok()?;
        let time = fields.get("timestamp")?.as_str()?;
        Some(Self {
            time: DateTime::parse_from_rfc3339(time).ok()?.to_utc(),
            text: text.to_owned(),
            fields,
        })
    }

    /// An id that it carries.
    pub(super) fn id(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.as_str()
    }

    /// In columns, without what all lines of a trace have in common.
    pub(super) fn for_people(&self) -> String {
        let field = |name: &str| self.fields.get(name).map(plain).unwrap_or_default();
        let mut text = format!(
            "{} {:7} {:11} {}",
            self.time.format("%Y-%m-%d %H:%M:%S%.3f"),
            field("level"),
            field("component"),
            one_line(&field("message"), LONGEST),
        );
        let others = self.fields.iter();
        for (name, value) in others.filter(|(name, _)| !SHOWN.contains(&name.as_str())) {
            text.push_str(&format!("  {name}={}", one_line(&plain(value), LONGEST)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"{"timestamp":"2026-11-30T12:00:00.123456Z","level":"WARNING","component":"engine","message":"slow\nagain","trace_id":"ab","tries":2}"#;

    #[test]
    fn a_line_is_read_behind_the_name_of_its_container() {
        let line = Line::read(&format!("state-manager-1  | {TEXT}")).unwrap();
        assert_eq!(line.text, TEXT);
        assert_eq!(line.id("trace_id"), Some("ab"));
        assert_eq!(
            line.for_people(),
            "2026-11-30 12:00:00.123 WARNING engine      slow again  tries=2"
        );
    }

    #[test]
    fn what_is_not_ours_is_no_line() {
        for text in [
            "",
            "hello",
            "{}",
            "{\"timestamp\":7}",
            "{\"timestamp\":\"today\"}",
            "{\"timestamp\"",
        ] {
            assert!(Line::read(text).is_none(), "{text}");
        }
    }
}
