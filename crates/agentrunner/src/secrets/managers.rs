//! Who is asked for which secret.

use llm::{AwsSettings, Key};
use secrecy::ExposeSecret as _;
use serde_json::Value;

use super::reference::Reference;
use super::vault::Vault;

/// The managers, as the settings name them. Nobody is asked before a secret is wanted.
pub(crate) struct Managers {
    #[cfg(feature = "bedrock")]
    aws: llm::SecretsManager,
    vault: Vault,
}

impl Managers {
    /// With what `look` says of variables.
    pub(crate) fn new(look: &dyn Fn(&str) -> Option<String>) -> Self {
        let read = |name: &str| look(name).or_else(|| from_file(&look(&format!("{name}_FILE"))?));
        let key = |name| read(name).map_or_else(Key::none, Key::fixed);
        let _aws = AwsSettings {
            region: look("AWS_REGION").or_else(|| look("AWS_DEFAULT_REGION")),
            endpoint: look("AWS_ENDPOINT_URL_SECRETS_MANAGER"),
            access_key_id: key("AWS_ACCESS_KEY_ID"),
            secret_access_key: key("AWS_SECRET_ACCESS_KEY"),
            session_token: key("AWS_SESSION_TOKEN"),
            profile: look("AWS_PROFILE"),
            ..AwsSettings::default()
        };
        Self {
            #[cfg(feature = "bedrock")]
            aws: llm::SecretsManager::new(_aws),
            vault: Vault::new(&read),
        }
    }

    /// The secret that a reference names, as it is now.
    ///
    /// # Errors
    /// It can't be had; why, and what to do.
    pub(crate) async fn get(&self, reference: &Reference) -> Result<String, String> {
        match reference {
            #[cfg(not(feature = "bedrock"))]
            Reference::Aws { .. } => Err(
                "this agentrunner was built without AWS: take a build with the cargo feature `bedrock`"
                    .to_owned(),
            ),
            #[cfg(feature = "bedrock")]
            Reference::Aws { name, field } => {
                let text = self.aws.get(name).await.map_err(|error| error.message)?;
                match field {
                    None => Ok(text.expose_secret().to_owned()),
                    Some(field) => {
                        let value: Value = serde_json::from_str(text.expose_secret())
                            .map_err(|_| "the secret is no JSON object, so it has no fields".to_owned())?;
                        text_of(&value, field)
                    }
                }
            }
            Reference::Vault { mount, path, field } => {
                let value = self.vault.get(mount, path).await?;
                text_of(&value, field)
            }
        }
    }

    /// Renews what proves who we are, when it is time.
    pub(crate) async fn stay_known(&self) {
        self.vault.stay_known().await;
    }
}

/// The text of a field.
fn text_of(object: &Value, field: &str) -> Result<String, String> {
    match object.get(field) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(Value::Number(number)) => Ok(number.to_string()),
        Some(_) => Err(format!("its field {field:?} is no text")),
        None => Err(format!("it has no field {field:?}")),
    }
}

fn from_file(path: &str) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    Some(text.trim_end_matches(['\r', '\n']).to_owned())
}
