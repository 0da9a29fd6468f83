//! Credentials: looked for when the first call needs them, kept until they are about to expire, renewed by one call
//! while the others wait; and the signature that they make.

use std::time::{Duration, SystemTime};

use aws_config::Region;
use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::default_provider::region::DefaultRegionChain;
use aws_credential_types::Credentials;
use aws_credential_types::provider::ProvideCredentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use domain::definition::LlmConfig;
use domain::retry::ModelErrorClass as Class;
use http::{HeaderMap, HeaderName, HeaderValue, header};
use secrecy::{ExposeSecret, SecretString};
use tokio::sync::{Mutex, OnceCell};
use tokio::time::timeout;
use url::Url;

use super::address::{Place, Wanted};
use crate::Error;
use crate::http::secret;
use crate::settings::AwsSettings;

/// How long AWS's chain may look: files, a web identity, a container, the machine's own service.
const LOOKUP_PATIENCE: Duration = Duration::from_secs(15);
/// How long before their end credentials are renewed.
const MARGIN: Duration = Duration::from_secs(5 * 60);
/// How long credentials without an end are kept: files change.
const KEPT: Duration = Duration::from_secs(15 * 60);
/// What calls of models are signed for.
pub(crate) const SERVICE: &str = "bedrock";

/// Who we are at AWS.
#[derive(Debug)]
pub(crate) struct Aws {
    /// What it is for, as people are told.
    purpose: &'static str,
    settings: AwsSettings,
    /// The region that the profile or the machine names.
    region: OnceCell<Option<String>>,
    chain: OnceCell<DefaultCredentialsChain>,
    current: Mutex<Option<Found>>,
}

/// Credentials that the chain found.
#[derive(Debug)]
struct Found {
    credentials: Credentials,
    renew_at: SystemTime,
}

impl Aws {
    /// Asks nobody yet.
    pub(crate) fn new(purpose: &'static str, settings: AwsSettings) -> Self {
        Self {
            purpose,
            settings,
            region: OnceCell::new(),
            chain: OnceCell::new(),
            current: Mutex::new(None),
        }
    }

    /// Where a call of this configuration goes.
    pub(super) async fn place(&self, config: &LlmConfig) -> Result<Place, Error> {
        let wanted = Wanted::of(config, &self.settings)?;
        let region = self.region(&wanted).await?;
        wanted.in_region(region, Some(config), &self.settings)
    }

    /// Where the operator's own calls go.
    pub(super) async fn own_place(&self, region: Option<&str>) -> Result<Place, Error> {
        let wanted = Wanted::own(region, &self.settings)?;
        let region = self.region(&wanted).await?;
        wanted.in_region(region, None, &self.settings)
    }

    async fn region(&self, wanted: &Wanted) -> Result<String, Error> {
        self.named_region(wanted.region.as_deref()).await
    }

    /// This region, or the one of the profile or the machine.
    pub(super) async fn named_region(&self, named: Option<&str>) -> Result<String, Error> {
        if let Some(region) = named {
            return Ok(region.to_owned());
        }
        let look = self.region.get_or_init(|| async {
            let mut chain = DefaultRegionChain::builder();
            if let Some(profile) = &self.settings.profile {
                chain = chain.profile_name(profile);
            }
            let found = chain.build().region().await;
            found.map(|region| region.as_ref().to_owned())
        });
        let found = timeout(LOOKUP_PATIENCE, look).await.ok().cloned().flatten();
        found.ok_or_else(|| {
            let or = match self.purpose {
                SERVICE => ", or llm_config.region of the agent",
                _ => "",
            };
            Error::invalid(format!(
                "there is no AWS region: set AWS_REGION{or}, for example to eu-central-1"
            ))
        })
    }

    /// Adds what proves who we are: a bearer token, or a signature. Nothing, where nothing of ours may go.
    pub(super) async fn authorize(
        &self,
        headers: &mut HeaderMap,
        place: &mut Place,
        method: &str,
        url: &Url,
        body: &[u8],
    ) -> Result<(), Error> {
        if let Some(key) = &place.endpoint.key {
            headers.insert(header::AUTHORIZATION, secret("Bearer ", key)?);
            return Ok(());
        }
        if !place.endpoint.is_own {
            return Ok(());
        }
        let credentials = self.credentials(&place.region).await?;
        place.endpoint.session = credentials.session_token().map(SecretString::from);
        let now = (self.settings.now)();
        let scope = (SERVICE, place.region.as_str());
        signed(headers, &credentials, scope, now, method, url, body)
    }

    /// Signs a POST to another service of AWS.
    pub(super) async fn sign_for(
        &self,
        service: &str,
        headers: &mut HeaderMap,
        region: &str,
        url: &Url,
        body: &[u8],
    ) -> Result<(), Error> {
        let credentials = self.credentials(region).await?;
        let now = (self.settings.now)();
        signed(
            headers,
            &credentials,
            (service, region),
            now,
            "POST",
            url,
            body,
        )
    }

    /// Looks anew at the next call.
    pub(super) async fn forget(&self) {
        *self.current.lock().await = None;
    }

