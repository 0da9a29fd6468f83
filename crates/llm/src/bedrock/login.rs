//! Who we are at AWS, for whoever signs requests to another of its services by himself.

use secrecy::SecretString;

use super::aws::Aws;
use crate::Error;
use crate::settings::AwsSettings;

/// A key of AWS, as it is at the moment.
#[derive(Debug)]
pub struct AwsKey {
    /// Its id, which is shown.
    pub id: String,
    /// The key. It signs, and is never sent.
    pub secret: SecretString,
    /// What goes along with a key that was lent for some hours.
    pub session: Option<SecretString>,
}

/// Finds keys: those of the settings, or what AWS's own chain finds, which are renewed before they end.
#[derive(Debug)]
pub struct AwsLogin {
    aws: Aws,
    region: Option<String>,
}

impl AwsLogin {
    /// For a service, by the name that people know it by. Asks nobody yet.
    pub fn new(service: &'static str, settings: AwsSettings) -> Self {
        Self {
            region: settings.region.clone(),
            aws: Aws::new(service, settings),
        }
    }

    /// The region of the settings, or that of the profile or the machine.
    ///
    /// # Errors
    /// None names one.
    pub async fn region(&self) -> Result<String, Error> {
        self.aws.named_region(self.region.as_deref()).await
    }

    /// A key that is good now.
    ///
    /// # Errors
    /// There is none; says where it was looked for and what to do.
    pub async fn key(&self, region: &str) -> Result<AwsKey, Error> {
        let found = self.aws.credentials(region).await?;
        Ok(AwsKey {
            id: found.access_key_id().to_owned(),
            secret: found.secret_access_key().into(),
            session: found.session_token().map(SecretString::from),
        })
    }
}
