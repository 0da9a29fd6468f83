//! Whether the providers that the agents ask can be asked.

use std::collections::{BTreeMap, BTreeSet};

use domain::Definition;
use domain::definition::{LlmConfig, Provider};
use domain::retry::ModelErrorClass;
use futures::future::join_all;

use super::clocks::Told;
use super::{Finding, State};
use crate::commands::choose::OLLAMA;
use crate::settings::Settings;
use crate::wiring::{asked, own_clock, providers};

/// All at once, each by one cheap call; and what their clocks say.
pub(super) async fn check(settings: &Settings, agents: &[Definition]) -> (Vec<Finding>, Vec<Told>) {
    let wanted = wanted(settings, agents);
    let asked = wanted
        .into_iter()
        .map(async |(provider, models)| match provider {
            Provider::Scripted => vec![(scripted(settings, &models), None)],
            Provider::Ollama => vec![(ollama(settings, &models).await, None)],
            Provider::Bedrock => {
                let regions = regions(settings, agents);
                let regions = regions
                    .iter()
                    .map(|region| bedrock(settings, region.as_deref()));
                let found = join_all(regions).await;
                found.into_iter().map(|found| (found, None)).collect()
            }
            other => vec![probe(settings, other, !models.is_empty()).await],
        });
    let answers = join_all(asked).await.into_iter().flatten();
    let (findings, told): (Vec<_>, Vec<_>) = answers.unzip();
    (findings, told.into_iter().flatten().collect())
}

/// What needs the network is left out.
pub(super) fn check_offline(settings: &Settings, agents: &[Definition]) -> Vec<Finding> {
    let wanted = wanted(settings, agents).into_iter();
    let scripts = wanted.filter(|(provider, _)| *provider == Provider::Scripted);
    scripts
        .map(|(_, models)| scripted(settings, &models))
        .collect()
}

/// Every model that an agent may ask, its fallbacks too.
fn choices(settings: &Settings, agents: &[Definition]) -> Vec<LlmConfig> {
    let instead = settings.models.instead.as_ref();
    let all = agents.iter().flat_map(|agent| {
        let config = asked(agent, instead);
        (0..).map_while(move |number| config.choice(number))
    });
    // Servers of one's own are asked when they are used.
    all.filter(|config| config.api_base.is_none() && config.endpoint_url.is_none())
        .collect()
}

/// The providers and their models; without models those that nobody asks and that have a key all the same.
fn wanted(settings: &Settings, agents: &[Definition]) -> Vec<(Provider, BTreeSet<String>)> {
    let mut wanted: BTreeMap<&str, (Provider, BTreeSet<String>)> = BTreeMap::new();
    for config in choices(settings, agents) {
        let entry = wanted.entry(config.provider.as_str());
        let (_, models) = entry.or_insert((config.provider, BTreeSet::new()));
        models.insert(config.model);
    }
    for (provider, key) in [
        (Provider::Openai, &settings.models.openai_key),
        (Provider::Anthropic, &settings.models.anthropic_key),
    ] {
        if key.is_some() {
            let entry = wanted.entry(provider.as_str());
            entry.or_insert((provider, BTreeSet::new()));
        }
    }
    wanted.into_values().collect()
}

async fn probe(settings: &Settings, provider: Provider, is_used: bool) -> (Finding, Option<Told>) {
    let (name, clock) = (provider.as_str(), own_clock(settings));
    let asked = clock();
    let error = match providers(settings).probe(provider).await {
        Ok(answer) => {
            let told = answer
                .date
                .map(|date| Told::roughly(name, date, (asked, clock())));
            return (Finding::good(name, answer.sentence), told);
        }
        Err(error) => error,
    };
    let advice = match (error.class, provider) {
        (ModelErrorClass::Auth, Provider::Openai) => "put OPENAI_API_KEY=... into .env",
        (ModelErrorClass::Auth, Provider::Anthropic) => "put ANTHROPIC_API_KEY=... into .env",
        (ModelErrorClass::Unavailable, _) => {
            "check the network, a proxy (HTTPS_PROXY), and the address; `agentrunner doctor --offline` goes without"
        }
        _ => "set AGENTRUNNER_PROVIDER to one that can be asked; scripted works without a model",
    };
    let mut finding = Finding::failed(name, error.to_string(), advice);
    if !is_used {
        finding.state = State::Warning;
        finding.found.push_str("; no agent asks it");
    }
    (finding, None)
}

/// The regions in which Bedrock is asked; `None` is the operator's.
fn regions(settings: &Settings, agents: &[Definition]) -> BTreeSet<Option<String>> {
    let configs = choices(settings, agents).into_iter();
    configs
        .filter(|config| config.provider == Provider::Bedrock)
        .map(|config| config.region)
        .collect()
}

async fn bedrock(settings: &Settings, region: Option<&str>) -> Finding {
    match providers(settings).probe_bedrock(region).await {
        Ok(sentence) => Finding::good("bedrock", sentence),
        Err(error) => {
            let advice = match error.class {
                ModelErrorClass::Auth => {
                    "put AWS_ACCESS_KEY_ID=... and AWS_SECRET_ACCESS_KEY=... into .env, or name a profile with AWS_PROFILE=..."
                }
                ModelErrorClass::InvalidRequest => "put AWS_REGION=... into .env",
                _ => "check the network, a proxy (HTTPS_PROXY), and AWS_REGION",
            };
            Finding::failed("bedrock", error.to_string(), advice)
        }
    }
}

async fn ollama(settings: &Settings, wanted: &BTreeSet<String>) -> Finding {
    let base = settings.models.ollama_url.as_deref().unwrap_or(OLLAMA);
    match llm::ollama_models(base).await {
        Ok(there) => {
            let has = |model: &String| {
                there
                    .iter()
                    .any(|name| name == model || name.strip_suffix(":latest") == Some(model))
            };
            let missing: Vec<_> = wanted.iter().filter(|model| !has(model)).cloned().collect();
            if missing.is_empty() {
                return Finding::good("ollama", format!("{base} answers and has the models"));
            }
            Finding::failed(
                "ollama",
                format!("{base} lacks {}", missing.join(", ")),
                format!("ollama pull {}", missing.join(" && ollama pull ")),
            )
        }
        Err(error) => Finding::failed(
            "ollama",
            error.to_string(),
            "`ollama serve` starts it; OLLAMA_BASE_URL names another",
        ),
    }
}

fn scripted(settings: &Settings, scripts: &BTreeSet<String>) -> Finding {
    let missing: Vec<_> = scripts
        .iter()
        .map(|script| settings.config_dir.join(script))
        .filter(|path| !path.is_file())
        .map(|path| path.display().to_string())
        .collect();
    if missing.is_empty() {
        Finding::warning(
            "scripted",
            "answers come from scripts, not from a model",
            "nothing, if that is meant; otherwise unset AGENTRUNNER_PROVIDER, or change provider in the agents' files",
        )
    } else {
        Finding::failed(
            "scripted",
            format!("there is no {}", missing.join(", ")),
            "write it, or unset AGENTRUNNER_PROVIDER and give a key",
        )
    }
}
