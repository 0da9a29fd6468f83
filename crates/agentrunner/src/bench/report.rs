//! A measurement as a table for people and as one object for programs.

use serde_json::{Map, Value};

use super::statistics::rounded;
use crate::screen::{Screen, Style};

/// Figures in the order in which they are read.
#[derive(Default)]
pub(crate) struct Report {
    rows: Vec<Row>,
}

struct Row {
    key: &'static str,
    label: &'static str,
    value: Value,
    unit: &'static str,
}

impl Report {
    /// Adds a figure; one that could not be measured is `null` to programs and not shown to people.
    pub(crate) fn add(
        &mut self,
        key: &'static str,
        label: &'static str,
        value: impl Into<Option<f64>>,
        unit: &'static str,
    ) {
        let value = value
            .into()
            .map_or(Value::Null, |value| number(rounded(value)));
        self.rows.push(Row {
            key,
            label,
            value,
            unit,
        });
    }

    /// Prints it.
    pub(crate) fn print(&self, screen: &Screen) {
        if screen.json {
            let object: Map<String, Value> = self
                .rows
                .iter()
                .map(|row| (row.key.to_owned(), row.value.clone()))
                .collect();
            return screen.value(&Value::Object(object));
        }
        let width = self
            .rows
            .iter()
            .map(|row| row.label.chars().count())
            .max()
            .unwrap_or_default();
        for row in self.rows.iter().filter(|row| !row.value.is_null()) {
            screen.line(format_args!(
                "{:width$}  {:>12} {}",
                row.label,
                row.value.to_string(),
                row.unit
            ));
        }
        if cfg!(debug_assertions) {
            screen.note(screen.paint(
                Style::Warn,
                "this is a debug build: the figures say nothing; use cargo build --release",
            ));
        }
    }
}

/// Whole numbers are shown without a point.
fn number(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 {
        Value::from(value as i64)
    } else {
        Value::from(value)
    }
}
