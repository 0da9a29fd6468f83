//! Where one call goes, and which key goes with it.

use domain::definition::{LlmConfig, Provider};
use secrecy::{ExposeSecret, SecretString};
use url::Url;

use crate::Error;
use crate::error::quote;
use crate::settings::Host;

/// Where one call goes, and which key goes with it.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Whose wire format is spoken there.
    pub(crate) provider: Provider,
    /// Whether this is the address that the operator set for the provider, and not an agent's `api_base`.
    pub(crate) is_own: bool,
    /// The key for this address.
    pub(crate) key: Option<SecretString>,
    /// What else goes along and is secret: the session token of a signed call.
    pub(crate) session: Option<SecretString>,
    base: Url,
}

impl Endpoint {
    /// The endpoint that an agent's configuration means.
    ///
    /// The rule for keys: the operator's key goes to the operator's address. An agent's `api_base` that is any
    /// other address gets the agent's own `api_key`, or none.
    pub(crate) fn of(config: &LlmConfig, host: &Host) -> Result<Self, Error> {
        let provider = config.provider;
        let own = parse(provider, &host.base_url, "the base URL")?;
        let base = match &config.api_base {
            Some(address) => parse(provider, address, "llm_config.api_base")?,
            None => own.clone(),
        };
        let is_own = is_same(&base, &own);
        Self::at(config, base, is_own, || host.key.get())
    }

    /// The endpoint at this address. `own_key` is the operator's, for an address that is the operator's own.
    pub(crate) fn at(
        config: &LlmConfig,
        base: Url,
        is_own: bool,
        own_key: impl FnOnce() -> Option<SecretString>,
    ) -> Result<Self, Error> {
        let key = match &config.api_key {
            Some(reference) if reference.starts_with("${") => {
                return Err(Error::new(
                    domain::retry::ModelErrorClass::Auth,
                    "llm_config.api_key names a variable that is not set: set it",
                ));
            }
            Some(key) if !key.trim().is_empty() => Some(SecretString::from(key.trim())),
            _ if is_own => own_key(),
            _ => None,
        };
        let endpoint = Self {
            provider: config.provider,
            is_own,
            key,
            session: None,
            base,
        };
        endpoint.refuse_without_key()?;
        Ok(endpoint)
    }

    /// The endpoint that the operator set, for calls that no agent makes.
    pub(crate) fn own(provider: Provider, host: &Host) -> Result<Self, Error> {
        let base = parse(provider, &host.base_url, "the base URL")?;
        let endpoint = Self::owned(provider, base, host.key.get());
        endpoint.refuse_without_key()?;
        Ok(endpoint)
    }

    /// An endpoint of the operator.
    pub(crate) fn owned(provider: Provider, base: Url, key: Option<SecretString>) -> Self {
        Self {
            provider,
            is_own: true,
            key,
            session: None,
            base,
        }
    }

    /// The address of a path below the base. A query of the base is kept.
    pub(crate) fn url(&self, path: &[&str]) -> Url {
        let mut url = self.base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    /// Whether the base's path ends with this segment.
    pub(crate) fn ends_with(&self, segment: &str) -> bool {
        self.base.path().trim_end_matches('/').ends_with(segment)
    }

    /// Host and port, for messages.
    pub(crate) fn place(&self) -> String {
        let host = self.base.host_str().unwrap_or("?");
        match self.base.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }

    /// What to do about a key that is missing or refused.
    pub(crate) fn key_hint(&self) -> String {
        match (self.is_own, variable(self.provider)) {
            (true, Some(variable)) => format!("set {variable} to a valid key"),
            (true, None) if self.provider == Provider::Bedrock && self.key.is_some() => {
                "set AWS_BEARER_TOKEN_BEDROCK to a valid key".to_owned()
            }
            (true, None) if self.provider == Provider::Bedrock => {
                "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to a valid key, AWS_SESSION_TOKEN if it was lent, or AWS_PROFILE".to_owned()
            }
            _ => format!(
                "set llm_config.api_key to a key for {}, as a reference like ${{MY_KEY}}",
                self.place()
            ),
        }
    }

    /// Text with the key taken out, should a server have echoed it.
    pub(crate) fn without_key(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in [&self.key, &self.session].into_iter().flatten() {
            let secret = secret.expose_secret();
            if secret.len() >= 4 && text.contains(secret) {
                text = text.replace(secret, "[key]");
            }
        }
        text
    }

    /// The public services refuse a call without a key; we say so before a byte is sent. Other servers may not
    /// want one.
    fn refuse_without_key(&self) -> Result<(), Error> {
        let is_public = matches!(
            self.base.host_str(),
            Some("api.openai.com" | "api.anthropic.com")
        );
        if is_public && self.key.is_none() {
            return Err(Error::new(
                domain::retry::ModelErrorClass::Auth,
                format!(
                    "there is no key for {}: {}",
                    self.provider.as_str(),
                    self.key_hint()
                ),
            ));
        }
        Ok(())
    }
}

fn variable(provider: Provider) -> Option<&'static str> {
    match provider {
        Provider::Openai => Some("OPENAI_API_KEY"),
        Provider::Anthropic => Some("ANTHROPIC_API_KEY"),
        Provider::Bedrock | Provider::Ollama | Provider::Scripted => None,
    }
}

