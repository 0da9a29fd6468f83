//! HashiCorp Vault: its key-value store, version 2, as a holder of a token or as an AppRole.

use std::time::Duration;

use reqwest::{Client, Method, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use tokio::sync::Mutex;
use tokio::time::Instant;

const PATIENCE: Duration = Duration::from_secs(10);
/// No answer is longer.
const LARGEST: usize = 1 << 20;
/// A token is renewed when so much of its life is over.
const RENEW_AT: f64 = 2.0 / 3.0;
/// How soon after a renewal that failed the next is tried.
const AGAIN: Duration = Duration::from_secs(15);
const HOW: &str = "set VAULT_TOKEN, or VAULT_ROLE_ID and VAULT_SECRET_ID";

pub(super) struct Vault {
    address: Option<String>,
    namespace: Option<String>,
    authorities: Option<String>,
    login: Login,
    token: Mutex<Option<Token>>,
}

enum Login {
    Token(SecretString),
    AppRole {
        role: String,
        secret: SecretString,
        mount: String,
    },
    Nothing,
}

struct Token {
    text: SecretString,
    /// When to renew it; never, when it has no end.
    renew_at: Option<Instant>,
    can_be_renewed: bool,
}

/// Why a call came to nothing.
struct Failed {
    status: Option<StatusCode>,
    message: String,
}

impl From<Failed> for String {
    fn from(failed: Failed) -> Self {
        failed.message
    }
}

impl Vault {
    pub(super) fn new(read: &dyn Fn(&str) -> Option<String>) -> Self {
        let login = match (read("VAULT_TOKEN"), read("VAULT_ROLE_ID")) {
            (Some(token), _) => Login::Token(token.trim().into()),
            (None, Some(role)) => Login::AppRole {
                role,
                secret: read("VAULT_SECRET_ID").unwrap_or_default().trim().into(),
                mount: read("VAULT_APPROLE_MOUNT").unwrap_or_else(|| "approle".to_owned()),
            },
            (None, None) => Login::Nothing,
        };
        Self {
            address: read("VAULT_ADDR").map(|url| url.trim_end_matches('/').to_owned()),
            namespace: read("VAULT_NAMESPACE"),
            authorities: read("VAULT_CACERT"),
            login,
            token: Mutex::default(),
        }
    }

    /// The fields of a secret.
    ///
    /// # Errors
    /// It can't be had; why, and what to do.
    pub(super) async fn get(&self, mount: &str, path: &str) -> Result<Value, String> {
        let path = format!("{mount}/data/{path}");
        let token = self.token().await?;
        let read = match self.call(Method::GET, &path, Some(&token), None).await {
            // A token may have been revoked before its end: whoever can log in does so anew, once.
            Err(failed)
                if failed.status == Some(StatusCode::FORBIDDEN)
                    && matches!(self.login, Login::AppRole { .. }) =>
            {
                *self.token.lock().await = None;
                let token = self.token().await?;
                self.call(Method::GET, &path, Some(&token), None).await
            }
            read => read,
        };
        let mut answer = read?;
        match answer.pointer_mut("/data/data").map(Value::take) {
            Some(fields @ Value::Object(_)) => Ok(fields),
            _ => Err(format!(
                "Vault has no secret at {path}, or {mount} is no key-value store of version 2"
            )),
        }
    }

    /// Renews the token when it is time, so that it does not end between two looks at the secrets.
    pub(super) async fn stay_known(&self) {
        let is_due = {
            let token = self.token.lock().await;
            let renew_at = token.as_ref().and_then(|token| token.renew_at);
            renew_at.is_some_and(|at| Instant::now() >= at)
        };
        if is_due && let Err(message) = self.token().await {
            tracing::warn!("the Vault token could not be renewed: {message}; what was read stays");
        }
    }

    /// The token, logged in for and renewed as needed.
    async fn token(&self) -> Result<SecretString, String> {
        let mut current = self.token.lock().await;
        if let Some(token) = current.as_mut() {
            if token.renew_at.is_none_or(|at| Instant::now() < at) {
                return Ok(token.text.clone());
            }
            match self.renewed(token).await {
                Ok(renewed) => *token = renewed,
                // Nothing can be done about it before it is over; then what was read stays.
                Err(_) if !token.can_be_renewed && matches!(self.login, Login::Token(_)) => {
                    token.renew_at = None;
                    tracing::warn!(
                        "the Vault token can't be renewed; give another one before it ends"
                    );
                }
                // An AppRole logs in anew below.
                Err(_) if matches!(self.login, Login::AppRole { .. }) => {}
                Err(message) => {
                    // It may still be good; it is tried again soon.
                    token.renew_at = Some(Instant::now() + AGAIN);
                    tracing::warn!("the Vault token could not be renewed: {message}");
                    return Ok(token.text.clone());
                }
            }
            if token.renew_at.is_none_or(|at| Instant::now() < at) {
                return Ok(token.text.clone());
            }
        }
        let token = self.log_in().await?;
        let text = token.text.clone();
        *current = Some(token);
        Ok(text)
    }

    async fn renewed(&self, token: &Token) -> Result<Token, String> {
        if !token.can_be_renewed {
            return Err("it can't be renewed".to_owned());
        }
        let path = "auth/token/renew-self";
        let body = Some(json!({}));
        let answer = self
            .call(Method::POST, path, Some(&token.text), body)
            .await?;
        let auth = answer.get("auth").cloned().unwrap_or_default();
        Ok(of(token.text.clone(), &auth, "lease_duration"))
    }

    async fn log_in(&self) -> Result<Token, String> {
        match &self.login {
            Login::Nothing => Err(format!("nobody is logged in at Vault: {HOW}")),
            Login::Token(text) => {
                let path = "auth/token/lookup-self";
                let answer = self.call(Method::GET, path, Some(text), None).await?;
                let data = answer.get("data").cloned().unwrap_or_default();
                Ok(of(text.clone(), &data, "ttl"))
            }
            Login::AppRole {
                role,
                secret,
                mount,
            } => {
                let body = json!({ "role_id": role, "secret_id": secret.expose_secret() });
                let path = format!("auth/{mount}/login");
                let answer = self.call(Method::POST, &path, None, Some(body)).await?;
                let auth = answer.get("auth").cloned().unwrap_or_default();
                let text = auth.get("client_token").and_then(Value::as_str);
                let text = text.ok_or("Vault let the AppRole in and gave it no token")?;
                Ok(of(text.into(), &auth, "lease_duration"))
            }
        }
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        token: Option<&SecretString>,
        body: Option<Value>,
    ) -> Result<Value, Failed> {
        let own = |message: String| Failed {
            status: None,
            message,
        };
        let Some(address) = &self.address else {
            return Err(own("set VAULT_ADDR to the address of Vault".to_owned()));
        };
        let client = self.client().map_err(own)?;
        let mut request = client
            .request(method, format!("{address}/v1/{path}"))
            .header("x-vault-request", "true");
        if let Some(token) = token {
            request = request.header("x-vault-token", token.expose_secret());
        }
        if let Some(namespace) = &self.namespace {
            request = request.header("x-vault-namespace", namespace);
        }
        if let Some(body) = body {
            request = request.json(&body);
        }
        let lost = |error: reqwest::Error| {
            let error = error.without_url();
            own(format!("Vault at {address} can't be reached: {error}"))
        };
        let mut response = request.send().await.map_err(lost)?;
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(lost)? {
            if bytes.len() + chunk.len() > LARGEST {
                return Err(own(format!("the answer of Vault at {address} is too long")));
            }
            bytes.extend_from_slice(&chunk);
        }
        let answer: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        if status.is_success() {
            return Ok(answer);
        }
        let reasons = answer.get("errors").and_then(Value::as_array);
        let reasons: Vec<&str> = reasons
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let hint = match status {
            StatusCode::FORBIDDEN => "check the token or AppRole, and its policy for this path",
            StatusCode::NOT_FOUND => "there is no such secret; check mount and path",
            StatusCode::SERVICE_UNAVAILABLE => "it is sealed or not ready",
            _ => "check the reference",
        };
        let reasons: String = reasons.join("; ").chars().take(300).collect();
        Err(Failed {
            status: Some(status),
            message: format!(
                "Vault at {address} answered {} to {path} ({}): {hint}",
                status.as_u16(),
                reasons.escape_debug()
            ),
        })
    }

    fn client(&self) -> Result<Client, String> {
        let mut builder = Client::builder()
            .timeout(PATIENCE)
            // The token goes to Vault and nowhere else.
            .redirect(reqwest::redirect::Policy::none());
        if let Some(path) = &self.authorities {
            let unusable = |why: String| format!("VAULT_CACERT: {path} can't be used: {why}");
            let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
            let known = reqwest::Certificate::from_pem_bundle(&pem);
            let known = known.map_err(|error| unusable(error.to_string()))?;
            builder = builder.tls_certs_merge(known);
        }
        builder.build().map_err(|error| error.to_string())
    }
}

/// A token as Vault describes it.
fn of(text: SecretString, about: &Value, lifetime: &str) -> Token {
    let seconds = about.get(lifetime).and_then(Value::as_u64).unwrap_or(0);
    let lasting = Duration::from_secs(seconds).mul_f64(RENEW_AT);
    let can_be_renewed = about.get("renewable").and_then(Value::as_bool);
    Token {
        text,
        renew_at: (seconds > 0).then(|| Instant::now() + lasting),
        can_be_renewed: can_be_renewed.unwrap_or_default(),
    }
}
