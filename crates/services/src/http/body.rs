//! Bodies, read strictly: bounded, UTF-8, of the right type, not too deep, without unknown fields.

use std::borrow::Cow;
use std::time::Duration;

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, Request, State};
use axum::response::{IntoResponse as _, Response};
use domain::nearest::nearest;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http::{HeaderMap, HeaderName};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::{Answer, ApiError, App, Code};
use crate::redact::Redactor;

/// How deep JSON may be nested.
const MAX_DEPTH: usize = 128;
/// For how long the rest of a refused body is taken in.
const LINGER: Duration = Duration::from_secs(2);

/// A body that a route takes.
pub trait Payload: DeserializeOwned {
    /// The code for one that does not fit.
    const INVALID: Code = Code::InvalidRequest;
}

/// A JSON body.
#[derive(Debug)]
pub struct JsonBody<T> {
    /// What it says.
    pub value: T,
    /// A hash of the path and the bytes, to tell whether a repeated request is the same.
    pub hash: String,
}

impl<T: Payload> FromRequest<App> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Answer<Self> {
        let path = request.uri().path().to_owned();
        expect_type(request.headers(), &["application/json"], true)?;
        let bytes = read(request, app).await?;
        let value = parse_json(utf8(&bytes)?)?;
        let hash = hash(&path, &bytes);
        Ok(Self { value, hash })
    }
}

/// A JSON body that may be left out.
#[derive(Debug)]
pub struct OptionalBody<T>(pub JsonBody<T>);

impl<T: Payload + Default> FromRequest<App> for OptionalBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Answer<Self> {
        let headers = request.headers();
        let length = headers.get(CONTENT_LENGTH);
        let is_empty = length.map_or_else(
            || !headers.contains_key(http::header::TRANSFER_ENCODING),
            |length| length == "0",
        );
        if !is_empty {
            let JsonBody { value, hash } = JsonBody::from_request(request, app).await?;
            let OrNothing(value) = value;
            return Ok(Self(JsonBody { value, hash }));
        }
        Ok(Self(JsonBody {
            value: T::default(),
            hash: hash(request.uri().path(), b""),
        }))
    }
}

/// JSON's word for nothing is nothing, too.
#[derive(Debug)]
struct OrNothing<T>(T);

impl<'de, T: Payload + Default> serde::Deserialize<'de> for OrNothing<T> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Option::<T>::deserialize(deserializer).map(|value| Self(value.unwrap_or_default()))
    }
}

impl<T: Payload + Default> Payload for OrNothing<T> {
    const INVALID: Code = T::INVALID;
}

