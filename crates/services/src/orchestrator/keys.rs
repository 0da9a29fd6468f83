//! Keys of the API: made, shown once, listed, revoked.

use std::collections::BTreeSet;

use axum::Json;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use domain::access::{ApiKey, Grants, KeyHash, KeyId, MAX_NAME, Scope, key};
use domain::{AgentName, Time};
use http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use serde::{Deserialize, Serialize};
use store::KeyFilter;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

use crate::http::body::{JsonBody, Payload};
use crate::http::caller::Caller;
use crate::http::error::ErrorBody;
use crate::http::idempotency::idempotency_key;
use crate::http::page::{Listed, MAX_LIMIT, cursor, next_address, page};
use crate::http::params::Params;
use crate::http::{Answer, ApiError, App, Code};

/// A key to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct KeyIn {
    /// What it is for, for people.
    #[schema(example = "ci")]
    name: String,
    /// What it allows: read, submit, operate, admin.
    #[schema(value_type = Vec<String>, example = json!(["read", "submit"]))]
    scopes: Vec<String>,
    /// The agents that it is limited to; all when it is left out.
    #[serde(default)]
    #[schema(example = json!(["incident-writer"]))]
    agents: Option<Vec<String>>,
    /// From when on it is worth nothing (RFC 3339); never when it is left out.
    #[serde(default)]
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Time>,
}

impl Payload for KeyIn {}

/// A key as it stands, without the key.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct KeyOut {
    /// Names it, for revoking.
    #[schema(value_type = String, format = Uuid)]
    id: KeyId,
    /// What it is for.
    name: String,
    /// How it begins.
    #[schema(example = "ar_1f2e3d…")]
    hint: String,
    /// active, expired or revoked.
    status: &'static str,
    /// What it allows.
    #[schema(value_type = Vec<String>)]
    scopes: BTreeSet<Scope>,
    /// The agents that it is limited to; null for all.
    #[schema(value_type = Option<Vec<String>>)]
    agents: Option<BTreeSet<AgentName>>,
    /// When it was made.
    #[schema(value_type = String, format = DateTime)]
    created_at: Time,
    /// By whom.
    created_by: String,
    /// From when on it is worth nothing.
    #[schema(value_type = Option<String>, format = DateTime)]
    expires_at: Option<Time>,
    /// When it was last used, to the minute or so.
    #[schema(value_type = Option<String>, format = DateTime)]
    last_used_at: Option<Time>,
    /// When it was revoked.
    #[schema(value_type = Option<String>, format = DateTime)]
    revoked_at: Option<Time>,
    /// By whom.
    revoked_by: Option<String>,
}

impl KeyOut {
    fn new(key: ApiKey, now: Time) -> Self {
        Self {
            status: key.status(now).as_str(),
            id: key.id,
            name: key.name,
            hint: key.hint,
            scopes: key.grants.scopes,
            agents: key.grants.agents,
            created_at: key.created_at,
            created_by: key.created_by,
            expires_at: key.expires_at,
            last_used_at: key.last_used_at,
            revoked_at: key.revoked_at,
            revoked_by: key.revoked_by,
        }
    }
}

/// A key that was made.
#[derive(Debug, Serialize, ToSchema)]
struct MadeOut {
    /// The key itself. It is shown now and never again.
    #[schema(example = "ar_1f2e3d…")]
    key: String,
    #[serde(flatten)]
    made: KeyOut,
}

/// Makes a key. The answer is the only place where it is ever shown.
///
/// With an `Idempotency-Key`, a repeated request makes no second key; what was shown once can't be shown again, so it is
/// answered 409 with the id of the first, to revoke it.
#[utoipa::path(post, path = "/keys", tag = "keys",
    params(("Idempotency-Key" = Option<String>, Header, description = "Makes repeating the request harmless.")),
    request_body = KeyIn,
    responses(
        (status = 201, description = "It is made, and may be used at once.", body = MadeOut),
        (status = 400, body = ErrorBody),
        (status = 409, description = "A request with this idempotency key made one before (`details.id`).", body = ErrorBody),
    ))]
pub(super) async fn create(
    State(app): State<App>,
    caller: Caller,
    headers: HeaderMap,
    body: JsonBody<KeyIn>,
) -> Answer<Response> {
    let now = app.engine.now();
    let id = match idempotency_key(&headers)? {
        Some(key) => Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("keys {key}").as_bytes()),
        None => Uuid::now_v7(),
    };
    let id = KeyId::from_uuid(id);
    let (name, grants, expires_at) = read(body.value, now)?;
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| {
        tracing::error!(%error, "the system gives no random numbers");
        ApiError::internal()
    })?;
    let text = key::mint(random);
    let made = ApiKey {
        id,
        name,
        hash: KeyHash::of(&text),
        hint: key::hint(&text),
        grants,
        created_at: now,
        created_by: caller.name().to_owned(),
        expires_at,
        last_used_at: None,
        revoked_at: None,
        revoked_by: None,
    };
    if !app.engine.store().add_key(made.clone()).await? {
        let message = format!(
            "this request made a key before, which was shown then and can't be shown again; \
             revoke it by DELETE /keys/{id}, and make another under another Idempotency-Key"
        );
        return Err(ApiError::new(Code::StateConflict, message).with("id", id.to_string()));
    }
    caller.note("key", id.to_string());
    caller.note("name", made.name.as_str());
    app.access.changed().await;
    let out = MadeOut {
        key: text,
        made: KeyOut::new(made, now),
    };
    let mut response = (StatusCode::CREATED, Json(out)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if let Ok(location) = HeaderValue::try_from(format!("/keys/{id}")) {
        headers.insert(header::LOCATION, location);
    }
    Ok(response)
}

