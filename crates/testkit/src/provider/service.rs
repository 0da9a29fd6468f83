//! The routes of the provider: receive, record, check, hold, answer.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Query, State};
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, ErrorKind, ProviderError};
use super::face::{Arrived, Face, Headers};
use super::faults::{Frames, Transport};
use super::record::Recorded;
use super::request::Request;
use super::script::Script;
use super::{anthropic, bedrock, ollama, openai};
use crate::barrier::Barrier;
use crate::control::{self, Patience};
use crate::log::{Fate, Log};
use crate::server::Link;

/// The largest request that is read, in bytes.
const MAX_BODY: usize = 256 << 20;

type Behaviour = Arc<dyn Fn(&Request) -> Answer + Send + Sync>;

/// What the routes share.
#[derive(Clone)]
pub(super) struct Service(Arc<Shared>);

struct Shared {
    behaviour: Mutex<Behaviour>,
    models: Mutex<Vec<String>>,
    log: Arc<Log<Recorded>>,
    arrivals: AtomicUsize,
    barrier: Barrier,
}

impl fmt::Debug for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Service")
            .field("requests", &self.0.log.look(<[_]>::len))
            .finish()
    }
}

impl Service {
    pub(super) fn new(behaviour: impl Fn(&Request) -> Answer + Send + Sync + 'static) -> Self {
        let models = ["gpt-4o-mini", "claude-sonnet-5", "llama3.2:latest"];
        Self(Arc::new(Shared {
            behaviour: Mutex::new(Arc::new(behaviour)),
            models: Mutex::new(models.map(String::from).to_vec()),
            log: Arc::default(),
            arrivals: AtomicUsize::new(0),
            barrier: Barrier::default(),
        }))
    }

    pub(super) fn behave(&self, behaviour: impl Fn(&Request) -> Answer + Send + Sync + 'static) {
        *self.0.behaviour.lock().expect("no holder panics") = Arc::new(behaviour);
    }

    pub(super) fn list_models(&self, names: Vec<String>) {
        *self.0.models.lock().expect("no holder panics") = names;
    }

    pub(super) fn log(&self) -> &Log<Recorded> {
        &self.0.log
    }

    pub(super) fn barrier(&self) -> &Barrier {
        &self.0.barrier
    }

    pub(super) fn router(&self) -> Router {
        Router::new()
            .route("/v1/chat/completions", post(openai_chat))
            .route("/v1/messages", post(anthropic_messages))
            .route("/v1/models", get(list_models))
            .route("/api/chat", post(ollama_chat))
            .route("/api/tags", get(list_tags))
            .route("/model/{id}/converse", post(bedrock_converse))
            .route("/model/{id}/converse-stream", post(bedrock_converse))
            .route("/foundation-models", get(list_foundation_models))
            .route("/api/version", get(version))
            .route("/", get("Ollama is running"))
            .route("/_control/requests", get(recorded).delete(forget))
            .route("/_control/script", post(replace_script))
            .fallback(no_route)
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .with_state(self.clone())
            .merge(control::routes(self.0.barrier.clone()))
    }

    async fn chat(
        self,
        face: Face,
        link: Link,
        uri: &Uri,
        headers: &HeaderMap,
        body: Bytes,
    ) -> Response {
        let (request, refused) = self.receive(face, uri, headers, &body);
        let ticket = request.ticket();
        let mut transport = Transport {
            barrier: self.0.barrier.clone(),
            ticket: ticket.clone().with("point", "mid_stream"),
            link,
            fate: Fate::of(self.0.log.clone(), request.number),
        };
        let answer = match refused {
            Ok(()) => {
                let behaviour = self.0.behaviour.lock().expect("no holder panics").clone();
                let answer = behaviour(&request);
                let ticket = ticket.with("point", "before_answer");
                self.0.barrier.pass(&ticket).await;
                transport.before(&answer.delivery).await;
                answer
            }
            Err(error) => Answer {
                error: Some(error),
                ..Answer::default()
            },
        };
        let response = deliver(&request, answer, transport);
        let status = response.status().as_u16();
        let is_it = |entry: &Recorded| entry.request.number == request.number;
        self.0.log.amend(is_it, |entry| entry.status = Some(status));
        response
    }

    /// Records a request and checks it as the real provider would.
    fn receive(
        &self,
        face: Face,
        uri: &Uri,
        headers: &HeaderMap,
        body: &[u8],
    ) -> (Request, Result<(), ProviderError>) {
        let (headers, raw) = (plain(headers), serde_json::from_slice(body));
        let arrived = Arrived {
            method: "POST",
            path: uri.path(),
            headers: &headers,
            body,
            raw: &raw.unwrap_or(Value::Null),
        };
        self.0.log.append(|earlier| {
            let number = self.0.arrivals.fetch_add(1, Ordering::Relaxed) + 1;
            let mut recorded = Recorded::read(number, face, &arrived, earlier);
            let request = recorded.request.clone();
            let refused = face.dialect().check(&arrived);
            let reason = |error: &ProviderError| error.message.clone().unwrap_or_default();
            recorded.rejected = refused.as_ref().err().map(reason);
            (recorded, (request, refused))
        })
    }
}

