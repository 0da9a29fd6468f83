//! Managers of secrets on the true wire, on one port: Vault (its key-value store of version 2, tokens, AppRole) and AWS
//! Secrets Manager (signed). That it is right is proved by `hvac` and `boto3`: see `clients/`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Value, json};

use crate::provider::signed_for;
use crate::server::Server;

const LARGEST: usize = 1 << 20;

/// Both managers, on a thread of their own, until it is dropped.
#[derive(Debug)]
pub struct SecretsStandIn {
    state: Shared,
    server: Server,
}

type Shared = Arc<Mutex<Inner>>;

#[derive(Debug, Default)]
struct Inner {
    /// By mount and path.
    vault: BTreeMap<String, Value>,
    /// By name.
    aws: BTreeMap<String, String>,
    /// Tokens of Vault, with their end.
    tokens: BTreeMap<String, Token>,
    roles: BTreeMap<String, (String, Duration)>,
    is_down: bool,
    asked: Vec<String>,
    /// The hosts that showed a token or a signature.
    logins: usize,
}

#[derive(Debug, Clone)]
struct Token {
    until: Option<Instant>,
    lasting: Duration,
}

impl SecretsStandIn {
    /// Starts it on a free port of 127.0.0.1.
    ///
    /// # Panics
    /// When no port can be bound.
    #[must_use]
    pub fn start() -> Self {
        let state = Shared::default();
        let router = Router::new().fallback(answer).with_state(state.clone());
        let server = Server::start(0, router).expect("a free port");
        Self { state, server }
    }

    /// Returns the address: `VAULT_ADDR`, and the endpoint of Secrets Manager.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.server.address())
    }

    /// Lets the holder of a token in, for so long, or for ever.
    pub fn allow_token(&self, token: &str, lasting: Option<Duration>) {
        let until = lasting.map(|lasting| Instant::now() + lasting);
        let lasting = lasting.unwrap_or_default();
        lock(&self.state)
            .tokens
            .insert(token.to_owned(), Token { until, lasting });
    }

    /// Lets an AppRole in, with tokens that last so long.
    pub fn allow_role(&self, role: &str, secret: &str, lasting: Duration) {
        lock(&self.state)
            .roles
            .insert(role.to_owned(), (secret.to_owned(), lasting));
    }

    /// Keeps a secret in Vault, at `mount/path`.
    pub fn put_vault(&self, path: &str, fields: Value) {
        lock(&self.state).vault.insert(path.to_owned(), fields);
    }

    /// Keeps a secret in AWS Secrets Manager.
    pub fn put_aws(&self, name: &str, text: &str) {
        lock(&self.state)
            .aws
            .insert(name.to_owned(), text.to_owned());
    }

    /// Ends all tokens, as somebody who revokes them.
    pub fn revoke_tokens(&self) {
        lock(&self.state).tokens.clear();
    }

    /// From now on it is down, or is not.
    pub fn set_down(&self, is_down: bool) {
        lock(&self.state).is_down = is_down;
    }

    /// Returns what was asked: method and path, or the AWS operation.
    #[must_use]
    pub fn asked(&self) -> Vec<String> {
        lock(&self.state).asked.clone()
    }
}

fn lock(state: &Shared) -> MutexGuard<'_, Inner> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn answer(State(state): State<Shared>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, LARGEST).await.unwrap_or_default();
    let method = head.method.as_str().to_owned();
    let path = head.uri.path().to_owned();
    let headers: BTreeMap<String, String> = head
        .headers
        .iter()
        .map(|(name, value)| {
            let value = value.to_str().unwrap_or_default().to_owned();
            (name.as_str().to_owned(), value)
        })
        .collect();
    let mut inner = lock(&state);
    if inner.is_down {
        return (StatusCode::SERVICE_UNAVAILABLE, "down").into_response();
    }
    match headers.get("x-amz-target") {
        Some(target) => {
            inner.asked.push(target.clone());
            inner.aws((&method, &path), target, &headers, &body)
        }
        None => {
            inner.asked.push(format!("{method} {path}"));
            inner.vault(&method, &path, &headers, &body)
        }
    }
}

/// A refusal as Vault writes it.
fn refused(status: StatusCode, errors: &[&str]) -> Response {
    (status, axum::Json(json!({ "errors": errors }))).into_response()
}

/// An answer as Vault writes it.
fn told(data: &Value, auth: &Value) -> Response {
    let answer = json!({
        "request_id": "00000000-0000-0000-0000-000000000001", "lease_id": "", "renewable": false,
        "lease_duration": 0, "data": data, "wrap_info": null, "warnings": null, "auth": auth,
    });
    axum::Json(answer).into_response()
}

