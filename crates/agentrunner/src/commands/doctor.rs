//! `doctor`: what is wrong, and what to type.

mod checks;
mod models;
mod ports;

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;
use serde_json::{Value, json};

use crate::cli::{Exit, block_on};
use crate::screen::{Screen, Style, printable};
use crate::settings::{Mistakes, Origin, Settings, shown};

/// Looks at settings, ports, disk, database, message queue, cache, agents and providers, and says what to type where something is wrong.
///
/// Changes nothing but the database, which is made or brought up to date when it is not. Exit code 1 if anything
/// fails.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentrunner doctor
  agentrunner doctor --tools             also start and ask every tool server
  agentrunner doctor --json | jq '.findings[] | select(.state == \"failed\")'")]
pub(crate) struct Doctor {
    /// Also start and ask every tool server
    #[arg(long)]
    tools: bool,
}

/// How something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Good,
    Warning,
    Failed,
}

/// Something that was looked at.
#[derive(Debug, Clone, Serialize)]
struct Finding {
    state: State,
    what: String,
    found: String,
    /// What to type or do; empty when all is well.
    advice: String,
}

impl Finding {
    fn good(what: &str, found: impl Into<String>) -> Self {
        Self {
            state: State::Good,
            what: what.to_owned(),
            found: found.into(),
            advice: String::new(),
        }
    }

    fn warning(what: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            state: State::Warning,
            what: what.to_owned(),
            found: found.into(),
            advice: advice.into(),
        }
    }

    fn failed(what: &str, found: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            state: State::Failed,
            what: what.to_owned(),
            found: found.into(),
            advice: advice.into(),
        }
    }
}

impl Doctor {
    pub(crate) fn run_or_explain(
        &self,
        flags: &BTreeMap<String, String>,
        screen: &Screen,
    ) -> anyhow::Result<Exit> {
        match Settings::from_process(flags) {
            Ok(settings) => block_on(async {
                let findings = self.look(&settings).await;
                report(&findings, Some(&settings), screen);
                let has_failed = findings
                    .iter()
                    .any(|finding| finding.state == State::Failed);
                Ok(if has_failed { Exit::Failed } else { Exit::Done })
            }),
            Err(mistakes) => {
                report(&of_mistakes(mistakes), None, screen);
                Ok(Exit::Failed)
            }
        }
    }

    async fn look(&self, settings: &Settings) -> Vec<Finding> {
        let mut findings = vec![Finding::good("settings", "all can be used")];
        findings.push(checks::clock());
        findings.extend(checks::data_dir(settings).await);
        findings.push(checks::database(settings).await);
        findings.extend(checks::message_queue(settings).await);
        findings.extend(checks::cache(settings).await);
        let (agents, found) = checks::agents(settings);
        findings.extend(found);
        findings.extend(ports::check(settings).await);
        findings.extend(models::check(settings, &agents).await);
        if self.tools {
            findings.extend(checks::tool_servers(settings, &agents).await);
        }
        findings
    }
}

fn of_mistakes(Mistakes(mistakes): Mistakes) -> Vec<Finding> {
    mistakes
        .into_iter()
        .map(|mistake| {
            let found = match mistake.value.as_str() {
                "" => mistake.message,
                value => format!("{value}: {}", mistake.message),
            };
            Finding::failed(
                &mistake.name,
                found,
                "change it in .env or in the environment",
            )
        })
        .collect()
}

fn report(findings: &[Finding], settings: Option<&Settings>, screen: &Screen) {
    if screen.json {
        return screen.value(&as_json(findings, settings));
    }
    if let Some(settings) = settings.filter(|settings| set(settings).next().is_some()) {
        screen.line("settings that are not the default:");
        for (name, value, origin) in set(settings) {
            screen.line(format_args!("  {name}={value}  ({origin})"));
        }
        screen.line("");
    }
    for Finding {
        state,
        what,
        found,
        advice,
    } in findings
    {
        let mark = match state {
            State::Good => "ok  ",
            State::Warning => "note",
            State::Failed => "FAIL",
        };
        screen.line(printable(&format!("{mark} {what}: {found}")));
        if !advice.is_empty() {
            screen.line(printable(&format!("     → {advice}")));
        }
    }
    let failed = findings
        .iter()
        .filter(|finding| finding.state == State::Failed)
        .count();
    let (style, text) = match failed {
        0 => (Style::Good, "nothing is wrong".to_owned()),
        1 => (Style::Bad, "1 thing is wrong".to_owned()),
        n => (Style::Bad, format!("{n} things are wrong")),
    };
    screen.note(screen.paint(style, &text));
}

fn as_json(findings: &[Finding], settings: Option<&Settings>) -> Value {
    let settings = settings.map(|settings| {
        set(settings)
            .map(|(name, value, origin)| json!({ "name": name, "value": value, "origin": origin.to_string() }))
            .collect::<Vec<_>>()
    });
    json!({ "findings": findings, "settings": settings })
}

fn set(settings: &Settings) -> impl Iterator<Item = (&'static str, String, Origin)> {
    shown(&settings.values).filter(|(_, _, origin)| *origin != Origin::Default)
}
