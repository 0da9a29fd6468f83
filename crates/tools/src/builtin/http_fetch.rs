//! `http_fetch`: gets a page or a document from an address that the model chose, through the egress guard.

use domain::definition::FunctionTool;
use http::header::ACCEPT;
use http::{HeaderMap, HeaderValue, Method};
use serde::Deserialize;
use serde_json::{Value, json};
use url::Url;

use super::{Answer, Failure, arguments, html};
use crate::Call;
use crate::egress::{Egress, HostRule, Request, Response};
use crate::text::short;

pub(super) const DESCRIPTION: &str = "Gets a public web page or document by HTTP GET: the status, the content type and \
     the text. HTML comes as readable text, JSON as it is.";

/// How much of a page is read, in bytes: markup is much longer than the text in it.
const MAX_READ: usize = 4 << 20;
/// The longest address, in bytes.
const MAX_URL: usize = 4096;

pub(super) fn parameters() -> Value {
    json!({
        "type": "object",
        "properties": {
            "url": {
                "type": "string",
                "description": "The whole address, beginning with https:// or http://.",
                "maxLength": MAX_URL,
            },
        },
        "required": ["url"],
        "additionalProperties": false,
    })
}

#[derive(Deserialize)]
struct Arguments {
    url: String,
}

pub(super) async fn call(
    egress: &Egress,
    function: &FunctionTool,
    call: &Call<'_>,
) -> Result<Answer, Failure> {
    let Arguments { url } = arguments(call)?;
    if url.len() > MAX_URL {
        return Err(Failure::refused(format!(
            "an address has at most {MAX_URL} bytes"
        )));
    }
    let url: Url = url
        .parse()
        .map_err(|error| Failure::refused(format!("{url:?} is not an address: {error}")))?;
    let hosts: Vec<HostRule> = function
        .hosts
        .iter()
        .map(|host| host.parse())
        .collect::<Result<_, _>>()
        .map_err(|error| Failure::refused(format!("hosts: {error}")))?;
    let mut headers = HeaderMap::new();
    headers.insert(
        ACCEPT,
        HeaderValue::from_static("text/html, text/plain, application/json, */*;q=0.5"),
    );
    let request = Request {
        method: Method::GET,
        url,
        headers,
        body: None,
        written: None,
        hosts: &hosts,
        timeout: call.timeout,
        max_bytes: MAX_READ.max(call.entry.max_result_bytes),
        reuse: true,
    };
    let response = egress
        .send(request)
        .await
        .map_err(|error| Failure::failed(error.to_string()))?;
    shown(&response)
}

fn shown(response: &Response) -> Result<Answer, Failure> {
    let status = response.status;
    let kind = response.media_type();
    let text = match kind.as_str() {
        "text/html" | "application/xhtml+xml" => html::readable(&response.text()),
        kind if is_text(kind) && !response.body.contains(&0) => response.text(),
        _ if response.body.is_empty() => String::new(),
        _ => {
            let size = response.body.len();
            let more = if response.truncated { "more than " } else { "" };
            format!("[not text: {more}{size} bytes]")
        }
    };
    if !status.is_success() {
        let body = short(text.trim(), 2000);
        return Err(Failure::failed(format!("HTTP {status}\n{body}")));
    }
    let kind = if kind.is_empty() { "unknown" } else { &kind };
    Ok(Answer {
        text: format!("HTTP {status}\ncontent-type: {kind}\n\n{text}"),
        truncated: response.truncated,
    })
}

fn is_text(kind: &str) -> bool {
    let markers = [
        "json",
        "xml",
        "yaml",
        "javascript",
        "csv",
        "x-www-form-urlencoded",
    ];
    kind.is_empty()
        || kind.starts_with("text/")
        || markers.iter().any(|marker| kind.contains(marker))
}
