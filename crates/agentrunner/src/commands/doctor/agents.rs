//! The agents' files, and the servers of their tools.

use chrono::Utc;
use domain::Definition;
use tools::Toolbox;

use super::{Finding, count};
use crate::commands::validate;
use crate::settings::Settings;
use crate::wiring;

/// The files: those that give agents, and what is wrong with the others.
pub(super) fn files(settings: &Settings) -> (Vec<Definition>, Vec<Finding>) {
    let values = settings.values.clone();
    let checked = match validate::check(&settings.agents_dir(), &move |name: &str| {
        values.lookup(name)
    }) {
        Ok(checked) => checked,
        Err(error) => {
            let found = crate::screen::chain(&error);
            return (
                Vec::new(),
                vec![Finding::failed("agents", found, "agentrunner init")],
            );
        }
    };
    let mut findings: Vec<_> = checked
        .errors
        .iter()
        .map(|error| {
            let advice = "mend it there; `agentrunner validate` checks it without a start";
            Finding::failed("agents", error.to_string(), advice)
        })
        .collect();
    let warnings = checked.warnings.iter().map(|warning| {
        let advice = "mend it there, or leave it: the agent works";
        Finding::warning("agents", warning.to_string(), advice)
    });
    findings.extend(warnings);
    let agents: Vec<_> = checked
        .agents
        .into_iter()
        .map(|parsed| parsed.definition)
        .collect();
    if agents.is_empty() && checked.errors.is_empty() {
        let found = format!("there are none in {}", settings.agents_dir().display());
        findings.push(Finding::failed("agents", found, "agentrunner init"));
    } else if checked.errors.is_empty() {
        findings.push(Finding::good(
            "agents",
            count(agents.len(), "is valid", "are valid"),
        ));
    }
    findings.extend(agents.iter().filter_map(|agent| cant_run(settings, agent)));
    (agents, findings)
}

/// Why a good file's agent takes no work.
fn cant_run(settings: &Settings, agent: &Definition) -> Option<Finding> {
    let what = format!("agent {}", agent.name);
    if let Err(missing) = wiring::expand(settings)(agent) {
        let advice = format!("put {}=... into .env", missing.name);
        return Some(Finding::failed(&what, missing.to_string(), advice));
    }
    (!agent.enabled).then(|| {
        let advice = "set enabled: true in its file, if it is to work";
        Finding::warning(&what, "its file says enabled: false", advice)
    })
}

/// Starts and asks every tool server, each as an agent would.
pub(super) async fn tool_servers(settings: &Settings, agents: &[Definition]) -> Vec<Finding> {
    let clock: engine::Clock = std::sync::Arc::new(Utc::now);
    let opened = async {
        let store = wiring::open_store(settings).await?;
        let toolkit = wiring::toolkit(settings, &store, &clock)?;
        anyhow::Ok((store, toolkit))
    };
    let (_store, toolkit) = match opened.await {
        Ok(opened) => opened,
        Err(error) => {
            let found = crate::screen::chain(&error);
            return vec![Finding::failed(
                "tools",
                found,
                "see docs/settings.md: EGRESS_ALLOW and EGRESS_DENY",
            )];
        }
    };
    let mut findings = Vec::new();
    for agent in agents.iter().filter(|agent| !agent.tools.is_empty()) {
        // What is missing was told.
        let Ok(expanded) = wiring::expand(settings)(agent) else {
            continue;
        };
        let what = format!("tools of {}", agent.name);
        findings.push(
            match toolkit
                .offers(&agent.name, &agent.content_hash(), &expanded.tools)
                .await
            {
                Ok(offers) => {
                    Finding::good(&what, count(offers.len(), "is offered", "are offered"))
                }
                Err(error) => Finding::failed(
                    &what,
                    error.to_string(),
                    "start the server, or correct the entry",
                ),
            },
        );
    }
    toolkit.shutdown().await;
    findings
}