/// Puts an answer on the wire.
fn deliver(request: &Request, answer: Answer, transport: Transport<Recorded>) -> Response {
    let dialect = request.face.dialect();
    let (status, content_type, frames) = match (&answer.raw, &answer.error) {
        (Some(raw), _) => {
            let status = StatusCode::from_u16(raw.status).expect("a status of three digits");
            (
                status,
                raw.content_type.clone(),
                Frames::whole(raw.body.clone()),
            )
        }
        (None, Some(error)) => {
            let (status, body) = dialect.error(request.number, error);
            (
                status,
                "application/json".to_owned(),
                Frames::whole(body.to_string()),
            )
        }
        (None, None) if request.stream => (
            StatusCode::OK,
            dialect.stream_type().to_owned(),
            dialect.frames(request, &answer),
        ),
        (None, None) => {
            let whole = dialect.whole(request, &answer).to_string();
            (
                StatusCode::OK,
                "application/json".to_owned(),
                Frames::whole(whole),
            )
        }
    };
    let mut response = Response::builder()
        .status(status)
        .header("content-type", content_type);
    for (name, value) in dialect.headers(request.number) {
        response = response.header(name, value);
    }
    for (name, value) in answer.error.iter().flat_map(|e| dialect.error_headers(e)) {
        response = response.header(name, value);
    }
    for (name, value) in &answer.headers {
        response = response.header(name, value);
    }
    let body = transport.send(frames, answer.delivery, |error| dialect.error_event(error));
    response.body(body).expect("headers that are valid")
}

fn plain(headers: &HeaderMap) -> Headers {
    let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
    headers
        .iter()
        .map(|(name, value)| (name.as_str().to_owned(), text(value)))
        .collect()
}

async fn openai_chat(
    State(service): State<Service>,
    ConnectInfo(link): ConnectInfo<Link>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    service.chat(Face::Openai, link, &uri, &headers, body).await
}

async fn anthropic_messages(
    State(service): State<Service>,
    ConnectInfo(link): ConnectInfo<Link>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    service
        .chat(Face::Anthropic, link, &uri, &headers, body)
        .await
}

async fn ollama_chat(
    State(service): State<Service>,
    ConnectInfo(link): ConnectInfo<Link>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    service.chat(Face::Ollama, link, &uri, &headers, body).await
}

async fn bedrock_converse(
    State(service): State<Service>,
    ConnectInfo(link): ConnectInfo<Link>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    service
        .chat(Face::Bedrock, link, &uri, &headers, body)
        .await
}

/// A request of AWS's service that manages models.
async fn list_foundation_models(
    State(service): State<Service>,
    uri: Uri,
    headers: HeaderMap,
) -> Response {
    let arrived = Arrived {
        method: "GET",
        path: uri.path(),
        headers: &plain(&headers),
        body: &[],
        raw: &Value::Null,
    };
    if let Err(error) = bedrock::may_list(&arrived) {
        let (status, body) = Face::Bedrock.dialect().error(0, &error);
        return (status, Json(body)).into_response();
    }
    let names = service.0.models.lock().expect("no holder panics").clone();
    Json(bedrock::models(&names)).into_response()
}

/// Both OpenAI and Anthropic have this route; only Anthropic's clients send a version.
async fn list_models(State(service): State<Service>, headers: HeaderMap) -> Response {
    let names = service.0.models.lock().expect("no holder panics").clone();
    let is_anthropic = headers.contains_key("anthropic-version");
    if !is_anthropic && !headers.contains_key("authorization") {
        let error = ProviderError::new(ErrorKind::Unauthorized, "You didn't provide an API key.");
        let (status, body) = Face::Openai.dialect().error(0, &error);
        return (status, Json(body)).into_response();
    }
    let models = if is_anthropic {
        anthropic::models(&names)
    } else {
        openai::models(&names)
    };
    Json(models).into_response()
}

async fn list_tags(State(service): State<Service>) -> Json<Value> {
    Json(ollama::tags(
        &service.0.models.lock().expect("no holder panics"),
    ))
}

async fn version() -> Json<Value> {
    Json(json!({"version": "0.12.6"}))
}

async fn no_route(request: axum::extract::Request) -> Response {
    let message = format!(
        "Invalid URL ({} {})",
        request.method(),
        request.uri().path()
    );
    let (_, body) = Face::Openai
        .dialect()
        .error(0, &ProviderError::invalid(message));
    (StatusCode::NOT_FOUND, Json(body)).into_response()
}

/// Answers the recorded requests; with `n` and `wait`, as soon as there are `n` of them.
async fn recorded(State(service): State<Service>, Query(patience): Query<Patience>) -> Response {
    let log = service.log();
    let wanted = patience.count();
    patience
        .wait(log.wait_until(|all| all.len() >= wanted))
        .await;
    Json(log.all()).into_response()
}

async fn forget(State(service): State<Service>) -> StatusCode {
    service.log().clear();
    StatusCode::NO_CONTENT
}

async fn replace_script(State(service): State<Service>, text: String) -> Response {
    match Script::parse(&text) {
        Ok(script) => {
            if !script.models.is_empty() {
                service.list_models(script.models.clone());
            }
            service.behave(script.into_behaviour());
            StatusCode::NO_CONTENT.into_response()
        }
        Err(reason) => (StatusCode::BAD_REQUEST, Body::from(reason)).into_response(),
    }
}
