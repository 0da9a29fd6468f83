//! Where the providers are, and their keys.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use domain::definition::LlmConfig;
use secrecy::{ExposeSecret, SecretString};

/// Settings of all providers.
#[derive(Debug, Clone)]
pub struct ProviderSettings {
    /// OpenAI.
    pub openai: Host,
    /// OpenAI's organization, when the key belongs to several.
    pub openai_organization: Option<String>,
    /// OpenAI's project, when the key belongs to several.
    pub openai_project: Option<String>,
    /// Anthropic.
    pub anthropic: Host,
    /// AWS Bedrock.
    pub bedrock: AwsSettings,
    /// Ollama; it needs no key.
    pub ollama: Host,
    /// The folder that holds the scripts of the `scripted` provider.
    pub scripts_root: PathBuf,
    /// How long the opening of a connection may take.
    pub connect_timeout: Duration,
    /// How long a provider may be silent in the middle of an answer. For the first byte it has as long as
    /// the agent's `llm_config.timeout`, if that is longer: loading a model or thinking takes its time.
    pub read_timeout: Duration,
}

impl Default for ProviderSettings {
    fn default() -> Self {
        Self {
            openai: Host::new("https://api.openai.com/v1"),
            openai_organization: None,
            openai_project: None,
            anthropic: Host::new("https://api.anthropic.com"),
            bedrock: AwsSettings::default(),
            ollama: Host::new("http://localhost:11434"),
            scripts_root: PathBuf::from("config"),
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(60),
        }
    }
}

impl ProviderSettings {
    /// How long the first byte of an answer may take.
    pub(crate) fn patience(&self, config: &LlmConfig) -> Duration {
        self.read_timeout.max(Duration::from_secs(config.timeout))
    }
}

/// AWS Bedrock's region and address, and who we are there.
///
/// Whatever is not given, AWS's own chain is asked for when the first call needs it: environment, profile, web identity,
/// container, machine. That chain reads the process's environment and files by itself.
#[derive(Debug, Clone)]
pub struct AwsSettings {
    /// The region of agents that name none.
    pub region: Option<String>,
    /// The address instead of AWS's own.
    pub endpoint: Option<String>,
    /// Bedrock's own kind of key. Where there is one, nothing else is asked.
    pub token: Key,
    /// The id of the AWS key.
    pub access_key_id: Key,
    /// The AWS key. It signs, and is never sent.
    pub secret_access_key: Key,
    /// What goes along with an AWS key that was lent for some hours.
    pub session_token: Key,
    /// The profile in AWS's files that is used, instead of `default`.
    pub profile: Option<String>,
    /// The time, which is part of each signature.
    pub now: fn() -> SystemTime,
}

impl Default for AwsSettings {
    fn default() -> Self {
        Self {
            region: None,
            endpoint: None,
            token: Key::none(),
            access_key_id: Key::none(),
            secret_access_key: Key::none(),
            session_token: Key::none(),
            profile: None,
            now: SystemTime::now,
        }
    }
}

/// A provider's address and the key for it. The key is sent to this address and to no other.
#[derive(Debug, Clone)]
pub struct Host {
    /// The address that paths are added to.
    pub base_url: String,
    /// The key.
    pub key: Key,
}

impl Host {
    /// A host without a key.
    pub fn new(base_url: impl Into<String>) -> Self {
        Self {
            base_url: base_url.into(),
            key: Key::none(),
        }
    }

    /// The same host with a key.
    #[must_use]
    pub fn with_key(mut self, key: Key) -> Self {
        self.key = key;
        self
    }
}

/// Where a key comes from. It is asked at every call, so a key can be changed without a restart.
#[derive(Clone)]
pub struct Key(Arc<dyn Fn() -> Option<SecretString> + Send + Sync>);

impl Key {
    /// No key.
    pub fn none() -> Self {
        Self::from_fn(|| None)
    }

    /// Always this key.
    pub fn fixed(key: impl Into<SecretString>) -> Self {
        let key = key.into();
        Self::from_fn(move || Some(key.clone()))
    }

    /// Whatever `source` says at the moment of the call. It must not block.
    pub fn from_fn(source: impl Fn() -> Option<SecretString> + Send + Sync + 'static) -> Self {
        Self(Arc::new(source))
    }

    /// The key as it is now; a blank one is none.
    pub fn get(&self) -> Option<SecretString> {
        (self.0)().filter(|key| !key.expose_secret().trim().is_empty())
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}
