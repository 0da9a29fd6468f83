//! Whether a request comes from Slack: version 0 of its signatures, over the raw body.
//!
//! <https://docs.slack.dev/authentication/verifying-requests-from-slack>

use chrono::TimeDelta;
use domain::Time;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretString};
use sha2::Sha256;

/// How far a request's time may be from ours.
const TOLERANCE: TimeDelta = TimeDelta::minutes(5);

/// When a request was sent, as its header says: checked before anything of its body is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Stamp(String);

impl Stamp {
    /// Reads `X-Slack-Request-Timestamp`.
    ///
    /// # Errors
    /// It is no time, or too far from `now`.
    pub(super) fn read(text: &str, now: Time) -> Result<Self, &'static str> {
        let is_number = (1..=12).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
        let seconds: Option<i64> = text.parse().ok().filter(|_| is_number);
        let Some(sent) = seconds.and_then(|seconds| Time::from_timestamp(seconds, 0)) else {
            return Err("X-Slack-Request-Timestamp is no time: it is seconds since 1970");
        };
        if (now - sent).abs() > TOLERANCE {
            return Err(
                "X-Slack-Request-Timestamp is more than 5 minutes off: either the request is an old one that is sent again, or a clock is wrong",
            );
        }
        Ok(Self(text.to_owned()))
    }

    /// Whether a body that came at this time was signed with one of the secrets. Takes as long whether it was or not.
    pub(super) fn signed(&self, secrets: &[SecretString], signature: &str, body: &[u8]) -> bool {
        let Some(given) = signature.strip_prefix("v0=").and_then(unhex) else {
            return false;
        };
        let fits = |secret: &SecretString| {
            let mac = Hmac::<Sha256>::new_from_slice(secret.expose_secret().as_bytes());
            mac.is_ok_and(|mut mac| {
                mac.update(b"v0:");
                mac.update(self.0.as_bytes());
                mac.update(b":");
                mac.update(body);
                mac.verify_slice(&given).is_ok()
            })
        };
        // Not `any`: which of them fits is nobody's business.
        secrets
            .iter()
            .fold(false, |found, secret| found | fits(secret))
    }
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    let pairs = text.as_bytes().chunks_exact(2);
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    pairs.map(byte).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of Slack's own page.
    const BODY: &str = "token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2Fhooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803a0bc887a14d10d2c447fce8b6703c";
    const STAMP: &str = "1531420618";
    const SIGNATURE: &str = "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503";

    fn secrets() -> Vec<SecretString> {
        vec!["another".into(), "8f742231b10e8888abcd99yyyzzz85a5".into()]
    }

    fn at(seconds: i64) -> Time {
        Time::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn slacks_own_example_is_signed_with_either_secret() {
        let stamp = Stamp::read(STAMP, at(1_531_420_618)).unwrap();
        assert!(stamp.signed(&secrets(), SIGNATURE, BODY.as_bytes()));
        assert!(!stamp.signed(&secrets()[..1], SIGNATURE, BODY.as_bytes()));
        assert!(!stamp.signed(&[], SIGNATURE, BODY.as_bytes()));
    }

    #[test]
    fn whatever_is_changed_the_signature_is_not_its_own() {
        let stamp = Stamp::read(STAMP, at(1_531_420_618)).unwrap();
        let tampered = BODY.replace("roadrunner", "coyote");
        assert!(!stamp.signed(&secrets(), SIGNATURE, tampered.as_bytes()));
        let later = Stamp::read("1531420619", at(1_531_420_618)).unwrap();
        assert!(!later.signed(&secrets(), SIGNATURE, BODY.as_bytes()));
        for forged in [
            "",
            "v0=",
            "v1=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
            &SIGNATURE[..66],
            &format!("{SIGNATURE}00"),
            "v0=g2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
            "v0=\u{e9}\u{e9}114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503",
        ] {
            assert!(
                !stamp.signed(&secrets(), forged, BODY.as_bytes()),
                "{forged}"
            );
        }
    }

    #[test]
    fn five_minutes_are_the_most_in_both_directions() {
        let now = 1_531_420_618;
        for (off, taken) in [
            (0, true),
            (300, true),
            (-300, true),
            (301, false),
            (-301, false),
            (86_400, false),
        ] {
            let read = Stamp::read(&(now + off).to_string(), at(now));
            assert_eq!(read.is_ok(), taken, "{off}");
        }
        for no_time in [
            "",
            "now",
            "-5",
            "1e9",
            "99999999999999999999",
            " 1531420618",
        ] {
            assert!(Stamp::read(no_time, at(now)).is_err(), "{no_time}");
        }
    }
}
