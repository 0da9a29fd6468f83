//! What stands in a certificate: until when it is valid, and whose it is.

use std::fmt;

use rustls::pki_types::CertificateDer;
use sha2::{Digest as _, Sha256};
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

/// From how many days before its end on it is said daily.
const SOON: i64 = 14;
const DAY: i64 = 86_400;

/// From when until when a certificate is valid, in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Validity {
    from: i64,
    until: i64,
    /// How many days were left when it was said last.
    told: Option<i64>,
}

impl Validity {
    /// Of a certificate.
    ///
    /// # Errors
    /// It is none.
    pub(super) fn of(certificate: &CertificateDer<'_>) -> Result<Self, String> {
        let (_, parsed) =
            X509Certificate::from_der(certificate).map_err(|error| error.to_string())?;
        let validity = parsed.validity();
        Ok(Self {
            from: validity.not_before.timestamp(),
            until: validity.not_after.timestamp(),
            told: None,
        })
    }

    /// Logs what is wrong with it, and keeps the metric.
    fn tell(&self) {
        let now = chrono::Utc::now().timestamp();
        #[expect(
            clippy::cast_precision_loss,
            reason = "seconds since 1970 are far from 2^52"
        )]
        metrics::gauge!("agentrunner_tls_certificate_expires_timestamp_seconds")
            .set(self.until as f64);
        if let Some(trouble) = self.trouble(now) {
            tracing::warn!("TLS: the certificate {trouble}");
        }
    }

    /// Says it once more when a day has gone by; answers whether it did.
    pub(super) fn tell_again(&mut self) -> bool {
        let now = chrono::Utc::now().timestamp();
        let left = (self.until - now).div_euclid(DAY);
        let is_told = self.told.replace(left) == Some(left);
        if !is_told {
            self.tell();
        }
        !is_told
    }

    fn trouble(&self, now: i64) -> Option<String> {
        let left = (self.until - now).div_euclid(DAY);
        if now < self.from {
            return Some(format!(
                "is valid from {} only; callers refuse it until then",
                date(self.from)
            ));
        }
        if now > self.until {
            return Some(format!(
                "expired on {}; callers refuse it. Renew it: the new one is taken without a restart",
                date(self.until)
            ));
        }
        (left < SOON).then(|| {
            format!(
                "expires on {}, in {left} days; renew it, the new one is taken without a restart",
                date(self.until)
            )
        })
    }
}

impl fmt::Display for Validity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "valid until {}", date(self.until))
    }
}

fn date(seconds: i64) -> String {
    match chrono::DateTime::from_timestamp(seconds, 0) {
        Some(time) => time.format("%Y-%m-%d %H:%M UTC").to_string(),
        // Certificates may say the year 9999 and more.
        None => ASN1Time::from_timestamp(seconds).map_or_else(
            |_| "a day that is no date".to_owned(),
            |time| time.to_string(),
        ),
    }
}

/// Whose a certificate is, for people, and which it is: the subject, and the beginning of its SHA-256.
pub(super) fn named(certificate: &CertificateDer<'_>) -> String {
    let print = Sha256::digest(certificate);
    let print: String = print
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let subject = match X509Certificate::from_der(certificate) {
        Ok((_, parsed)) => parsed.subject().to_string(),
        Err(_) => String::new(),
    };
    let subject: String = subject.chars().take(200).collect();
    format!("{subject} (sha256 {print}…)")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_soon_or_has_ended_is_told() {
        let validity = |from, until| Validity {
            from,
            until,
            told: None,
        };
        let now = 1_800_000_000;
        let of = |from, until| validity(from, until).trouble(now).unwrap_or_default();
        assert_eq!(of(now - DAY, now + 15 * DAY), "");
        assert!(of(now - DAY, now + 13 * DAY).contains("in 13 days"));
        assert!(of(now - DAY, now - 1).contains("expired on 2027-01-15"));
        assert!(of(now + 1, now + DAY).contains("valid from"));
    }

    #[test]
    fn it_is_told_again_once_a_day() {
        let mut validity = Validity {
            from: 0,
            until: 0,
            told: None,
        };
        assert!(validity.tell_again());
        assert!(!validity.tell_again());
    }
}
