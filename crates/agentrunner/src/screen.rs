//! What is printed where: the answer to standard output, everything about it to standard error; colours, tables and
//! spinners only where a person looks.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt::Display;
use std::io::{IsTerminal, Write};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use comfy_table::Table;
use comfy_table::presets::NOTHING;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use services::redact::Redactor;

/// The two outputs of the process.
#[derive(Debug, Clone)]
pub(crate) struct Screen {
    /// JSON was asked for.
    pub(crate) json: bool,
    /// Standard output is a terminal.
    pub(crate) is_terminal: bool,
    /// Standard error is a terminal.
    pub(crate) is_watched: bool,
    colours: bool,
    /// Knows what is not to be printed, once the settings are read.
    redactor: Arc<OnceLock<Redactor>>,
}

/// How a word stands out.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Style {
    Good,
    Bad,
    Warn,
    Faint,
    Strong,
}

impl Screen {
    /// Looks at the outputs and at `NO_COLOR` and `TERM`.
    pub(crate) fn new(json: bool, environment: &BTreeMap<String, String>) -> Self {
        let is_set = |name: &str| environment.get(name).is_some_and(|value| !value.is_empty());
        let is_watched = std::io::stderr().is_terminal();
        Self {
            json,
            is_terminal: std::io::stdout().is_terminal(),
            is_watched,
            colours: is_watched
                && !is_set("NO_COLOR")
                && environment.get("TERM").is_none_or(|term| term != "dumb"),
            redactor: Arc::default(),
        }
    }

    /// From now on, what this knows is not printed.
    pub(crate) fn mask(&self, redactor: &Redactor) {
        // The settings are read once.
        drop(self.redactor.set(redactor.clone()));
    }

    fn masked<'a>(&self, text: &'a str) -> Cow<'a, str> {
        match self.redactor.get() {
            Some(redactor) => redactor.mask(text),
            None => Cow::Borrowed(text),
        }
    }

    /// Whether lists are printed as JSON: asked for, or read by a program.
    pub(crate) const fn wants_json(&self) -> bool {
        self.json || !self.is_terminal
    }

    /// Prints a line of the answer.
    pub(crate) fn line(&self, text: impl Display) {
        self.piece(format!("{text}\n"));
    }

    /// Prints a piece of the answer at once.
    pub(crate) fn piece(&self, text: impl AsRef<str>) {
        let masked = self.masked(text.as_ref());
        let text = if self.is_terminal {
            printable(&masked)
        } else {
            Cow::Borrowed(&*masked)
        };
        let mut out = std::io::stdout().lock();
        // A closed pipe (`| head`) is the reader's wish, not an error.
        drop(out.write_all(text.as_bytes()).and_then(|()| out.flush()));
    }

    /// Prints a line about what happens.
    pub(crate) fn note(&self, text: impl Display) {
        let text = format!("{text}\n");
        let text = self.masked(&text);
        drop(std::io::stderr().lock().write_all(text.as_bytes()));
    }

    /// Prints an error with its causes: as JSON, when that was asked for.
    pub(crate) fn error(&self, error: &anyhow::Error) {
        if self.json {
            let causes: Vec<String> = error.chain().skip(1).map(ToString::to_string).collect();
            let body =
                serde_json::json!({ "error": { "message": error.to_string(), "causes": causes } });
            self.note(body);
        } else {
            self.note(format_args!(
                "{} {}",
                self.paint(Style::Bad, "error:"),
                printable(&chain(error))
            ));
        }
    }

    /// Prints a JSON value: for people indented, for programs on one line each.
    pub(crate) fn value(&self, value: &Value) {
        match serde_json::to_string_pretty(value) {
            Ok(pretty) if self.is_terminal => self.line(pretty),
            _ => self.line(value),
        }
    }

    /// Prints what was done: a sentence for people, the answer for programs.
    pub(crate) fn done(&self, answer: &Value, sentence: impl FnOnce(&Value) -> String) {
        if self.wants_json() {
            self.value(answer);
        } else {
            self.line(sentence(answer));
        }
    }

    /// Prints a table, or the rows as JSON.
    pub(crate) fn table(&self, rows: &[Value], columns: &[Column]) {
        if self.wants_json() {
            return self.value(&Value::Array(rows.to_vec()));
        }
        if rows.is_empty() {
            return self.note("none");
        }
        let mut table = Table::new();
        table.load_style(NOTHING);
        table.set_header(columns.iter().map(|column| column.title.to_uppercase()));
        for row in rows {
            table.add_row(columns.iter().map(|column| cell(&(column.value)(row))));
        }
        self.line(table);
    }

    /// A text that stands out, where colours are wanted.
    pub(crate) fn paint(&self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Good => "32",
            Style::Bad => "1;31",
            Style::Warn => "33",
            Style::Faint => "2",
            Style::Strong => "1",
        };
        if self.colours {
            format!("\u{1b}[{code}m{text}\u{1b}[0m")
        } else {
            text.to_owned()
        }
    }

    /// A bar on standard error that shows how much of so many bytes is done; hidden where nobody looks.
    pub(crate) fn progress(&self, message: &str, bytes: u64) -> ProgressBar {
        if !self.is_watched || self.json {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(bytes);
        let look = "{msg} {bar:30} {bytes}/{total_bytes} {elapsed:.dim}";
        if let Ok(style) = ProgressStyle::with_template(look) {
            bar.set_style(style);
        }
        bar.set_message(message.to_owned());
        bar
    }

    /// A spinner on standard error; hidden where nobody looks.
    pub(crate) fn spinner(&self, message: &str) -> ProgressBar {
        if !self.is_watched || self.json {
            return ProgressBar::hidden();
        }
        let spinner = ProgressBar::new_spinner();
        if let Ok(style) = ProgressStyle::with_template("{spinner} {msg} {elapsed:.dim}") {
            spinner.set_style(style);
        }
        spinner.set_message(message.to_owned());
        spinner.enable_steady_tick(Duration::from_millis(100));
        spinner
    }
}