impl Inner {
    fn vault(
        &mut self,
        method: &str,
        path: &str,
        headers: &BTreeMap<String, String>,
        body: &Bytes,
    ) -> Response {
        let Some(path) = path.strip_prefix("/v1/") else {
            return refused(StatusCode::NOT_FOUND, &[]);
        };
        if path == "auth/approle/login" {
            return self.log_in(body);
        }
        let token = headers.get("x-vault-token").cloned().unwrap_or_default();
        let known = self.tokens.get(&token).cloned();
        let is_alive = |token: &Token| token.until.is_none_or(|until| Instant::now() < until);
        let Some(known) = known.filter(is_alive) else {
            return refused(StatusCode::FORBIDDEN, &["permission denied"]);
        };
        match (method, path) {
            ("GET", "auth/token/lookup-self") => {
                let left = known
                    .until
                    .map(|until| until.duration_since(Instant::now()));
                let ttl = left.unwrap_or_default().as_secs_f64().ceil();
                let data = json!({
                    "id": token, "ttl": ttl as u64, "renewable": known.until.is_some(), "policies": ["default"],
                });
                told(&data, &Value::Null)
            }
            ("POST" | "PUT", "auth/token/renew-self") => {
                let until = Some(Instant::now() + known.lasting);
                let lasting = known.lasting;
                self.tokens.insert(token.clone(), Token { until, lasting });
                told(&Value::Null, &auth(&token, lasting))
            }
            ("GET", path) => {
                let parts = path.split_once("/data/");
                let key = parts.map(|(mount, path)| format!("{mount}/{path}"));
                match key.and_then(|key| self.vault.get(&key)) {
                    Some(fields) => {
                        let metadata = json!({ "version": 1, "destroyed": false, "deletion_time": "",
                            "created_time": "2026-11-30T00:00:00Z", "custom_metadata": null });
                        told(
                            &json!({ "data": fields, "metadata": metadata }),
                            &Value::Null,
                        )
                    }
                    None => refused(StatusCode::NOT_FOUND, &[]),
                }
            }
            _ => refused(StatusCode::METHOD_NOT_ALLOWED, &["unsupported operation"]),
        }
    }

    fn log_in(&mut self, body: &Bytes) -> Response {
        let given: Value = serde_json::from_slice(body).unwrap_or_default();
        let text = |name: &str| given[name].as_str().unwrap_or_default().to_owned();
        match self.roles.get(&text("role_id")).cloned() {
            Some((secret, lasting)) if secret == text("secret_id") => {
                self.logins += 1;
                let token = format!("hvs.testkit-{}", self.logins);
                let until = Some(Instant::now() + lasting);
                self.tokens.insert(token.clone(), Token { until, lasting });
                told(&Value::Null, &auth(&token, lasting))
            }
            _ => refused(StatusCode::BAD_REQUEST, &["invalid role or secret ID"]),
        }
    }

    fn aws(
        &self,
        line: (&str, &str),
        target: &str,
        headers: &BTreeMap<String, String>,
        body: &Bytes,
    ) -> Response {
        let refuse = |status: StatusCode, kind: &str, message: &str| {
            let body = json!({ "__type": kind, "Message": message });
            let kind = [("content-type", "application/x-amz-json-1.1")];
            (status, kind, body.to_string()).into_response()
        };
        if let Err(error) = signed_for("secretsmanager", line, headers, body) {
            let (kind, message) = (
                error.code.unwrap_or_default(),
                error.message.unwrap_or_default(),
            );
            return refuse(StatusCode::BAD_REQUEST, &kind, &message);
        }
        if target != "secretsmanager.GetSecretValue" {
            return refuse(StatusCode::BAD_REQUEST, "UnknownOperationException", target);
        }
        let given: Value = serde_json::from_slice(body).unwrap_or_default();
        let known: BTreeSet<&str> = ["SecretId", "VersionId", "VersionStage"].into();
        let mut fields = given
            .as_object()
            .into_iter()
            .flat_map(|fields| fields.keys());
        if let Some(field) = fields.find(|field| !known.contains(field.as_str())) {
            return refuse(StatusCode::BAD_REQUEST, "SerializationException", field);
        }
        let name = given["SecretId"].as_str().unwrap_or_default();
        let short = name.rsplit(":secret:").next().unwrap_or_default();
        let Some(text) = self.aws.get(short) else {
            let message = "Secrets Manager can't find the specified secret.";
            return refuse(
                StatusCode::BAD_REQUEST,
                "ResourceNotFoundException",
                message,
            );
        };
        let answer = json!({
            "ARN": format!("arn:aws:secretsmanager:eu-central-1:123456789012:secret:{short}-AbCdEf"),
            "Name": short, "SecretString": text, "VersionId": "00000000-0000-0000-0000-000000000001",
            "VersionStages": ["AWSCURRENT"], "CreatedDate": 1.7e9,
        });
        let kind = [("content-type", "application/x-amz-json-1.1")];
        (StatusCode::OK, kind, answer.to_string()).into_response()
    }
}

fn auth(token: &str, lasting: Duration) -> Value {
    json!({
        "client_token": token, "accessor": "x", "policies": ["default"], "token_policies": ["default"],
        "metadata": {}, "lease_duration": lasting.as_secs(), "renewable": true, "entity_id": "",
        "token_type": "service", "orphan": true,
    })
}
