//! One mistake in a file, as a person wants to read it.

use std::fmt;

use domain::definition::Severity;
use serde::Serialize;

use super::document::{Flaw, Mark};

/// Something about a file that its author should know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Diagnostic {
    /// The file, as it was named by the caller.
    pub file: String,
    /// Which field: `tools[0].effect`; empty when it concerns the file as a whole.
    pub path: String,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// What is wrong.
    pub message: String,
    /// What to do; may be empty.
    pub hint: String,
    /// Whether it can be lived with.
    #[serde(serialize_with = "word")]
    pub severity: Severity,
    /// The source line; empty when there is none to show.
    #[serde(skip)]
    pub snippet: String,
}

impl Diagnostic {
    pub(crate) fn new(file: &str, text: &str, flaw: Flaw, severity: Severity) -> Self {
        Self {
            file: file.to_owned(),
            path: flaw.path,
            line: flaw.mark.line,
            column: flaw.mark.column,
            message: flaw.message,
            hint: flaw.hint,
            severity,
            snippet: source_line(text, flaw.mark),
        }
    }

    /// Whether the file can't be used because of it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl Diagnostic {
    /// In one line, without the source line, for somebody to whom the file is known by this name.
    pub(crate) fn at(&self, file: &str) -> String {
        let (mut text, path) = (
            format!("{file}:{}:{}: ", self.line, self.column),
            &self.path,
        );
        if !self.is_error() {
            text.push_str("warning: ");
        }
        if !path.is_empty() {
            text.push_str(&format!("{path}: "));
        }
        text.push_str(&self.message);
        if !self.hint.is_empty() {
            text.push_str(&format!("; {}", self.hint));
        }
        text
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.at(&self.file))?;
        if self.snippet.is_empty() {
            return Ok(());
        }
        let (shown, caret) = window(&self.snippet, self.column);
        let gutter = self.line.to_string();
        write!(
            f,
            "\n  {gutter} | {shown}\n  {} | ",
            " ".repeat(gutter.len())
        )?;
        write!(f, "{}^", " ".repeat(caret))
    }
}

/// Renders diagnostics one below the other.
pub fn render(diagnostics: &[Diagnostic]) -> String {
    let lines: Vec<String> = diagnostics.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn source_line(text: &str, mark: Mark) -> String {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let line = text
        .lines()
        .nth(mark.line.saturating_sub(1))
        .unwrap_or_default();
    // Tabs and control characters would move the caret, or the terminal.
    line.chars()
        .take(4096)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// At most 120 characters around the column, and where the caret goes below them.
fn window(line: &str, column: usize) -> (String, usize) {
    const WIDTH: usize = 120;
    let length = line.chars().count();
    let at = column.saturating_sub(1).min(length);
    if length <= WIDTH {
        return (line.to_owned(), at);
    }
    let from = at.saturating_sub(WIDTH / 2);
    let shown: String = line.chars().skip(from).take(WIDTH).collect();
    if from == 0 {
        (format!("{shown}…"), at)
    } else {
        (format!("…{shown}…"), at - from + 1)
    }
}

fn word<S: serde::Serializer>(severity: &Severity, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(match severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    })
}
