//! Leaving a provider alone for as long as it asked for: what one run was told, all runs of all processes keep to.
//!
//! An execution that would call is parked until then instead. It holds nothing while it waits, and it uses up none of
//! its retries: it was not refused.

use domain::Time;
use domain::definition::LlmConfig;
use domain::retry::ModelErrorClass;
use uuid::Uuid;

use super::Run;

impl Run {
    /// Until when the model is to be left alone. Not told when no time would be left afterwards: then it is asked all
    /// the same, and its refusal leads to what the definition says, another model or the end.
    pub(super) fn left_alone_until(&self, config: &LlmConfig) -> Option<Time> {
        let pause = self.core.counters.paused(&key(config))?;
        let until = self.core.now() + pause;
        (until < self.execution.deadline).then_some(until)
    }

    /// Tells everybody that the provider wants a pause, if that is what it said.
    pub(super) async fn keep_others_away(&self, config: &LlmConfig, error: &llm::Error) {
        if let (ModelErrorClass::RateLimited, Some(pause)) = (error.class, error.retry_after) {
            self.core.counters.pause(&key(config), pause).await;
        }
    }
}

/// Whose limit it is: a provider counts by key and model. Only the hash of it is written down.
fn key(config: &LlmConfig) -> String {
    let whose = (
        &config.model,
        &config.api_base,
        &config.endpoint_url,
        &config.region,
        &config.api_key,
    );
    // The fields as text, each in quotes, so that none runs into the next.
    let whose = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("{whose:?}").as_bytes());
    format!("{}-{whose}", config.provider.as_str())
}
