//! From a template and arguments to a request.

use bytes::Bytes;
use domain::definition::{ApiTool, HttpMethod};
use http::header::{ACCEPT, CONTENT_TYPE};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use serde_json::{Map, Value};
use url::{Url, form_urlencoded};

use super::template::{Arguments, as_text, fill, fill_json, placeholders};
use crate::Call;
use crate::egress::{Origin, Request};

/// Headers that the HTTP client writes itself.
const FRAME: [&str; 6] = [
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "te",
];

/// Builds the request of a call.
///
/// # Errors
/// Why the arguments do not make a request.
pub(super) fn build<'a>(api: &ApiTool, call: &Call<'a>) -> Result<Request<'a>, String> {
    let none = Map::new();
    let values = call.arguments.as_object().unwrap_or(&none);
    let mut arguments = Arguments::new(values);
    let written = origin_of_template(&api.url)?;
    let mut url = address(&api.url, &mut arguments)?;
    if Origin::of(&url).as_ref() != Some(&written) {
        return Err("the arguments change the host".to_owned());
    }
    let mut headers = headers(api, call, &mut arguments)?;
    let body = match &api.body {
        Some(body) => fill_json(body, &mut arguments),
        None => match api.method {
            HttpMethod::Get | HttpMethod::Delete => {
                query(&mut url, &arguments);
                None
            }
            HttpMethod::Post | HttpMethod::Put | HttpMethod::Patch => Some(rest(&arguments)),
        },
    };
    if body.is_some() {
        headers
            .entry(CONTENT_TYPE)
            .or_insert(HeaderValue::from_static("application/json"));
    }
    Ok(Request {
        method: method(api.method),
        url,
        headers,
        body: body.map(|body| Bytes::from(body.to_string())),
        written: Some(written),
        hosts: &[],
        timeout: call.timeout,
        max_bytes: call.entry.max_result_bytes,
        reuse: false,
    })
}

/// The host and port that a template names, which no argument may change.
///
/// # Errors
/// The template is no http address, or has a placeholder before its path.
pub(super) fn origin_of_template(template: &str) -> Result<Origin, String> {
    let (front, _) = split(template);
    if placeholders(front).next().is_some() {
        return Err(format!(
            "url: {front} has a placeholder before the path; an argument must not choose the host"
        ));
    }
    let url: Url = front
        .parse()
        .map_err(|error| format!("url: {front} is not an address: {error}"))?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err("url: it begins with http:// or https://".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("url: put credentials into headers, not into the address".to_owned());
    }
    Origin::of(&url).ok_or_else(|| "url: it has no host".to_owned())
}

/// Checks the headers' names.
///
/// # Errors
/// One is no name, or is not the definition's to set.
pub(super) fn check_headers(api: &ApiTool) -> Result<(), String> {
    for name in api.headers.keys() {
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("headers: {name:?} is not the name of a header"))?;
        if FRAME.contains(&parsed.as_str()) {
            return Err(format!("headers: {name} is set by the HTTP client"));
        }
    }
    Ok(())
}

const fn method(method: HttpMethod) -> Method {
    match method {
        HttpMethod::Get => Method::GET,
        HttpMethod::Post => Method::POST,
        HttpMethod::Put => Method::PUT,
        HttpMethod::Patch => Method::PATCH,
        HttpMethod::Delete => Method::DELETE,
    }
}

/// Scheme and authority, and what comes after.
fn split(template: &str) -> (&str, &str) {
    let authority = template.find("://").map_or(0, |at| at + 3);
    let after = template.get(authority..).unwrap_or_default();
    let end = after
        .find(['/', '?', '#', '\\'])
        .map_or(template.len(), |at| authority + at);
    template.split_at_checked(end).unwrap_or((template, ""))
}

fn address(template: &str, arguments: &mut Arguments<'_>) -> Result<Url, String> {
    let (front, rest) = split(template);
    let (rest, _fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    let mut out = front.to_owned();
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            out.push('/');
        }
        out.push_str(&path_segment(segment, arguments)?);
    }
    // A parameter whose argument is absent is left out.
    let pairs: Vec<String> = query
        .into_iter()
        .flat_map(|query| query.split('&'))
        .filter_map(|pair| fill(pair, arguments, encode))
        .collect();
    if !pairs.is_empty() {
        out.push('?');
        out.push_str(&pairs.join("&"));
    }
    out.parse()
        .map_err(|error| format!("the arguments do not make an address: {error}"))
}

