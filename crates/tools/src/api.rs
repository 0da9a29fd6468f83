//! `api` tools: an HTTP request made from a template and the arguments.

mod request;
mod template;

use std::collections::BTreeSet;

use domain::ToolOutcome;
use domain::definition::{ApiTool, Effect};
use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::Call;
use crate::egress::{Egress, EgressError, Response};
use crate::text::{failed, lost, refused, short, succeeded};
use template::placeholders;

/// How much of a failure's body is told.
const MAX_FAILURE_BODY: usize = 2000;

/// Checks what the arguments do not change, once, before the tool is offered.
pub(crate) fn check(api: &ApiTool) -> Result<(), String> {
    request::origin_of_template(&api.url)?;
    request::check_headers(api)
}

/// The JSON Schema of the arguments: the definition's own, else a text for each placeholder.
pub(crate) fn parameters(api: &ApiTool) -> Value {
    if let Some(schema) = &api.parameters {
        return schema.clone();
    }
    let mut names: BTreeSet<&str> = placeholders(&api.url).collect();
    names.extend(api.headers.values().flat_map(|value| placeholders(value)));
    let mut body_texts = Vec::new();
    if let Some(body) = &api.body {
        template::texts(body, &mut body_texts);
    }
    names.extend(body_texts.into_iter().flat_map(placeholders));
    let properties: Map<String, Value> = names
        .iter()
        .map(|name| ((*name).to_owned(), json!({"type": "string"})))
        .collect();
    json!({"type": "object", "properties": properties, "required": names})
}

/// Makes the request.
pub(crate) async fn call(
    egress: &Egress,
    api: &ApiTool,
    effect: Effect,
    call: &Call<'_>,
) -> ToolOutcome {
    let mut request = match request::build(api, call) {
        Ok(request) => request,
        Err(reason) => return refused(reason),
    };
    let max = call.entry.max_result_bytes;
    request.max_bytes = max.max(MAX_FAILURE_BODY);
    request.reuse = matches!(effect, Effect::ReadOnly | Effect::Idempotent);
    match egress.send(request).await {
        Ok(response) => outcome(&response, effect, max),
        Err(error) => unanswered(&error, effect),
    }
}

fn outcome(response: &Response, effect: Effect, max: usize) -> ToolOutcome {
    let text = response.text();
    if response.status.is_success() {
        return succeeded(text, response.truncated, max);
    }
    let status = response.status;
    let body = short(text.trim(), MAX_FAILURE_BODY);
    let message = match body.as_str() {
        "" => format!("HTTP {status}"),
        body => format!("HTTP {status}: {body}"),
    };
    match status {
        // Here a gateway speaks: what became of the request behind it, it does not know.
        StatusCode::BAD_GATEWAY | StatusCode::GATEWAY_TIMEOUT => lost(effect, message),
        _ => failed(message),
    }
}

fn unanswered(error: &EgressError, effect: Effect) -> ToolOutcome {
    match error {
        EgressError::Refused(_) | EgressError::Unreachable(_) => failed(error.to_string()),
        EgressError::Broken(_) | EgressError::TimedOut => lost(effect, error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use domain::definition::HttpMethod;

    use super::*;

    fn tool(url: &str, headers: &[(&str, &str)]) -> ApiTool {
        ApiTool {
            method: HttpMethod::Get,
            url: url.to_owned(),
            headers: headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect::<BTreeMap<_, _>>(),
            body: Some(json!({"deep": [{"text": "Dear {name},"}], "count": "{count}"})),
            parameters: None,
        }
    }

    #[test]
    fn an_argument_cannot_choose_the_host() {
        for bad in [
            "https://{host}/x",
            "https://api.{zone}.example/x",
            "https://api.example:{port}/x",
            "https://{user}@api.example/x",
            "https://api.example{rest}",
            "{url}",
            "{scheme}://api.example/",
            "https://user:secret@api.example/",
            "ftp://api.example/",
        ] {
            assert!(check(&tool(bad, &[])).is_err(), "{bad}");
        }
        assert_eq!(check(&tool("https://api.example?q={q}#{x}", &[])), Ok(()));
    }

    #[test]
    fn headers_that_make_the_frame_are_not_the_definitions() {
        for bad in [
            "Host",
            "content-length",
            "Transfer-Encoding",
            "connection",
            "no good",
        ] {
            let tool = tool("https://api.example/", &[(bad, "x")]);
            assert!(check(&tool).is_err(), "{bad}");
        }
    }

    #[test]
    fn without_a_schema_each_placeholder_is_a_text() {
        let tool = tool("https://api.example/{id}", &[("X-Who", "{who}")]);
        let schema = parameters(&tool);
        assert_eq!(schema["required"], json!(["count", "id", "name", "who"]));
        assert_eq!(schema["properties"]["id"], json!({"type": "string"}));
    }

    #[test]
    fn a_gateway_does_not_know_what_happened_behind_it() {
        let answer = |status| Response {
            status,
            headers: http::HeaderMap::new(),
            body: b"no".to_vec(),
            truncated: false,
        };
        let of = |status, effect| outcome(&answer(status), effect, 100);
        let unknown = of(StatusCode::GATEWAY_TIMEOUT, Effect::Unsafe);
        assert!(matches!(unknown, ToolOutcome::Unknown { .. }));
        let read = of(StatusCode::GATEWAY_TIMEOUT, Effect::ReadOnly);
        assert!(matches!(read, ToolOutcome::Failed { .. }));
        let own = of(StatusCode::INTERNAL_SERVER_ERROR, Effect::Unsafe);
        assert_eq!(own, failed("HTTP 500 Internal Server Error: no"));
    }
}
