//! All providers behind one model: looks at the configuration and asks the right one.

use async_trait::async_trait;
use domain::definition::Provider;

use crate::http::Http;
use crate::scripted::Scripted;
use crate::settings::ProviderSettings;
use crate::{ChatModel, ChatRequest, ChatStream, Error, anthropic, ollama, openai};

/// All providers behind one model. Cheap to make: connections are opened, and certificates read, at the first call.
#[derive(Debug)]
pub struct Providers {
    pub(crate) settings: ProviderSettings,
    pub(crate) http: Http,
    scripted: Scripted,
}

impl Providers {
    /// Providers with these settings.
    pub fn new(settings: ProviderSettings) -> Self {
        Self {
            http: Http::new(settings.connect_timeout),
            scripted: Scripted::new(settings.scripts_root.clone()),
            settings,
        }
    }
}

#[async_trait]
impl ChatModel for Providers {
    async fn chat(&self, request: ChatRequest<'_>) -> Result<ChatStream, Error> {
        match request.config.provider {
            Provider::Openai => openai::chat(&self.http, &self.settings, &request).await,
            Provider::Anthropic => anthropic::chat(&self.http, &self.settings, &request).await,
            Provider::Ollama => ollama::chat(&self.http, &self.settings, &request).await,
            Provider::Scripted => self.scripted.chat(&request).await,
            Provider::Bedrock => Err(Error::invalid(
                "the provider bedrock is not part of this version: use openai, anthropic, ollama or scripted",
            )),
        }
    }
}
