//! Reads a refusal, an exception in the middle of a stream, and the list of models.

use domain::retry::ModelErrorClass;
use serde::Deserialize;

use crate::Error;
use crate::failure::Report;

/// AWS spells the same word in several ways.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Body {
    #[serde(rename = "__type", alias = "code")]
    kind: String,
    #[serde(alias = "Message")]
    message: String,
}

/// Reads the body of a refusal; its type is in a header as a rule. What is no JSON is the message itself.
pub(super) fn read(body: &[u8]) -> Report {
    serde_json::from_slice::<Body>(body).map_or_else(
        |_| Report::saying(String::from_utf8_lossy(body)),
        |body| {
            let kind = body.kind.rsplit('#').next().unwrap_or_default();
            Report {
                kind: kind.to_owned(),
                code: String::new(),
                message: body.message,
            }
        },
    )
}

/// The status that an exception has when it comes instead of an answer. In a stream its name begins with a small
/// letter.
pub(super) fn status(kind: &str) -> u16 {
    match kind.to_ascii_lowercase().as_str() {
        "validationexception" | "servicequotaexceededexception" => 400,
        "accessdeniedexception" | "unrecognizedclientexception" | "expiredtokenexception" => 403,
        "resourcenotfoundexception" => 404,
        "modeltimeoutexception" => 408,
        "modelerrorexception" | "modelstreamerrorexception" => 424,
        "throttlingexception" | "modelnotreadyexception" => 429,
        "serviceunavailableexception" => 503,
        _ => 500,
    }
}

/// Whether AWS knows us and only refuses the right.
pub(super) fn is_known_but_not_allowed(error: &Error) -> bool {
    error.class == ModelErrorClass::Auth && error.message.contains("is not authorized to perform")
}

/// How many models a list has.
pub(super) fn models(body: &[u8]) -> Option<usize> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct List {
        model_summaries: Vec<serde::de::IgnoredAny>,
    }
    let list: List = serde_json::from_slice(body).ok()?;
    Some(list.model_summaries.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_come_in_several_shapes() {
        let read = |body: &str| {
            let report = read(body.as_bytes());
            (report.kind, report.message)
        };
        let own = |kind: &str, message: &str| (kind.to_owned(), message.to_owned());
        assert_eq!(read(r#"{"message":"m"}"#), own("", "m"));
        assert_eq!(
            read(
                r#"{"__type":"com.amazon.coral.service#UnrecognizedClientException","Message":"m"}"#
            ),
            own("UnrecognizedClientException", "m")
        );
        assert_eq!(read("Bad Gateway"), own("", "Bad Gateway"));
        assert_eq!(
            models(br#"{"modelSummaries":[{"modelId":"a"},{}]}"#),
            Some(2)
        );
        assert_eq!(models(b"[]"), None);
    }
}
