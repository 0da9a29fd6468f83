//! AWS Secrets Manager, as far as it is read: one signed call. It shares the credentials' chain with Bedrock.

use std::time::Duration;

use domain::retry::ModelErrorClass as Class;
use http::{HeaderMap, HeaderValue, header};
use reqwest::Client;
use secrecy::SecretString;
use serde::Deserialize;
use tokio::time::timeout;
use url::Url;

use super::aws::Aws;
use crate::Error;
use crate::error::quote;
use crate::settings::AwsSettings;

const PATIENCE: Duration = Duration::from_secs(15);
/// No secret is larger: AWS allows 64 KiB.
const LARGEST: usize = 256 << 10;

/// Reads secrets. Cheap to make: nobody is asked yet.
#[derive(Debug)]
pub struct SecretsManager {
    aws: Aws,
    region: Option<String>,
    /// The address instead of AWS's own.
    endpoint: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Value {
    secret_string: Option<SecretString>,
}

#[derive(Default, Deserialize)]
struct Refusal {
    #[serde(default, rename = "__type")]
    kind: String,
    #[serde(default, alias = "Message")]
    message: String,
}

impl SecretsManager {
    /// With these credentials; `settings.endpoint` is the address instead of AWS's own.
    pub fn new(settings: AwsSettings) -> Self {
        Self {
            region: settings.region.clone(),
            endpoint: settings.endpoint.clone(),
            aws: Aws::new("Secrets Manager", settings),
        }
    }

    /// The current value of a secret, by name or ARN.
    ///
    /// # Errors
    /// It can't be had; says why and what to do, never a value.
    pub async fn get(&self, name: &str) -> Result<SecretString, Error> {
        let asked = timeout(PATIENCE, self.ask(name)).await;
        asked.unwrap_or_else(|_| {
            Err(Error::unavailable(
                "AWS Secrets Manager did not answer in time",
            ))
        })
    }

    async fn ask(&self, name: &str) -> Result<SecretString, Error> {
        let named = region_of(name).or(self.region.as_deref());
        let region = self.aws.named_region(named).await?;
        let url = self.url(&region)?;
        let body = serde_json::json!({ "SecretId": name }).to_string();
        let mut headers = HeaderMap::new();
        let kind = HeaderValue::from_static("application/x-amz-json-1.1");
        headers.insert(header::CONTENT_TYPE, kind);
        let target = HeaderValue::from_static("secretsmanager.GetSecretValue");
        headers.insert("x-amz-target", target);
        self.aws
            .sign_for(
                "secretsmanager",
                &mut headers,
                &region,
                &url,
                body.as_bytes(),
            )
            .await?;
        let place = url.host_str().unwrap_or_default().to_owned();
        let unreachable = |error: reqwest::Error| {
            let error = error.without_url();
            Error::unavailable(format!(
                "AWS Secrets Manager at {place} can't be reached: {error}"
            ))
        };
        let client = Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(unreachable)?;
        let request = client.post(url.clone()).headers(headers).body(body);
        let mut response = request.send().await.map_err(unreachable)?;
        let status = response.status().as_u16();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
            if bytes.len() + chunk.len() > LARGEST {
                return Err(Error::garbled(format!("the answer of {place} is too long")));
            }
            bytes.extend_from_slice(&chunk);
        }
        if status != 200 {
            return Err(refusal(status, &bytes));
        }
        let value: Value = serde_json::from_slice(&bytes).map_err(|_| {
            Error::garbled(format!("{place} did not answer as AWS Secrets Manager"))
        })?;
        let text = value.secret_string;
        text.ok_or_else(|| Error::invalid("the secret is binary; keep it as a text"))
    }

    fn url(&self, region: &str) -> Result<Url, Error> {
        let own = || {
            let domain = if region.starts_with("cn-") {
                "amazonaws.com.cn"
            } else {
                "amazonaws.com"
            };
            format!("https://secretsmanager.{region}.{domain}/")
        };
        let text = self.endpoint.clone().unwrap_or_else(own);
        text.parse()
            .map_err(|_| Error::invalid("the address of AWS Secrets Manager is not a URL"))
    }
}

/// The region that an ARN names.
fn region_of(name: &str) -> Option<&str> {
    let rest = name.strip_prefix("arn:")?;
    rest.split(':').nth(2).filter(|region| !region.is_empty())
}

fn refusal(status: u16, bytes: &[u8]) -> Error {
    let refusal: Refusal = serde_json::from_slice(bytes).unwrap_or_default();
    let kind = refusal.kind.rsplit('#').next().unwrap_or_default();
    let (class, hint) = match kind {
        "ResourceNotFoundException" => (
            Class::InvalidRequest,
            "there is no such secret in this region; check its name, AWS_REGION and the account",
        ),
        "AccessDeniedException" => (
            Class::Auth,
            "give this identity the right secretsmanager:GetSecretValue, and kms:Decrypt for its key",
        ),
        "UnrecognizedClientException" | "InvalidSignatureException" | "ExpiredTokenException" => (
            Class::Auth,
            "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to a valid key, or AWS_PROFILE",
        ),
        _ if status >= 500 || status == 429 => (Class::Unavailable, "it is tried again"),
        _ => (Class::InvalidRequest, "check the reference"),
    };
    Error::new(
        class,
        format!(
            "AWS Secrets Manager answered {status} {kind} {}: {hint}",
            quote(&refusal.message)
        ),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_arn_names_its_region() {
        let arn = "arn:aws:secretsmanager:eu-west-1:123456789012:secret:prod/openai-AbCdEf";
        assert_eq!(region_of(arn), Some("eu-west-1"));
        assert_eq!(region_of("prod/openai"), None);
        let manager = SecretsManager::new(AwsSettings::default());
        let host = |region| manager.url(region).unwrap().host_str().unwrap().to_owned();
        assert_eq!(host("eu-west-1"), "secretsmanager.eu-west-1.amazonaws.com");
        assert_eq!(
            host("cn-north-1"),
            "secretsmanager.cn-north-1.amazonaws.com.cn"
        );
    }
}
