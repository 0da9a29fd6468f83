//! Whether the providers that the agents ask can be asked.

use std::collections::{BTreeMap, BTreeSet};

use domain::Definition;
use domain::definition::Provider;
use domain::retry::ModelErrorClass;

use super::Finding;
use crate::commands::choose::OLLAMA;
use crate::settings::Settings;
use crate::wiring::{asked, providers};

pub(super) async fn check(settings: &Settings, agents: &[Definition]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (provider, models) in wanted(settings, agents) {
        findings.push(match provider {
            Provider::Scripted => scripted(settings, &models),
            Provider::Ollama => ollama(settings, &models).await,
            Provider::Bedrock => {
                for region in regions(settings, agents) {
                    findings.push(bedrock(settings, region.as_deref()).await);
                }
                continue;
            }
            other => probe(settings, other).await,
        });
    }
    findings
}

/// The providers and their models, servers of one's own left out: each of them is asked when it is used.
fn wanted(settings: &Settings, agents: &[Definition]) -> Vec<(Provider, BTreeSet<String>)> {
    let mut wanted: BTreeMap<&str, (Provider, BTreeSet<String>)> = BTreeMap::new();
    for agent in agents {
        let config = asked(agent, settings.models.instead.as_ref());
        if config.api_base.is_none() && config.endpoint_url.is_none() {
            let entry = wanted.entry(config.provider.as_str());
            let (_, models) = entry.or_insert((config.provider, BTreeSet::new()));
            models.insert(config.model);
        }
    }
    wanted.into_values().collect()
}

async fn probe(settings: &Settings, provider: Provider) -> Finding {
    let name = provider.as_str();
    match providers(settings).probe(provider).await {
        Ok(sentence) => Finding::good(name, sentence),
        Err(error) => {
            let advice = match (error.class, provider) {
                (ModelErrorClass::Auth, Provider::Openai) => "put OPENAI_API_KEY=... into .env",
                (ModelErrorClass::Auth, Provider::Anthropic) => {
                    "put ANTHROPIC_API_KEY=... into .env"
                }
                (ModelErrorClass::Unavailable, _) => {
                    "check the network, a proxy (HTTPS_PROXY), and the address"
                }
                _ => {
                    "set AGENTRUNNER_PROVIDER to one that can be asked; scripted works without a model"
                }
            };
            Finding::failed(name, error.to_string(), advice)
        }
    }
}

/// The regions in which Bedrock is asked; `None` is the operator's.
fn regions(settings: &Settings, agents: &[Definition]) -> BTreeSet<Option<String>> {
    let instead = settings.models.instead.as_ref();
    let configs = agents.iter().map(|agent| asked(agent, instead));
    configs
        .filter(|config| config.provider == Provider::Bedrock)
        .filter(|config| config.api_base.is_none() && config.endpoint_url.is_none())
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
            "",
        )
    } else {
        Finding::failed(
            "scripted",
            format!("there is no {}", missing.join(", ")),
            "write it, or unset AGENTRUNNER_PROVIDER and give a key",
        )
    }
}