    /// The settings' credentials, or what the chain finds.
    pub(super) async fn credentials(&self, region: &str) -> Result<Credentials, Error> {
        let keys = &self.settings;
        if let (Some(id), Some(key)) = (keys.access_key_id.get(), keys.secret_access_key.get()) {
            let session = keys.session_token.get();
            return Ok(Credentials::new(
                id.expose_secret().trim(),
                key.expose_secret().trim(),
                session.map(|token| token.expose_secret().trim().to_owned()),
                None,
                "settings",
            ));
        }
        let mut current = self.current.lock().await;
        let now = (self.settings.now)();
        if let Some(found) = &*current
            && now < found.renew_at
        {
            return Ok(found.credentials.clone());
        }
        let looked = timeout(LOOKUP_PATIENCE, self.look(region)).await;
        let looked =
            looked.unwrap_or_else(|_| Err(CredentialsError::provider_timed_out(LOOKUP_PATIENCE)));
        match (looked, &*current) {
            (Ok(credentials), _) => {
                *current = Some(Found {
                    renew_at: renewal(&credentials, now),
                    credentials: credentials.clone(),
                });
                Ok(credentials)
            }
            // They are to be renewed but still good.
            (Err(error), Some(found))
                if found.credentials.expiry().is_some_and(|end| now < end) =>
            {
                tracing::warn!(%error, "aws credentials could not be renewed and end soon");
                Ok(found.credentials.clone())
            }
            (Err(error), _) => Err(not_found(error, self.purpose)),
        }
    }

    async fn look(&self, region: &str) -> Result<Credentials, CredentialsError> {
        let chain = self.chain.get_or_init(|| async {
            let mut chain =
                DefaultCredentialsChain::builder().region(Region::new(region.to_owned()));
            if let Some(profile) = &self.settings.profile {
                chain = chain.profile_name(profile);
            }
            chain.build().await
        });
        chain.await.provide_credentials().await
    }
}

/// When credentials are looked for anew.
fn renewal(credentials: &Credentials, now: SystemTime) -> SystemTime {
    match credentials.expiry() {
        Some(end) => end.checked_sub(MARGIN).unwrap_or(now),
        None => now + KEPT,
    }
}

fn not_found(error: CredentialsError, purpose: &str) -> Error {
    let (class, what) = match &error {
        CredentialsError::CredentialsNotLoaded(_) => (
            Class::Auth,
            format!("there are no AWS credentials for {purpose}"),
        ),
        CredentialsError::InvalidConfiguration(_) => (
            Class::Auth,
            format!("the AWS configuration has no usable credentials for {purpose}"),
        ),
        CredentialsError::ProviderTimedOut(_) => (
            Class::Unavailable,
            format!("AWS credentials for {purpose} could not be had in time"),
        ),
        _ => (
            Class::Unavailable,
            format!("AWS credentials for {purpose} could not be had"),
        ),
    };
    let or = match purpose {
        SERVICE => ", or AWS_BEARER_TOKEN_BEDROCK",
        _ => "",
    };
    let mut reasons = Vec::new();
    let mut cause = std::error::Error::source(&error);
    while let Some(reason) = cause.filter(|_| reasons.len() < 8) {
        reasons.push(reason.to_string());
        cause = reason.source();
    }
    reasons.dedup();
    let reasons = match reasons.is_empty() {
        true => String::new(),
        false => format!(" ({})", crate::error::quote(&reasons.join(": "))),
    };
    Error::new(
        class,
        format!(
            "{what}{reasons}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE{or}, or give the machine or container a role"
        ),
    )
    .because(error)
}

/// Signs a request (SigV4). What a proxy on the way may change stays out of the signature.
fn signed(
    headers: &mut HeaderMap,
    credentials: &Credentials,
    (service, region): (&str, &str),
    now: SystemTime,
    method: &str,
    url: &Url,
    body: &[u8],
) -> Result<(), Error> {
    let unsigned = |error: &dyn std::fmt::Display| {
        Error::new(Class::Auth, format!("the request can't be signed: {error}"))
    };
    let identity = credentials.clone().into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(region)
        .name(service)
        .time(now)
        .settings(SigningSettings::default())
        .build()
        .map_err(|error| unsigned(&error))?
        .into();
    let is_shown =
        |name: &HeaderName| *name == header::CONTENT_TYPE || name.as_str().starts_with("x-amz-");
    let shown = headers.iter().filter(|(name, _)| is_shown(name));
    let shown: Vec<(String, String)> = shown
        .filter_map(|(name, value)| Some((name.to_string(), value.to_str().ok()?.to_owned())))
        .collect();
    let shown = shown
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()));
    let request = SignableRequest::new(method, url.as_str(), shown, SignableBody::Bytes(body))
        .map_err(|error| unsigned(&error))?;
    let output = sign(request, &params).map_err(|error| unsigned(&error))?;
    let (instructions, _) = output.into_parts();
    for (name, value) in instructions.headers() {
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|error| unsigned(&error))?;
        let mut value = HeaderValue::from_str(value).map_err(|_| {
            Error::new(
                Class::Auth,
                "the AWS keys have characters that no key has, perhaps a line break: set them again",
            )
        })?;
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    Ok(())
}
