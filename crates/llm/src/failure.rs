//! What a refusal means: from HTTP status, headers and the provider's own words to one [`Error`].

use domain::definition::Provider;
use domain::retry::ModelErrorClass as Class;
use http::HeaderMap;

use crate::Error;
use crate::endpoint::Endpoint;
use crate::error::quote;
use crate::retry_after;

/// What a provider says about a failure. Each adapter reads its own shape into this one.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Report {
    /// Its type, as the provider spells it.
    pub(crate) kind: String,
    /// Its code, as the provider spells it.
    pub(crate) code: String,
    /// Its message.
    pub(crate) message: String,
}

impl Report {
    /// A report that is only a text.
    pub(crate) fn saying(message: impl Into<String>) -> Self {
        Self {
            message: message.into(),
            ..Self::default()
        }
    }

    /// The same with the type that AWS writes into a header, like `ThrottlingException:http://…`.
    pub(crate) fn named_by(mut self, headers: &HeaderMap) -> Self {
        let named = headers.get("x-amzn-errortype");
        if let Some(named) = named.and_then(|value| value.to_str().ok()) {
            let name = named.split(':').next().unwrap_or_default();
            name.rsplit('#')
                .next()
                .unwrap_or_default()
                .clone_into(&mut self.kind);
        }
        self
    }

    /// Whether kind, code or message contains one of these lower-case phrases.
    fn mentions(&self, phrases: &[&str]) -> bool {
        let message = self.message.to_lowercase();
        phrases
            .iter()
            .any(|phrase| self.kind == *phrase || self.code == *phrase || message.contains(phrase))
    }
}

/// The error for an answer that is not 2xx.
pub(crate) fn refused(
    endpoint: &Endpoint,
    model: &str,
    status: u16,
    headers: &HeaderMap,
    report: &Report,
) -> Error {
    let class = class_of(status, report);
    let wait = (class == Class::RateLimited || class == Class::Unavailable)
        .then(|| retry_after::asked_for(headers))
        .flatten();
    let what = format!("answered {status}");
    Error::new(class, told(endpoint, model, &what, class, status, report)).after(wait)
}

/// The error for a failure that the provider reports in the middle of its answer. `status` is the one that the
/// provider gives to the same failure when it comes first.
pub(crate) fn broke_off(endpoint: &Endpoint, model: &str, status: u16, report: &Report) -> Error {
    let class = class_of(status, report);
    let message = told(
        endpoint,
        model,
        "broke off its answer",
        class,
        status,
        report,
    );
    Error::new(class, message)
}

const TOO_LONG: [&str; 14] = [
    "context_length_exceeded",
    "string_above_max_length",
    "request_too_large",
    "maximum context length",
    "prompt is too long",
    "context length",
    "context window",
    "context size",
    "context limit",
    "too many tokens",
    "too many input tokens",
    "input tokens exceed",
    "input is too long",
    "request too large for",
];
const REFUSED: [&str; 4] = [
    "content_filter",
    "content_policy_violation",
    "content management policy",
    "invalid_prompt",
];
const USED_UP: [&str; 5] = [
    "insufficient_quota",
    "billing_hard_limit_reached",
    "billing_error",
    "credit balance is too low",
    "usage limit reached",
];

fn class_of(status: u16, report: &Report) -> Class {
    match status {
        401 | 403 => Class::Auth,
        429 if report.mentions(&USED_UP) => Class::InvalidRequest,
        429 if report.mentions(&["request too large for"]) => Class::ContextTooLong,
        429 => Class::RateLimited,
        408 => Class::TimedOut,
        // 424 is what AWS says when the model behind it fails.
        409 | 424 | 425 => Class::Unavailable,
        400 | 413 | 422 if report.mentions(&TOO_LONG) => Class::ContextTooLong,
        400 | 422 if report.mentions(&REFUSED) => Class::Refused,
        413 => Class::ContextTooLong,
        501 | 505 | 300..=499 => Class::InvalidRequest,
        500.. => Class::Unavailable,
        _ => Class::Garbled,
    }
}

fn told(
    endpoint: &Endpoint,
    model: &str,
    what: &str,
    class: Class,
    status: u16,
    report: &Report,
) -> String {
    let mut message = format!(
        "{} at {} {what}",
        endpoint.provider.as_str(),
        endpoint.place()
    );
    if !report.message.trim().is_empty() {
        message.push_str(": ");
        message.push_str(&quote(&endpoint.without_key(&report.message)));
    }
    if let Some(hint) = hint(endpoint, model, class, status, report) {
        message.push_str("; ");
        message.push_str(&hint);
    }
    message
}

/// What to do about it, where we know.
fn hint(
    endpoint: &Endpoint,
    model: &str,
    class: Class,
    status: u16,
    report: &Report,
) -> Option<String> {
    let model = quote(model);
    match class {
        Class::Auth if endpoint.provider == Provider::Bedrock => Some(aws_hint(endpoint, &model, report)),
        Class::Auth if status == 403 => Some(format!(
            "the key may not do this: ask for its rights to {model}, or {}",
            endpoint.key_hint()
        )),
        Class::Auth => Some(endpoint.key_hint()),
        Class::ContextTooLong => Some(format!(
            "shorten the conversation or choose a model that reads more than {model}"
        )),
        Class::InvalidRequest if report.mentions(&USED_UP) => Some(
            "the account's credit is used up, waiting does not help: add credit at the provider or use another key"
                .to_owned(),
        ),
        Class::InvalidRequest if report.kind == "ServiceQuotaExceededException" => {
            Some("waiting does not help: raise the quota in AWS's Service Quotas".to_owned())
        }
        Class::InvalidRequest if (300..400).contains(&status) => Some(
            "it sends us to another address, which we do not follow with a key: set api_base to the final address"
                .to_owned(),
        ),
        Class::InvalidRequest if status == 404 && endpoint.provider == Provider::Ollama => {
            Some(format!("is the model {model} there? fetch it with `ollama pull`"))
        }
        Class::InvalidRequest if status == 404 || report.mentions(&["model identifier is invalid"]) => Some(format!(
            "the model {model} or the address is not known there: check llm_config.model"
        )),
        _ => None,
    }
}

/// AWS answers 403 to keys that are wrong and to keys that may not do this.
fn aws_hint(endpoint: &Endpoint, model: &str, report: &Report) -> String {
    let says = |phrase: &str| report.message.contains(phrase);
    if report.kind == "AccessDeniedException" || says("is not authorized to perform") {
        return format!(
            "these credentials may not do this: give them bedrock:InvokeModelWithResponseStream on {model}, and see that the account has access to the model"
        );
    }
    if says("Signature expired") || says("Signature not yet current") {
        return "a signature holds for some minutes: set this machine's clock right".to_owned();
    }
    endpoint.key_hint()
}
