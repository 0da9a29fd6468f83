//! Choosing a provider: a key in the environment, a local Ollama that answers, or else scripts. Never silently.

use domain::definition::Provider;

use crate::settings::Settings;

/// Where an Ollama is, unless it is said otherwise.
pub(crate) const OLLAMA: &str = "http://127.0.0.1:11434";

/// What was chosen, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Choice {
    pub(crate) provider: Provider,
    /// `None` for scripts.
    pub(crate) model: Option<String>,
    pub(crate) why: String,
}

/// Looks for the first provider that can be used.
pub(crate) async fn choose(settings: &Settings) -> Choice {
    let models = &settings.models;
    let with_key = |provider, model: &str, name| Choice {
        provider,
        model: Some(model.to_owned()),
        why: format!("{name} is set"),
    };
    if models.openai_key.is_some() {
        return with_key(Provider::Openai, "gpt-5-mini", "OPENAI_API_KEY");
    }
    if models.anthropic_key.is_some() {
        return with_key(
            Provider::Anthropic,
            "claude-sonnet-4-5",
            "ANTHROPIC_API_KEY",
        );
    }
    let url = models.ollama_url.as_deref().unwrap_or(OLLAMA);
    let scripted = |why: String| Choice {
        provider: Provider::Scripted,
        model: None,
        why,
    };
    match llm::ollama_models(url).await {
        Ok(models) => match models.into_iter().next() {
            Some(model) => Choice {
                provider: Provider::Ollama,
                why: format!("Ollama answers at {url} and has {model}"),
                model: Some(model),
            },
            None => scripted(format!(
                "Ollama answers at {url} but has no model; get one with `ollama pull llama3.2`"
            )),
        },
        Err(_) => scripted(format!(
            "there is no OPENAI_API_KEY and no ANTHROPIC_API_KEY, and no Ollama answers at {url}"
        )),
    }
}
