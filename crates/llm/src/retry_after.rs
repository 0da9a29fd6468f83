//! How long a provider wants us to wait, in all the ways in which they say it.

use std::time::Duration;

use chrono::{DateTime, FixedOffset};
use http::HeaderMap;

/// Nobody is made to wait longer by a header.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// The limits that OpenAI and Anthropic report: what is left, and when it is full again.
const LIMITS: [(&str, &str); 6] = [
    (
        "x-ratelimit-remaining-requests",
        "x-ratelimit-reset-requests",
    ),
    ("x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"),
    (
        "anthropic-ratelimit-requests-remaining",
        "anthropic-ratelimit-requests-reset",
    ),
    (
        "anthropic-ratelimit-tokens-remaining",
        "anthropic-ratelimit-tokens-reset",
    ),
    (
        "anthropic-ratelimit-input-tokens-remaining",
        "anthropic-ratelimit-input-tokens-reset",
    ),
    (
        "anthropic-ratelimit-output-tokens-remaining",
        "anthropic-ratelimit-output-tokens-reset",
    ),
];

/// The wait that an answer's headers ask for. A date is measured against the answer's own `date`, so that a
/// wrong clock on our side does not matter.
pub(crate) fn asked_for(headers: &HeaderMap) -> Option<Duration> {
    let millis = text(headers, "retry-after-ms").and_then(|text| seconds(text, 1e-3));
    let plain = || text(headers, "retry-after").and_then(|value| seconds(value, 1.0));
    let date = || text(headers, "retry-after").and_then(|value| until(headers, value));
    let limits = || {
        let used_up = LIMITS
            .iter()
            .filter(|(left, _)| text(headers, left) == Some("0"));
        used_up
            .filter_map(|(_, reset)| text(headers, reset))
            .filter_map(|value| span(value).or_else(|| until(headers, value)))
            .max()
    };
    let wait = millis.or_else(plain).or_else(date).or_else(limits)?;
    Some(wait.min(LONGEST))
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok().map(str::trim)
}

fn seconds(text: &str, unit: f64) -> Option<Duration> {
    let number: f64 = text.parse().ok()?;
    let is_sane = number.is_finite() && number >= 0.0;
    is_sane.then(|| Duration::try_from_secs_f64(number * unit).unwrap_or(LONGEST))
}

/// The time from the answer's `date` to an HTTP date or an RFC 3339 time.
fn until(headers: &HeaderMap, text: &str) -> Option<Duration> {
    let now = moment(self::text(headers, "date")?)?;
    (moment(text)? - now).to_std().ok()
}

fn moment(text: &str) -> Option<DateTime<FixedOffset>> {
    DateTime::parse_from_rfc2822(text)
        .or_else(|_| DateTime::parse_from_rfc3339(text))
        .ok()
}

/// A span as OpenAI writes it: `6m0s`, `1.5s`, `20ms`.
fn span(text: &str) -> Option<Duration> {
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let end = rest.find(|c: char| c.is_ascii_alphabetic())?;
        let (number, tail) = rest.split_at(end);
        let unit_end = tail
            .find(|c: char| !c.is_ascii_alphabetic())
            .unwrap_or(tail.len());
        let (unit, next) = tail.split_at(unit_end);
        let unit = match unit {
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return None,
        };
        total = total.saturating_add(seconds(number, unit)?);
        rest = next;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(headers: &[(&'static str, &str)]) -> Option<f64> {
        let headers: HeaderMap = headers
            .iter()
            .map(|(name, value)| {
                let name = http::HeaderName::from_static(name);
                (name, value.parse().unwrap())
            })
            .collect();
        asked_for(&headers).map(|wait| wait.as_secs_f64())
    }

    #[test]
    fn every_way_of_saying_it() {
        assert_eq!(wait(&[("retry-after", "7")]), Some(7.0));
        assert_eq!(wait(&[("retry-after", "0.25")]), Some(0.25));
        let both = [("retry-after", "7"), ("retry-after-ms", "1500")];
        assert_eq!(wait(&both), Some(1.5));
        let date = [
            ("date", "Tue, 24 Nov 2026 10:00:00 GMT"),
            ("retry-after", "Tue, 24 Nov 2026 10:00:09 GMT"),
        ];
        assert_eq!(wait(&date), Some(9.0));
        let limits = [
            ("x-ratelimit-remaining-requests", "0"),
            ("x-ratelimit-reset-requests", "1m2.5s"),
            ("x-ratelimit-remaining-tokens", "10"),
            ("x-ratelimit-reset-tokens", "6h"),
        ];
        assert_eq!(wait(&limits), Some(62.5));
        let anthropic = [
            ("date", "Tue, 24 Nov 2026 10:00:00 GMT"),
            ("anthropic-ratelimit-requests-remaining", "0"),
            ("anthropic-ratelimit-requests-reset", "2026-11-24T10:00:30Z"),
        ];
        assert_eq!(wait(&anthropic), Some(30.0));
    }

    #[test]
    fn nonsense_is_no_wait_and_years_are_a_day() {
        for value in [
            "",
            "soon",
            "-1",
            "nan",
            "inf",
            "Tue, 24 Nov 2026 10:00:09 GMT",
        ] {
            assert_eq!(wait(&[("retry-after", value)]), None, "{value}");
        }
        let day = Some(86_400.0);
        assert_eq!(wait(&[("retry-after", "1e300")]), day);
        assert_eq!(wait(&[("retry-after", "999999999")]), day);
    }
}
