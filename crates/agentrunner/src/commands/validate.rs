//! `validate`: every mistake in agent files, with its place.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::Args;
use serde_json::json;
use services::config::{Diagnostic, Lookup, Parsed, decode, discover, parse, parse_alerts};

use crate::cli::{Context, Exit};
use crate::screen::{Screen, Style, printable};

/// Checks agent files and alerts.yml without running anything.
///
/// Each mistake is shown with its line and a caret, what is allowed, and the nearest known name. Exit code 1 if there
/// are errors.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentrunner validate
  agentrunner validate config/agents/helper.yml
  agentrunner validate --json | jq '.errors[].message'")]
pub(crate) struct Validate {
    /// A file, or a folder of agents [default: CONFIG_DIR/agents, and CONFIG_DIR/alerts.yml]
    path: Option<PathBuf>,
}

/// What was found in a set of files.
#[derive(Default)]
pub(crate) struct Checked {
    pub(crate) files: usize,
    pub(crate) agents: Vec<Parsed>,
    pub(crate) errors: Vec<Diagnostic>,
    pub(crate) warnings: Vec<Diagnostic>,
    /// Where each agent says its name.
    sources: Vec<Source>,
}

/// Where an agent says its name.
struct Source {
    file: String,
    line: usize,
    text: String,
}

impl Validate {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        let path = self
            .path
            .clone()
            .unwrap_or_else(|| context.settings.agents_dir());
        let values = context.settings.values.clone();
        let lookup = move |name: &str| values.lookup(name);
        let mut checked = if is_alerts(&path) {
            Checked::default()
        } else {
            check(&path, &lookup)?
        };
        let alerts = match &self.path {
            None => Some(context.settings.alerts_file()).filter(|path| path.exists()),
            Some(path) => Some(path.clone()).filter(|path| is_alerts(path)),
        };
        if let Some(alerts) = alerts {
            checked.add_alerts(&alerts, &lookup)?;
        }
        report(&checked, &context.screen);
        Ok(if checked.errors.is_empty() {
            Exit::Done
        } else {
            Exit::Failed
        })
    }
}

/// Reads a file, or all below a folder.
///
/// # Errors
/// The path can't be read.
pub(crate) fn check(path: &Path, lookup: &Lookup) -> anyhow::Result<Checked> {
    let mut checked = Checked::default();
    if path.is_dir() {
        let found = discover(path).with_context(|| format!("{} can't be read", path.display()))?;
        for file in found {
            let name = path.join(&file.path).display().to_string();
            let bytes = file
                .content
                .map_err(|why| anyhow::anyhow!("{name} can't be read: {why}"))?;
            checked.add(&bytes, &name, lookup);
        }
    } else {
        let bytes = std::fs::read(path).with_context(|| {
            format!(
                "{} can't be read; make it with `agentrunner init`, or set CONFIG_DIR",
                path.display()
            )
        })?;
        checked.add(&bytes, &path.display().to_string(), lookup);
    }
    checked.find_names_taken_twice();
    Ok(checked)
}

/// Whether a file holds rules of alerts and no agent.
fn is_alerts(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == "alerts.yml") && !path.is_dir()
}

impl Checked {
    fn add_alerts(&mut self, path: &Path, lookup: &Lookup) -> anyhow::Result<()> {
        let name = path.display().to_string();
        let bytes = std::fs::read(path).with_context(|| format!("{name} can't be read"))?;
        self.files += 1;
        let text = decode(&bytes, &name).map_err(|diagnostic| vec![*diagnostic]);
        match text.and_then(|text| parse_alerts(text, &name, lookup)) {
            Ok((_, warnings)) => self.warnings.extend(warnings),
            Err(errors) => self.errors.extend(errors),
        }
        Ok(())
    }

    fn add(&mut self, bytes: &[u8], name: &str, lookup: &Lookup) {
        self.files += 1;
        let text = decode(bytes, name).map_err(|diagnostic| vec![*diagnostic]);
        let mut lines = text.as_ref().map_or("", |text| *text).lines();
        let parsed = text.and_then(|text| parse(text, name, lookup));
        match parsed {
            Ok(parsed) => {
                self.warnings.extend(parsed.warnings.clone());
                let line = parsed.name_line;
                let text = lines.nth(line.saturating_sub(1));
                self.sources.push(Source {
                    file: name.to_owned(),
                    line,
                    text: text.unwrap_or_default().to_owned(),
                });
                self.agents.push(parsed);
            }
            Err(errors) => self.errors.extend(errors),
        }
    }

    fn find_names_taken_twice(&mut self) {
        let mut first: BTreeMap<&str, &Source> = BTreeMap::new();
        for (agent, source) in self.agents.iter().zip(&self.sources) {
            let name = agent.definition.name.as_str();
            if let Some(Source { file, line, .. }) = first.get(name) {
                self.errors.push(Diagnostic {
                    file: source.file.clone(),
                    path: "name".to_owned(),
                    line: source.line,
                    column: 1,
                    message: format!("the name {name} is taken by {file}:{line}"),
                    hint: "give each agent a name of its own".to_owned(),
                    severity: domain::definition::Severity::Error,
                    snippet: source.text.clone(),
                });
            } else {
                first.insert(name, source);
            }
        }
    }
}

fn report(checked: &Checked, screen: &Screen) {
    let Checked {
        files,
        agents,
        errors,
        warnings,
        ..
    } = checked;
    if screen.json {
        let is_valid = errors.is_empty();
        return screen.value(&json!({
            "valid": is_valid, "files": files, "agents": agents.len(), "errors": errors, "warnings": warnings,
        }));
    }
    for diagnostic in errors.iter().chain(warnings) {
        screen.note(printable(&diagnostic.to_string()));
    }
    let count = |n: usize, what: &str| format!("{n} {what}{}", if n == 1 { "" } else { "s" });
    let summary = format!(
        "{}: {}, {}, {}",
        count(*files, "file"),
        count(agents.len(), "valid agent"),
        count(errors.len(), "error"),
        count(warnings.len(), "warning"),
    );
    let style = if errors.is_empty() {
        Style::Good
    } else {
        Style::Bad
    };
    screen.note(screen.paint(style, &summary));
}
