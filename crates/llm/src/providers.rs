//! All providers behind one model: looks at the configuration and asks the right one.

use async_trait::async_trait;
use domain::definition::Provider;

#[cfg(feature = "bedrock")]
use crate::bedrock::{self, Aws};
use crate::http::Http;
use crate::scripted::Scripted;
use crate::settings::ProviderSettings;
use crate::{ChatModel, ChatRequest, ChatStream, Error, anthropic, ollama, openai};

/// All providers behind one model. Cheap to make: connections are opened, and certificates read, at the first call.
#[derive(Debug)]
pub struct Providers {
    pub(crate) settings: ProviderSettings,
    pub(crate) http: Http,
    #[cfg(feature = "bedrock")]
    pub(crate) aws: Aws,
    scripted: Scripted,
}

impl Providers {
    /// Providers with these settings.
    pub fn new(settings: ProviderSettings) -> Self {
        Self {
            http: Http::new(settings.connect_timeout),
            #[cfg(feature = "bedrock")]
            aws: Aws::new(bedrock::SERVICE, settings.bedrock.clone()),
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
            #[cfg(feature = "bedrock")]
            Provider::Bedrock => {
                bedrock::chat(&self.http, &self.aws, &self.settings, &request).await
            }
            #[cfg(not(feature = "bedrock"))]
            Provider::Bedrock => Err(without_bedrock()),
        }
    }
}

/// The error for a provider that was left out when this was built.
#[cfg(not(feature = "bedrock"))]
pub(crate) fn without_bedrock() -> Error {
    Error::invalid(
        "this agentrunner was built without AWS Bedrock: take a build with the cargo feature `bedrock`, which is on unless it is taken off, or use openai, anthropic, ollama or scripted",
    )
}
