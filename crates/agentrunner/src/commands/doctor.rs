//! `doctor`: what is wrong, and what to type.

mod agents;
mod clocks;
mod disk;
mod doubts;
mod models;
mod ports;
mod servers;
mod slack;

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;
use serde_json::json;

use crate::cli::{Exit, block_on};
use crate::screen::{Screen, Style, printable};
use crate::settings::{Mistakes, Origin, Settings, shown};
use crate::wiring::own_clock;

/// Looks at settings, disk, database, message queue, cache, agents, ports, providers, Slack and the clock, and says what to type
/// where something is wrong.
///
/// Changes nothing but the database, which is made or brought up to date when it is not. Exit code 1 if anything
/// fails.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  agentrunner doctor
  agentrunner doctor --settings          every setting, with where its value comes from
  agentrunner doctor --offline           ask neither providers nor Slack
  agentrunner doctor --tools             also start and ask every tool server
  agentrunner doctor --json | jq '.findings[] | select(.state == \"failed\")'")]
pub(crate) struct Doctor {
    /// Also start and ask every tool server
    #[arg(long)]
    tools: bool,
    /// Ask neither providers nor Slack
    #[arg(long)]
    offline: bool,
    /// Show the settings that have their default too
    #[arg(long)]
    settings: bool,
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
                screen.mask(&settings.redactor);
                let findings = self.look(&settings).await;
                self.report(&findings, Some(&settings), screen);
                let has_failed = findings
                    .iter()
                    .any(|finding| finding.state == State::Failed);
                Ok(if has_failed { Exit::Failed } else { Exit::Done })
            }),
            Err(mistakes) => {
                self.report(&of_mistakes(mistakes), None, screen);
                Ok(Exit::Failed)
            }
        }
    }

    async fn look(&self, settings: &Settings) -> Vec<Finding> {
        let mut findings = vec![Finding::good("settings", "all can be used")];
        findings.extend(doubts::check(settings));
        findings.extend(disk::check(settings).await);
        let (database, database_clock) = servers::database(settings).await;
        findings.extend(database);
        findings.extend(servers::message_queue(settings).await);
        findings.extend(servers::cache(settings).await);
        let (agents, found) = agents::files(settings);
        findings.extend(found);
        findings.extend(ports::check(settings).await);
        let mut clocks: Vec<_> = database_clock.into_iter().collect();
        if self.offline {
            findings.extend(models::check_offline(settings, &agents));
        } else {
            let ((models, their_clocks), (slack, slack_clock)) = tokio::join!(
                models::check(settings, &agents),
                slack::check(settings, &agents)
            );
            findings.extend(models.into_iter().chain(slack));
            clocks.extend(their_clocks.into_iter().chain(slack_clock));
        }
        findings.push(clocks::judge(own_clock(settings)(), &clocks));
        if self.tools {
            findings.extend(agents::tool_servers(settings, &agents).await);
        }
        findings
    }
}

impl Doctor {
    fn report(&self, findings: &[Finding], settings: Option<&Settings>, screen: &Screen) {
        let values = settings.map(|settings| self.values(settings));
        if screen.json {
            return screen.value(&json!({ "findings": findings, "settings": values }));
        }
        if let Some(values) = values.filter(|values| !values.is_empty()) {
            screen.line(match self.settings {
                true => "settings:",
                false => "settings that are not the default:",
            });
            for Set {
                name,
                value,
                origin,
            } in values
            {
                screen.line(printable(&format!("  {name}={value}  ({origin})")));
            }
            screen.line("");
        }
        print(findings, screen);
    }

    fn values(&self, settings: &Settings) -> Vec<Set> {
        let all = shown(&settings.values);
        all.filter(|(_, _, origin)| self.settings || *origin != Origin::Default)
            .map(|(name, value, origin)| Set {
                name,
                value,
                origin: match settings.references.contains_key(name) {
                    true => format!("{origin}, by a reference"),
                    false => origin.to_string(),
                },
            })
            .collect()
    }
}

/// A setting with its value.
#[derive(Debug, Serialize)]
struct Set {
    name: &'static str,
    value: String,
    origin: String,
}

fn print(findings: &[Finding], screen: &Screen) {
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

/// "1 is valid", "2 are valid".
fn count(n: impl TryInto<u64>, one: &str, more: &str) -> String {
    match n.try_into().unwrap_or(u64::MAX) {
        1 => format!("1 {one}"),
        n => format!("{n} {more}"),
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
                "change it there; docs/settings.md has every name and what it takes",
            )
        })
        .collect()
}
