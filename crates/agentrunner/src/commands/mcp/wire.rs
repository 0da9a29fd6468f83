//! What is read off messages on their way, and how refusals are put. Pure.

use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};

const VERSION: HeaderName = HeaderName::from_static("mcp-protocol-version");
const METHOD: HeaderName = HeaderName::from_static("mcp-method");
const NAME: HeaderName = HeaderName::from_static("mcp-name");
pub(super) const SESSION: HeaderName = HeaderName::from_static("mcp-session-id");

/// What was agreed on with the server, by a client that agrees on anything.
#[derive(Debug, Default, Clone)]
pub(super) struct Agreed {
    pub(super) session: Option<String>,
    pub(super) version: Option<String>,
    /// The client's `initialize`, to begin another session when this one has ended.
    pub(super) hello: Option<Value>,
}

pub(super) fn method(message: &Value) -> Option<&str> {
    message.get("method")?.as_str()
}

/// The id of a request, which is to be answered.
pub(super) fn request_id(message: &Value) -> Option<&Value> {
    method(message)?;
    message.get("id").filter(|id| !id.is_null())
}

/// Whether a message answers the request of this id.
pub(super) fn answers(message: &Value, id: &Value) -> bool {
    method(message).is_none() && message.get("id") == Some(id)
}

/// What the protocol wants said in headers, too.
pub(super) fn headers(message: &Value, agreed: &Agreed) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let mut say = |name: HeaderName, text: Option<&str>| {
        if let Some(value) = text.and_then(|text| HeaderValue::from_str(text).ok()) {
            headers.insert(name, value);
        }
    };
    let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str);
    let own = text("/params/_meta/io.modelcontextprotocol~1protocolVersion");
    if own.is_some() {
        // Since 2026-07-28 each request says by itself what it is.
        say(VERSION, own);
        say(METHOD, method(message));
        say(NAME, text("/params/name").or_else(|| text("/params/uri")));
    } else if method(message) != Some("initialize") {
        say(VERSION, agreed.version.as_deref());
        say(SESSION, agreed.session.as_deref());
    }
    headers
}

/// A refusal, as an answer to the request of this id.
pub(super) fn refusal(id: &Value, code: i32, why: &str) -> Value {
    json!({ "jsonrpc": "2.0", "id": id, "error": { "code": code, "message": why } })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_version_gets_the_headers_that_it_wants() {
        let agreed = Agreed {
            session: Some("s".to_owned()),
            version: Some("2025-11-25".to_owned()),
            hello: None,
        };
        let said = |message: Value| {
            let headers = headers(&message, &agreed);
            let text = |name| {
                headers
                    .get(name)
                    .map(|value: &HeaderValue| value.to_str().unwrap().to_owned())
            };
            [VERSION, SESSION, METHOD, NAME].map(text)
        };
        let some = |text: &str| Some(text.to_owned());
        let call = json!({ "id": 1, "method": "tools/call", "params": { "name": "helper" } });
        assert_eq!(said(call), [some("2025-11-25"), some("s"), None, None]);
        let hello = json!({ "id": 1, "method": "initialize", "params": {} });
        assert_eq!(said(hello), [None, None, None, None]);
        let meta = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
        let call = json!({ "id": 1, "method": "tools/call", "params": { "name": "helper", "_meta": meta } });
        assert_eq!(
            said(call),
            [some("2026-07-28"), None, some("tools/call"), some("helper")]
        );
        let odd = json!({ "id": 1, "method": "a\nb", "params": { "_meta": { "io.modelcontextprotocol/protocolVersion": "x\r\ny" } } });
        assert_eq!(said(odd), [None, None, None, None]);
    }

    #[test]
    fn only_requests_are_answered() {
        let id = json!(7);
        assert_eq!(request_id(&json!({ "id": 7, "method": "ping" })), Some(&id));
        assert_eq!(
            request_id(&json!({ "method": "notifications/initialized" })),
            None
        );
        assert_eq!(request_id(&json!({ "id": 7, "result": {} })), None);
        assert!(answers(&json!({ "id": 7, "result": {} }), &id));
        assert!(!answers(&json!({ "id": "7", "result": {} }), &id));
        assert!(!answers(&json!({ "id": 7, "method": "ping" }), &id));
    }
}
