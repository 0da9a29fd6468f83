//! `logs`: the lines of one trace or execution, out of files or a pipe, in the order of time.

mod line;
mod sources;

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use crate::cli::{Context, Exit};
use line::Line;
use sources::{Source, Sources};

/// The most lines that are kept: they are put in order before they are shown.
const MAX_LINES: usize = 200_000;

/// Shows the lines of the log that belong to one trace or execution, in the order of time.
///
/// Reads `agentrunner.log` in LOG_DIR and those that were moved away beside it, or the files that are named; - reads
/// standard input. On a terminal they are shown as text, else as they were written. Exit code 1 if there are none.
#[derive(Debug, Args)]
#[command(
    group(ArgGroup::new("which").required(true).multiple(true)),
    after_help = "\
Examples:
  agentrunner logs --trace 4bf92f3577b34da6a3ce929d0e0e4736
  agentrunner logs --execution 0192f0c1-7e3a-7c3d-8e4f-5a6b7c8d9e0f
  docker compose logs --no-log-prefix | agentrunner logs --trace 4bf92f3577b34da6a3ce929d0e0e4736 -
  journalctl -u agentrunner -o cat | agentrunner logs --trace 4bf92f3577b34da6a3ce929d0e0e4736 -
  zcat logs/*.gz | agentrunner logs --trace 4bf92f3577b34da6a3ce929d0e0e4736 - logs/agentrunner.log"
)]
pub(crate) struct Logs {
    /// The trace: 32 hexadecimal digits, or the UUID that a caller gave
    #[arg(long, value_name = "ID", group = "which")]
    trace: Option<String>,
    /// The execution
    #[arg(long, value_name = "ID", group = "which")]
    execution: Option<String>,
    /// Files to read instead of those in LOG_DIR; - reads standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
}

impl Logs {
    pub(crate) fn run(&self, context: &Context) -> anyhow::Result<Exit> {
        let screen = &context.screen;
        let sources = match (&self.files[..], context.settings.log.dir.as_deref()) {
            ([], None) => {
                screen.note(
                    "there is no file of the log to read, since LOG_DIR is not set; name files, or pipe the log in: \
                     docker compose logs --no-log-prefix | agentrunner logs --trace ID -",
                );
                return Ok(Exit::WrongUse);
            }
            ([], Some(folder)) => Sources::of_folder(folder)?,
            (files, _) => Sources::named(files),
        };
        if !sources.packed.is_empty() {
            let packed = sources.packed.join(" ");
            screen.note(format_args!(
                "left out, because they are compressed: {packed} (zcat {packed} | agentrunner logs … -)"
            ));
        }
        let found = self.search(&sources)?;
        if found.lines.is_empty() {
            screen.note(self.nothing(&sources, &found));
            return Ok(Exit::Failed);
        }
        let mut lines = found.lines;
        // Equal times stay in the order in which they were read.
        lines.sort_by_key(|line| line.time);
        for line in &lines {
            if screen.wants_json() {
                screen.line(&line.text);
            } else {
                screen.line(line.for_people());
            }
        }
        Ok(Exit::Done)
    }

    fn search(&self, sources: &Sources) -> anyhow::Result<Found> {
        let mut found = Found::default();
        for source in &sources.sources {
            source.each_line(|text| {
                found.looked_at += 1;
                let Some(line) = Line::read(text) else {
                    found.foreign += 1;
                    return Ok(());
                };
                if self.is_meant(&line) {
                    anyhow::ensure!(
                        found.lines.len() < MAX_LINES,
                        "more than {MAX_LINES} lines belong to it; read fewer files at once"
                    );
                    found.lines.push(line);
                }
                Ok(())
            })?;
        }
        Ok(found)
    }

    fn is_meant(&self, line: &Line) -> bool {
        let is_same = |wanted: &Option<String>, field: &str| {
            wanted
                .as_deref()
                .is_none_or(|wanted| line.id(field).is_some_and(|id| same_id(id, wanted)))
        };
        is_same(&self.trace, "trace_id") && is_same(&self.execution, "execution_id")
    }

    fn nothing(&self, sources: &Sources, found: &Found) -> String {
        let wanted = [("trace", &self.trace), ("execution", &self.execution)];
        let wanted: Vec<_> = wanted
            .iter()
            .filter_map(|(what, id)| Some(format!("{what} {}", id.as_deref()?)))
            .collect();
        let names: Vec<_> = sources.sources.iter().map(Source::name).collect();
        let mut text = format!(
            "no line of {} belongs to {}; looked at {}",
            found.looked_at,
            wanted.join(" and "),
            names.join(", ")
        );
        if found.looked_at > 0 && found.foreign == found.looked_at {
            text.push_str("; none of them is JSON: start AgentRunner with LOG_FORMAT=json");
        }
        text
    }
}

#[derive(Default)]
struct Found {
    lines: Vec<Line>,
    looked_at: usize,
    /// Lines of other programs, or not written as JSON.
    foreign: usize,
}

/// Ids are written with hyphens and without.
fn same_id(one: &str, other: &str) -> bool {
    let plain = |id: &'_ str| -> String {
        let chars = id.chars().filter(|c| *c != '-');
        chars.map(|c| c.to_ascii_lowercase()).collect()
    };
    plain(one) == plain(other.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_found_however_it_is_written() {
        let uuid = "0192F0C1-7e3a-7c3d-8e4f-5a6b7c8d9e0f";
        assert!(same_id(uuid, " 0192f0c17e3a7c3d8e4f5a6b7c8d9e0f"));
        assert!(!same_id(uuid, "0192f0c17e3a7c3d8e4f5a6b7c8d9e0"));
    }
}
