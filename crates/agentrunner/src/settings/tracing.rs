//! Where traces are sent, and which.

use domain::Sampling;

use super::values::{Mistake, Values};

/// Where traces are sent, which, and what they tell.
#[derive(Clone)]
pub(crate) struct Tracing {
    /// The collector; without one, none are made.
    pub(crate) endpoint: Option<String>,
    /// What it is shown besides.
    pub(crate) headers: Vec<(String, String)>,
    /// As what the program is known there.
    pub(crate) service_name: String,
    /// Which traces, where nobody said it.
    pub(crate) sampling: Sampling,
    /// Whether they tell what was said.
    pub(crate) content: bool,
}

// By hand: headers hold keys.
impl std::fmt::Debug for Tracing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracing")
            .field("service_name", &self.service_name)
            .field("sampling", &self.sampling)
            .field("content", &self.content)
            .finish_non_exhaustive()
    }
}

impl Tracing {
    pub(super) fn read(values: &Values, mistakes: &mut Vec<Mistake>) -> Self {
        let text = |name| values.text(name).unwrap_or_default();
        let share = text("OTEL_TRACES_SAMPLER_ARG");
        let sampling = share.parse().ok().and_then(Sampling::share);
        if sampling.is_none() {
            mistakes.push(Mistake {
                name: "OTEL_TRACES_SAMPLER_ARG".to_owned(),
                value: share.to_owned(),
                message: "a share of all traces from 0 to 1, such as 0.1".to_owned(),
            });
        }
        let headers = headers(text("OTEL_EXPORTER_OTLP_HEADERS"));
        if let Err(message) = &headers {
            mistakes.push(Mistake {
                name: "OTEL_EXPORTER_OTLP_HEADERS".to_owned(),
                value: String::new(),
                message: message.clone(),
            });
        }
        Self {
            endpoint: values
                .text("OTEL_EXPORTER_OTLP_ENDPOINT")
                .map(str::to_owned),
            headers: headers.unwrap_or_default(),
            service_name: text("OTEL_SERVICE_NAME").to_owned(),
            sampling: sampling.unwrap_or_default(),
            content: values.switch("OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"),
        }
    }
}

/// `name=value` pairs, separated by commas; values as in a URL.
fn headers(text: &str) -> Result<Vec<(String, String)>, String> {
    let pairs = text
        .split(',')
        .map(str::trim)
        .filter(|pair| !pair.is_empty());
    let read = |pair: &str| {
        let known = pair.split_once('=').and_then(|(name, value)| {
            let name = name.trim().parse::<http::HeaderName>().ok()?;
            let value = percent_encoding::percent_decode_str(value.trim());
            let value = value.decode_utf8().ok()?.into_owned();
            http::HeaderValue::from_str(&value).ok()?;
            Some((name.as_str().to_owned(), value))
        });
        known.ok_or_else(|| {
            "headers as name=value, separated by commas, values with %20 for a space".to_owned()
        })
    };
    pairs.map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_pairs_as_the_standard_has_them() {
        assert_eq!(headers(""), Ok(Vec::new()));
        let read = headers("Authorization=Bearer%20abc, x-team=a=b").unwrap();
        let read: Vec<_> = read
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str()))
            .collect();
        assert_eq!(read, [("authorization", "Bearer abc"), ("x-team", "a=b")]);
        for bad in ["authorization", "a b=c", "a=%00", "=x"] {
            let message = headers(bad).unwrap_err();
            assert!(!message.contains(bad), "a header may be a key: {message}");
        }
    }
}
