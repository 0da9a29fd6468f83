//! An answer, read up to a limit.

use http::{HeaderMap, StatusCode, header};

use super::EgressError;

/// An answer and as much of its body as was wanted.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, decompressed.
    pub body: Vec<u8>,
    /// Whether the body went on.
    pub truncated: bool,
}

impl Response {
    /// The media type without its parameters, in lower case; empty when nothing is said.
    pub fn media_type(&self) -> String {
        let value = self.content_type();
        let kind = value.split(';').next().unwrap_or_default();
        kind.trim().to_ascii_lowercase()
    }

    /// The body as text, by the character set that the answer names; what is no text becomes `�`.
    pub fn text(&self) -> String {
        let content_type = self.content_type().to_ascii_lowercase();
        let label = content_type
            .split(';')
            .find_map(|part| part.trim().strip_prefix("charset="))
            .map(|label| label.trim_matches('"'));
        let encoding = label
            .and_then(|label| encoding_rs::Encoding::for_label(label.as_bytes()))
            .unwrap_or(encoding_rs::UTF_8);
        let (text, ..) = encoding.decode(&self.body);
        if !self.truncated {
            return text.into_owned();
        }
        // The cut may have split a character; that one is not worth a replacement.
        text.trim_end_matches('\u{fffd}').to_owned()
    }

    fn content_type(&self) -> &str {
        self.headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or_default()
    }
}

/// Reads the body of an answer up to `max` bytes. What counts is what comes out of the decompression, so that a small
/// answer cannot become a huge one.
pub(super) async fn read(
    mut answer: reqwest::Response,
    max: usize,
) -> Result<Response, EgressError> {
    let status = answer.status();
    let mut body = Vec::new();
    let mut truncated = false;
    while let Some(chunk) = answer.chunk().await.map_err(|error| {
        let reason = EgressError::from_client(error);
        EgressError::Broken(format!("after HTTP {status}: {reason}"))
    })? {
        let room = max - body.len();
        truncated = chunk.len() > room;
        body.extend_from_slice(chunk.get(..room).unwrap_or(&chunk));
        if truncated {
            break;
        }
    }
    Ok(Response {
        status,
        headers: std::mem::take(answer.headers_mut()),
        body,
        truncated,
    })
}