/// A column of a table.
pub(crate) struct Column {
    title: &'static str,
    value: Box<dyn Fn(&Value) -> String>,
}

impl Column {
    /// Shows the field of that name.
    pub(crate) fn field(title: &'static str, name: &'static str) -> Self {
        Self::of(title, move |row| {
            row.get(name).map(plain).unwrap_or_default()
        })
    }

    /// Shows something computed.
    pub(crate) fn of(title: &'static str, value: impl Fn(&Value) -> String + 'static) -> Self {
        Self {
            title,
            value: Box::new(value),
        }
    }
}

/// A JSON value as a person reads it.
pub(crate) fn plain(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join(", "),
        other => other.to_string(),
    }
}

/// Fits a table: one line, bounded.
fn cell(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let mut cut: String = line.chars().take(60).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

/// Text from a model or a tool as it may go to a terminal: escape sequences could move the cursor, hide text or
/// answer for the person.
pub(crate) fn printable(text: &str) -> Cow<'_, str> {
    let is_harmless = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    if text.chars().all(is_harmless) {
        return Cow::Borrowed(text);
    }
    text.chars()
        .filter(|c| *c != '\r')
        .map(|c| if is_harmless(c) { c } else { '\u{fffd}' })
        .collect::<String>()
        .into()
}

/// The first line of a text, bounded, for a terminal.
pub(crate) fn one_line(text: &str, limit: usize) -> String {
    let mut words = printable(text.trim())
        .split_whitespace()
        .collect::<Vec<_>>()
        .join(" ");
    if let Some((end, _)) = words.char_indices().nth(limit) {
        words.truncate(end);
        words.push('…');
    }
    words
}

/// An error and its causes in one text, without saying the same twice.
pub(crate) fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        let cause = cause.to_string();
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_do_not_reach_a_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\r\nc\td"), "a\u{fffd}[2Jb\nc\td");
        assert_eq!(one_line("a\n  b\tc dddd", 6), "a b c …");
    }

    #[test]
    fn causes_are_told_once() {
        let error = anyhow::anyhow!("inner")
            .context("outer: inner")
            .context("outermost");
        assert_eq!(chain(&error), "outermost: outer: inner");
    }
}