/// What is asked for, if it makes sense.
fn read(given: KeyIn, now: Time) -> Answer<(String, Grants, Option<Time>)> {
    let name = given.name.trim().to_owned();
    if name.is_empty() || name.chars().count() > MAX_NAME || name.chars().any(char::is_control) {
        let why = format!("it is 1 to {MAX_NAME} characters that can be printed");
        return Err(invalid("name", &why));
    }
    let scopes = given.scopes.iter().map(|scope| scope.parse());
    let scopes: Result<BTreeSet<Scope>, String> = scopes.collect();
    let scopes = scopes.map_err(|why| invalid("scopes", &why))?;
    let agents = given.agents.map(|names| {
        let names = names.iter().map(|name| name.parse());
        names.collect::<Result<BTreeSet<AgentName>, _>>()
    });
    let agents = agents
        .transpose()
        .map_err(|error| invalid("agents", &error.to_string()))?;
    if given.expires_at.is_some_and(|end| end <= now) {
        return Err(invalid("expires_at", "it lies in the past"));
    }
    let grants = Grants::new(scopes, agents).map_err(|bad| invalid(bad.field, &bad.message))?;
    Ok((name, grants, given.expires_at))
}

fn invalid(field: &str, why: &str) -> ApiError {
    ApiError::new(Code::InvalidRequest, format!("{field}: {why}")).with_field(field, why, "")
}

/// Which keys; all of them when nothing is said.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(super) struct ListParams {
    /// Only those that may be used now.
    active: Option<bool>,
    /// How many at most: 1 to 1000, 100 when nothing is said.
    limit: Option<usize>,
    /// Where to go on: from the `Link` header of the answer before.
    cursor: Option<String>,
}

/// Lists keys, newest first; the keys themselves are not known here.
#[utoipa::path(get, path = "/keys", tag = "keys", params(ListParams), responses(
    (status = 200, body = Vec<KeyOut>),
    (status = 400, body = ErrorBody),
))]
pub(super) async fn list(
    State(app): State<App>,
    Params(params): Params<ListParams>,
    uri: Uri,
) -> Answer<Response> {
    let now = app.engine.now();
    let page = page(params.limit, params.cursor.as_deref())?;
    let limit = page.limit;
    let active_at = params.active.filter(|active| *active).map(|_| now);
    let filter = KeyFilter { active_at, page };
    let keys = app.engine.store().keys(filter).await?;
    let last = keys.last().filter(|_| keys.len() == limit);
    let next = last.map(|key| next_address(&uri, &cursor(key.created_at, &key.id.to_string())));
    let items: Vec<KeyOut> = keys.into_iter().map(|key| KeyOut::new(key, now)).collect();
    Ok(Listed::new(items, next, None).into_response())
}

/// Shows a key as it stands; the key itself is not known here.
#[utoipa::path(get, path = "/keys/{id}", tag = "keys", params(("id" = String, Path)), responses(
    (status = 200, body = KeyOut),
    (status = 404, body = ErrorBody),
))]
pub(super) async fn show(State(app): State<App>, Path(id): Path<String>) -> Answer<Json<KeyOut>> {
    let wanted: KeyId = id.parse().map_err(|_| no_key(&id))?;
    let mut after = None;
    loop {
        let page = store::Page {
            limit: MAX_LIMIT,
            after,
        };
        let active_at = None;
        let keys = app
            .engine
            .store()
            .keys(KeyFilter { active_at, page })
            .await?;
        let is_last = keys.len() < MAX_LIMIT;
        after = keys.last().map(|key| (key.created_at, key.id.to_string()));
        match keys.into_iter().find(|key| key.id == wanted) {
            Some(key) => return Ok(Json(KeyOut::new(key, app.engine.now()))),
            None if is_last => return Err(no_key(&id)),
            None => {}
        }
    }
}

/// Revokes a key: here at once, in every other process within five seconds. Streams that it opened end.
#[utoipa::path(delete, path = "/keys/{id}", tag = "keys", params(("id" = String, Path)), responses(
    (status = 204, description = "It is revoked; perhaps it was before."),
    (status = 404, body = ErrorBody),
))]
pub(super) async fn revoke(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
) -> Answer<StatusCode> {
    let wanted: KeyId = id.parse().map_err(|_| no_key(&id))?;
    let (store, now) = (app.engine.store(), app.engine.now());
    if !store.revoke_key(wanted, caller.name(), now).await? {
        return Err(no_key(&id));
    }
    app.access.changed().await;
    Ok(StatusCode::NO_CONTENT)
}

fn no_key(id: &str) -> ApiError {
    let shown: String = id.chars().take(80).collect();
    let message = format!("there is no key {shown:?}; GET /keys lists them");
    ApiError::new(Code::NotFound, message)
}
