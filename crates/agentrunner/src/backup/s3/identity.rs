//! Who we are to the store: the settings' keys, or what AWS's own chain finds.

use anyhow::anyhow;
use llm::AwsSettings;
use rusty_s3::Credentials;
use secrecy::{ExposeSecret as _, SecretString};

/// The region of stores that are not AWS's and say nothing of one.
const ANYWHERE: &str = "us-east-1";

pub(super) struct Identity {
    settings: AwsSettings,
    #[cfg(feature = "bedrock")]
    login: llm::AwsLogin,
    region: String,
}

impl Identity {
    /// In the region of the settings, of the profile or of the machine.
    ///
    /// # Errors
    /// There is none, or it is no name of one.
    pub(super) async fn new(settings: AwsSettings, is_aws: bool) -> anyhow::Result<Self> {
        #[cfg(feature = "bedrock")]
        let login = llm::AwsLogin::new("S3", settings.clone());
        let region = match &settings.region {
            Some(region) => region.clone(),
            None if !is_aws => ANYWHERE.to_owned(),
            #[cfg(feature = "bedrock")]
            None => login.region().await.map_err(|error| {
                anyhow!(
                    "{} (for a store that is not AWS's, set AWS_ENDPOINT_URL_S3)",
                    error.message
                )
            })?,
            #[cfg(not(feature = "bedrock"))]
            None => anyhow::bail!(
                "set AWS_REGION, or AWS_ENDPOINT_URL_S3 for a store that is not AWS's"
            ),
        };
        let is_good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        // It becomes part of the name of a host.
        if region.is_empty() || region.len() > 64 || !region.bytes().all(is_good) {
            return Err(anyhow!("AWS_REGION={region:?} is no name of a region"));
        }
        Ok(Self {
            settings,
            #[cfg(feature = "bedrock")]
            login,
            region,
        })
    }

    pub(super) fn region(&self) -> &str {
        &self.region
    }

    /// Keys that are good now.
    ///
    /// # Errors
    /// There are none; what to set.
    pub(super) async fn keys(&self) -> Result<Credentials, String> {
        let keys = &self.settings;
        if let (Some(id), Some(secret)) = (keys.access_key_id.get(), keys.secret_access_key.get()) {
            let id = id.expose_secret().trim().to_owned();
            return Ok(credentials(id, &secret, keys.session_token.get().as_ref()));
        }
        self.found().await
    }

    #[cfg(feature = "bedrock")]
    async fn found(&self) -> Result<Credentials, String> {
        let key = self.login.key(&self.region).await;
        let key = key.map_err(|error| error.message)?;
        Ok(credentials(key.id, &key.secret, key.session.as_ref()))
    }

    #[cfg(not(feature = "bedrock"))]
    async fn found(&self) -> Result<Credentials, String> {
        Err("set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY; this agentrunner was built without AWS's own search for keys (the cargo feature `bedrock`)".to_owned())
    }
}

fn credentials(id: String, secret: &SecretString, session: Option<&SecretString>) -> Credentials {
    let secret = secret.expose_secret().trim();
    match session {
        Some(token) => Credentials::new_with_token(id, secret, token.expose_secret().trim()),
        None => Credentials::new(id, secret),
    }
}