fn hash(path: &str, bytes: &[u8]) -> String {
    let mut hash = Sha256::new();
    hash.update(path.as_bytes());
    hash.update([0]);
    hash.update(bytes);
    let hash = hash.finalize();
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A body that is a text: YAML, or JSON.
#[derive(Debug)]
pub struct TextBody(pub String);

impl FromRequest<App> for TextBody {
    type Rejection = ApiError;

    async fn from_request(request: Request, app: &App) -> Answer<Self> {
        const TYPES: [&str; 6] = [
            "application/yaml",
            "application/x-yaml",
            "text/yaml",
            "text/x-yaml",
            "text/plain",
            "application/json",
        ];
        expect_type(request.headers(), &TYPES, false)?;
        let bytes = read(request, app).await?;
        utf8(&bytes).map(|text| Self(text.to_owned()))
    }
}

fn expect_type(headers: &HeaderMap, types: &[&str], suffix: bool) -> Answer<()> {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(encoding) = text(CONTENT_ENCODING).filter(|encoding| *encoding != "identity") {
        let message = format!("Content-Encoding {encoding:?} is not taken; send the body as it is");
        return Err(ApiError::new(Code::UnsupportedMediaType, message));
    }
    let given = text(CONTENT_TYPE).unwrap_or_default();
    let essence = given
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    let matches_suffix =
        suffix && essence.starts_with("application/") && essence.ends_with("+json");
    if types.contains(&essence.as_str()) || matches_suffix {
        return Ok(());
    }
    let what = if given.is_empty() {
        "the Content-Type is missing".to_owned()
    } else {
        format!("Content-Type {given:?} is not taken here")
    };
    let first = types.first().copied().unwrap_or_default();
    let message = format!("{what}; send Content-Type: {first}");
    Err(ApiError::new(Code::UnsupportedMediaType, message))
}

/// The whole body. A known secret in it is taken out here, so that it is neither journaled nor shown to a model.
async fn read(request: Request, app: &App) -> Answer<bytes::Bytes> {
    let bytes = read_bounded(request, app.settings.max_body_bytes).await?;
    Ok(match app.redactor.mask_bytes(&bytes) {
        Cow::Owned(masked) => masked.into(),
        Cow::Borrowed(_) => bytes,
    })
}

/// An answer without known secrets.
pub(crate) async fn masked(State(redactor): State<Redactor>, response: Response) -> Response {
    let (mut head, body) = response.into_parts();
    let mask = move |bytes: bytes::Bytes| match redactor.mask_bytes(&bytes) {
        Cow::Owned(masked) => (bytes::Bytes::from(masked), true),
        Cow::Borrowed(_) => (bytes, false),
    };
    // One in one piece stays in one piece, of a known length; of a stream, each event is a piece.
    let whole = body.size_hint().exact();
    let Some(length) = whole.and_then(|length| usize::try_from(length).ok()) else {
        let body = body.map_frame(move |frame| frame.map_data(|bytes| mask(bytes).0));
        return Response::from_parts(head, Body::new(body));
    };
    let Ok(bytes) = axum::body::to_bytes(body, length).await else {
        return ApiError::internal().into_response();
    };
    let (bytes, is_changed) = mask(bytes);
    if is_changed {
        head.headers.remove(CONTENT_LENGTH);
    }
    Response::from_parts(head, bytes.into())
}

/// The body as it came, which a signature is of; at most so many bytes.
pub(crate) async fn read_bounded(request: Request, limit: usize) -> Answer<bytes::Bytes> {
    let too_large = || {
        let message =
            format!("the body is larger than {limit} bytes; send less, or raise MAX_BODY_BYTES");
        ApiError::new(Code::PayloadTooLarge, message).with("limit_bytes", limit)
    };
    let announced = request.headers().get(CONTENT_LENGTH);
    let announced = announced.and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    let mut body: Body = request.into_body();
    if announced.is_some_and(|length| length > limit) {
        see_off(body);
        return Err(too_large());
    }
    let broken = |_| {
        let message = "the body broke off; send the request again";
        ApiError::new(Code::InvalidRequest, message)
    };
    let mut bytes = bytes::BytesMut::new();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(broken)?.into_data() else {
            continue;
        };
        if data.len() > limit.saturating_sub(bytes.len()) {
            see_off(body);
            return Err(too_large());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// Takes in what still comes of a body that was refused, for a while, and keeps nothing of it. A connection that is closed
/// with bytes unread is reset, and then the answer is lost to most clients, who write to the end before they read.
fn see_off(mut body: Body) {
    tokio::spawn(async move {
        let rest = async { while let Some(Ok(_)) = body.frame().await {} };
        let _is_over = tokio::time::timeout(LINGER, rest).await;
    });
}

fn utf8(bytes: &[u8]) -> Answer<&str> {
    std::str::from_utf8(bytes).map_err(|error| {
        let message = format!(
            "byte {} of the body is not UTF-8; send UTF-8",
            error.valid_up_to()
        );
        ApiError::new(Code::InvalidRequest, message)
    })
}

/// Reads JSON.
///
/// # Errors
/// It is too deep, not JSON, or does not fit; with the place and the field.
pub(crate) fn parse_json<T: Payload>(text: &str) -> Answer<T> {
    if let Some(offset) = too_deep(text) {
        let message =
            format!("at byte {offset} the JSON is nested more than {MAX_DEPTH} deep; flatten it");
        return Err(ApiError::new(Code::InvalidRequest, message));
    }
    if text.trim().is_empty() {
        return Err(ApiError::new(
            Code::InvalidRequest,
            "the body is empty; send a JSON object",
        ));
    }
    // A list would fill the fields of an object in their order.
    if text.trim_start().starts_with('[') {
        return Err(ApiError::new(
            T::INVALID,
            "the body is a list; send a JSON object",
        ));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut reader);
    let error = match value {
        Ok(value) => match reader.end() {
            Ok(()) => return Ok(value),
            Err(error) => return Err(not_json(&error)),
        },
        Err(error) => error,
    };
    let path = match error.path().to_string() {
        root if root == "." => String::new(),
        path => path,
    };
    let inner = error.into_inner();
    if inner.classify() != serde_json::error::Category::Data {
        return Err(not_json(&inner));
    }
    let (line, column) = (inner.line(), inner.column());
    let text = inner.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    let (message, hint) = explain(text);
    let field = match unknown_field(text) {
        Some(field) if path.is_empty() => field.to_owned(),
        Some(field) if !path.ends_with(field) => format!("{path}.{field}"),
        _ => path,
    };
    let mut whole = if field.is_empty() {
        message.clone()
    } else {
        format!("{field}: {message}")
    };
    if !hint.is_empty() {
        whole = format!("{whole}; {hint}");
    }
    Err(ApiError::new(T::INVALID, whole)
        .with_field(&field, &message, &hint)
        .with("line", line)
        .with("column", column))
}

fn not_json(error: &serde_json::Error) -> ApiError {
    let (line, column) = (error.line(), error.column());
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or_default();
    let message = format!("the body is not valid JSON: {text} at line {line}, column {column}");
    ApiError::new(Code::InvalidRequest, message)
        .with("line", line)
        .with("column", column)
}

/// What serde says, for people: an unknown field or word gets the nearest known one.
pub(crate) fn explain(text: &str) -> (String, String) {
    let mut quoted = text.split('`').skip(1).step_by(2);
    let is_unknown = text.starts_with("unknown field") || text.starts_with("unknown variant");
    let Some(given) = quoted.next().filter(|_| is_unknown) else {
        return (text.to_owned(), String::new());
    };
    let known: Vec<&str> = quoted.collect();
    let hint = match nearest(given, known.iter().copied()) {
        Some(name) => format!("did you mean {name}? Known here: {}", known.join(", ")),
        None if known.is_empty() => "nothing is known here".to_owned(),
        None => format!("known here: {}", known.join(", ")),
    };
    let message = if text.starts_with("unknown field") {
        "unknown field".to_owned()
    } else {
        format!("{given:?} is not known here")
    };
    (message, hint)
}

fn unknown_field(text: &str) -> Option<&str> {
    text.strip_prefix("unknown field `")?.split('`').next()
}

/// Where brackets are nested too deep; looked at before parsing, so that no parser's stack is at stake.
fn too_deep(text: &str) -> Option<usize> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for (offset, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                depth += 1;
                if depth > MAX_DEPTH {
                    return Some(offset);
                }
            }
            b']' | b'}' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;
    use serde_json::Value;

    use super::*;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Outer {
        #[expect(dead_code, reason = "only read")]
        inner: Option<Inner>,
        #[serde(default)]
        any: Value,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[expect(dead_code, reason = "only read")]
        max_tokens: u32,
    }

    impl Payload for Outer {}

    fn error(text: &str) -> ApiError {
        parse_json::<Outer>(text).expect_err(text)
    }

    #[test]
    fn mistakes_are_named_with_their_field() {
        let unknown = error(r#"{"inner": {"max_token": 1}}"#);
        assert_eq!(
            unknown.message,
            "inner.max_token: unknown field; did you mean max_tokens? Known here: max_tokens"
        );
        assert_eq!(unknown.details["fields"][0]["field"], "inner.max_token");
        let wrong = error("{\"inner\":\n {\"max_tokens\": \"x\"}}");
        assert!(
            wrong.message.starts_with("inner.max_tokens: invalid type"),
            "{}",
            wrong.message
        );
        assert_eq!(wrong.details["line"], 2);
    }

    #[test]
    fn what_is_not_json_has_a_place() {
        for text in [
            "{",
            "{]",
            "{} {}",
            "",
            "{\"any\": \"\\ud800\"}",
            "{\"any\": 1e999999}",
            " [{\"max_tokens\": 1}]",
        ] {
            let error = error(text);
            assert_eq!(error.code, Code::InvalidRequest, "{text}");
        }
        assert!(error("{\n  x").message.ends_with("at line 2, column 3"));
    }

    #[test]
    fn depth_is_bounded_before_parsing() {
        let deep = |n: usize| format!("{{\"any\": {}{}}}", "[".repeat(n), "]".repeat(n));
        assert!(parse_json::<Outer>(&deep(120)).is_ok());
        assert!(
            error(&deep(100_000))
                .message
                .contains("nested more than 128")
        );
        let brackets = format!("{{\"any\": \"{}\\\"[\"}}", "[".repeat(500));
        assert!(parse_json::<Outer>(&brackets).unwrap().any.is_string());
    }
}