/// One segment of a path. An argument stays inside its segment: it must not be empty, and the segment must not become
/// `.` or `..`, which would name another resource.
fn path_segment(template: &str, arguments: &mut Arguments<'_>) -> Result<String, String> {
    let mut names = placeholders(template).peekable();
    if names.peek().is_none() {
        return Ok(template.to_owned());
    }
    for name in names {
        if arguments.text(name).is_none_or(|text| text.is_empty()) {
            return Err(format!("the argument {name:?} is needed for the address"));
        }
    }
    let filled = fill(template, arguments, encode).unwrap_or_default();
    let dots = filled.replace("%2e", ".").replace("%2E", ".");
    if dots == "." || dots == ".." {
        return Err(format!("the arguments make {dots:?} a part of the path"));
    }
    Ok(filled)
}

fn headers(
    api: &ApiTool,
    call: &Call<'_>,
    arguments: &mut Arguments<'_>,
) -> Result<HeaderMap, String> {
    let mut headers = HeaderMap::new();
    for (name, template) in &api.headers {
        let Some(text) = fill(template, arguments, str::to_owned) else {
            continue;
        };
        let parsed = HeaderName::from_bytes(name.as_bytes())
            .map_err(|_| format!("{name:?} is not the name of a header"))?;
        let mut value = HeaderValue::from_bytes(text.as_bytes())
            .map_err(|_| format!("the header {name} would hold a line break"))?;
        value.set_sensitive(true);
        headers.insert(parsed, value);
    }
    let ours = [
        ("idempotency-key", call.idempotency_key),
        ("traceparent", &call.traceparent()),
    ];
    for (name, text) in ours {
        let value =
            HeaderValue::from_str(text).map_err(|_| format!("{name} would hold a line break"))?;
        headers
            .entry(HeaderName::from_static(name))
            .or_insert(value);
    }
    headers.entry(ACCEPT).or_insert(HeaderValue::from_static(
        "application/json, text/*;q=0.9, */*;q=0.5",
    ));
    Ok(headers)
}

fn query(url: &mut Url, arguments: &Arguments<'_>) {
    let mut rest = arguments.rest().peekable();
    if rest.peek().is_none() {
        return;
    }
    let mut pairs = url.query_pairs_mut();
    for (name, value) in rest {
        match value {
            Value::Array(items) => {
                for item in items {
                    pairs.append_pair(name, &as_text(item));
                }
            }
            other => {
                pairs.append_pair(name, &as_text(other));
            }
        }
    }
}

fn rest(arguments: &Arguments<'_>) -> Value {
    let rest = arguments.rest();
    Value::Object(
        rest.map(|(name, value)| (name.clone(), value.clone()))
            .collect(),
    )
}

/// Encodes everything but letters, digits and `-._`, for paths and queries alike.
fn encode(text: &str) -> String {
    let form: String = form_urlencoded::byte_serialize(text.as_bytes()).collect();
    form.replace('+', "%20").replace('*', "%2A")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn filled(template: &str, arguments: &Value) -> Result<String, String> {
        let mut arguments = Arguments::new(arguments.as_object().unwrap());
        address(template, &mut arguments).map(|url| url.to_string())
    }

    #[test]
    fn an_argument_stays_in_its_place() {
        let to = |id: &str| filled("https://a.example/v1/{id}/x?q={id}", &json!({"id": id}));
        assert_eq!(
            to("../b?c#d&e=f g").unwrap(),
            "https://a.example/v1/..%2Fb%3Fc%23d%26e%3Df%20g/x?q=..%2Fb%3Fc%23d%26e%3Df%20g"
        );
        assert_eq!(
            to("@evil.example").unwrap(),
            "https://a.example/v1/%40evil.example/x?q=%40evil.example"
        );
        assert_eq!(
            to("%2e%2e").unwrap(),
            "https://a.example/v1/%252e%252e/x?q=%252e%252e"
        );
        for bad in ["", ".", ".."] {
            assert!(to(bad).is_err(), "{bad:?}");
        }
        let halves = json!({"a": ".", "b": "."});
        assert!(filled("https://a.example/{a}{b}/x", &halves).is_err());
    }

    #[test]
    fn an_absent_parameter_is_left_out() {
        let template = "https://a.example/x?fixed=1&q={q}&page={page}";
        assert_eq!(
            filled(template, &json!({"page": 2})).unwrap(),
            "https://a.example/x?fixed=1&page=2"
        );
        assert!(filled("https://a.example/{id}", &json!({})).is_err());
    }
}