pub(crate) fn parse(provider: Provider, address: &str, what: &str) -> Result<Url, Error> {
    let wrong = |reason: &str| {
        Error::invalid(format!(
            "{what} of {} is no usable address ({reason}): write it like https://host/v1",
            provider.as_str()
        ))
    };
    let url = Url::parse(address.trim()).map_err(|error| wrong(&error.to_string()))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(wrong(&format!("scheme {}", quote(url.scheme()))));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(wrong("a name or password in it; use api_key"));
    }
    Ok(url)
}

/// Whether two addresses are the same up to a closing slash.
pub(crate) fn is_same(one: &Url, other: &Url) -> bool {
    one.origin() == other.origin()
        && one.path().trim_end_matches('/') == other.path().trim_end_matches('/')
        && one.query() == other.query()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;

    fn config(json: serde_json::Value) -> LlmConfig {
        serde_json::from_value(json).unwrap()
    }

    /// The key that goes to `api_base`, if the call is made at all.
    fn key_for(api_base: &str, api_key: Option<&str>) -> Option<String> {
        let host = Host::new("https://api.openai.com/v1").with_key(Key::fixed("operator"));
        let config = config(serde_json::json!({
            "provider": "openai", "model": "m", "api_base": api_base, "api_key": api_key
        }));
        let key = Endpoint::of(&config, &host).ok()?.key?;
        Some(key.expose_secret().to_owned())
    }

    #[test]
    fn the_operators_key_goes_to_the_operators_address_only() {
        let same = key_for("https://api.openai.com/v1/", None);
        assert_eq!(same.as_deref(), Some("operator"));
        for other in [
            "http://api.openai.com/v1",
            "https://api.openai.com/v2",
            "https://api.openai.com.evil.example/v1",
            "https://evil.example/v1",
            "https://api.openai.com:8443/v1",
            "http://localhost:8080/v1",
        ] {
            assert_eq!(key_for(other, None), None, "{other}");
            assert_eq!(key_for(other, Some("own")).as_deref(), Some("own"));
        }
    }

    #[test]
    fn a_missing_key_is_told_before_any_request() {
        let host = Host::new("https://api.anthropic.com");
        let config = config(serde_json::json!({"provider": "anthropic", "model": "m"}));
        let error = Endpoint::of(&config, &host).unwrap_err();
        assert_eq!(error.class, domain::retry::ModelErrorClass::Auth);
        assert_eq!(
            error.message,
            "there is no key for anthropic: set ANTHROPIC_API_KEY to a valid key"
        );
    }

    #[test]
    fn addresses_with_passwords_or_other_schemes_are_refused() {
        for address in [
            "file:///etc/passwd",
            "https://user:pw@host/v1",
            "localhost:11434",
            "",
        ] {
            let config = config(serde_json::json!({
                "provider": "ollama", "model": "m", "api_base": address
            }));
            assert!(Endpoint::of(&config, &Host::new("http://localhost:11434")).is_err());
        }
    }
}
