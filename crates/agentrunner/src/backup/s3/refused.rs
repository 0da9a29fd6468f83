//! What a store's no means, and what to do about it. The store is a stranger: only short, plain parts of what it says
//! are shown.

use reqwest::StatusCode;

use crate::backup::Address;

/// What is done with a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Doing {
    List,
    Read,
    Write,
    Delete,
    /// Ending an upload that came to nothing.
    Abort,
}

impl Doing {
    /// The right that AWS asks for.
    const fn right(self) -> &'static str {
        match self {
            Self::List => "s3:ListBucket",
            Self::Read => "s3:GetObject",
            Self::Write => "s3:PutObject",
            Self::Delete => "s3:DeleteObject",
            Self::Abort => "s3:AbortMultipartUpload",
        }
    }
}

/// Why something could not be done.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(super) struct Trouble {
    pub(super) kind: Kind,
    pub(super) message: String,
}

/// What matters of it to whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// It may go well the next time.
    Passing,
    /// There is no such object or upload.
    Gone,
    /// This identity may not.
    Forbidden,
    /// Somebody has ended it.
    Stopped,
    Final,
}

impl Trouble {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

/// An answer that is not what was asked for.
pub(super) struct No<'a> {
    pub(super) doing: Doing,
    pub(super) address: &'a Address,
    /// The host that answered.
    pub(super) place: &'a str,
    pub(super) status: StatusCode,
    /// The bucket's region, when it says so.
    pub(super) region: Option<&'a str>,
    pub(super) body: &'a str,
}

/// What to do about a key that is not taken.
const KEYS: &str = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY to a valid key, AWS_SESSION_TOKEN if it was lent, or AWS_PROFILE";

impl No<'_> {
    pub(super) fn trouble(&self) -> Trouble {
        let code = said(self.body, "Code").unwrap_or_default();
        let bucket = self.address.bucket();
        let (place, address) = (self.place, self.address);
        let status = self.status.as_u16();
        if let Some(message) = self.elsewhere(&code) {
            return Trouble::new(Kind::Final, message);
        }
        match (code.as_str(), status) {
            ("NoSuchBucket", _) => Trouble::new(
                Kind::Final,
                format!(
                    "there is no bucket {bucket} at {place}: check the name, and that AWS_ENDPOINT_URL_S3 is the right store"
                ),
            ),
            ("NoSuchKey" | "NoSuchUpload", _) | ("", 404) => {
                Trouble::new(Kind::Gone, format!("{address} is not there ({place})"))
            }
            ("InvalidAccessKeyId" | "InvalidToken" | "TokenRefreshRequired", _) => Trouble::new(
                Kind::Final,
                format!("{place} does not know the key ({code}): {KEYS}"),
            ),
            ("SignatureDoesNotMatch", _) => Trouble::new(
                Kind::Final,
                format!(
                    "AWS_SECRET_ACCESS_KEY does not belong to AWS_ACCESS_KEY_ID, says {place} ({code}): {KEYS}"
                ),
            ),
            ("ExpiredToken", _) => Trouble::new(
                Kind::Final,
                format!("the key was lent and its time is over ({place} answered {code}): {KEYS}"),
            ),
            ("RequestTimeTooSkewed" | "RequestExpired", _) => Trouble::new(
                Kind::Final,
                format!(
                    "this machine's clock is wrong, says {place} ({code}): set it (timedatectl set-ntp true)"
                ),
            ),
            ("PreconditionFailed", _) | (_, 412) => Trouble::new(
                Kind::Final,
                format!(
                    "{address} was replaced by another one while it was read: run the command again"
                ),
            ),
            ("AccessDenied" | "AllAccessDisabled" | "", 401 | 403) => self.forbidden(&code),
            (
                "InternalError" | "SlowDown" | "ServiceUnavailable" | "RequestTimeout"
                | "BadDigest",
                _,
            )
            | (_, 408 | 429 | 500..) => Trouble::new(
                Kind::Passing,
                format!("{place} answered {status} {code} for {address}: try again later"),
            ),
            ("", _) => Trouble::new(
                Kind::Final,
                format!(
                    "{place} answered {status} for {address}, and not as S3 does: check AWS_ENDPOINT_URL_S3"
                ),
            ),
            (code, _) => {
                let message = said(self.body, "Message").unwrap_or_default();
                Trouble::new(
                    Kind::Final,
                    format!("{place} answered {status} {code} for {address}: {message:?}"),
                )
            }
        }
    }

    fn forbidden(&self, code: &str) -> Trouble {
        let (place, address, right) = (self.place, self.address, self.doing.right());
        let bucket = address.bucket();
        let on = match self.doing {
            Doing::List => format!("arn:aws:s3:::{bucket}"),
            Doing::Read | Doing::Write | Doing::Delete | Doing::Abort => {
                format!("arn:aws:s3:::{bucket}/*")
            }
        };
        let status = self.status.as_u16();
        Trouble::new(
            Kind::Forbidden,
            format!(
                "{place} does not allow this key {right} on {address} ({status} {code}): give it that right on {on}, or {KEYS}"
            ),
        )
    }

    /// The sentence for a bucket that is in another region.
    fn elsewhere(&self, code: &str) -> Option<String> {
        let is_elsewhere = self.status.is_redirection()
            || matches!(
                code,
                "PermanentRedirect"
                    | "TemporaryRedirect"
                    | "AuthorizationHeaderMalformed"
                    | "AuthorizationQueryParametersError"
                    | "IllegalLocationConstraintException"
            );
        if !is_elsewhere {
            return None;
        }
        let bucket = self.address.bucket();
        let named = self.region.map(str::to_owned);
        let named = named.or_else(|| said(self.body, "Region"));
        Some(match named.as_deref().and_then(plain) {
            Some(region) => {
                format!("the bucket {bucket} is in another region: set AWS_REGION={region}")
            }
            None => format!(
                "the bucket {bucket} is in another region or at another address than {} ({} {code}): set AWS_REGION to its region, and for a store that is not AWS's AWS_ENDPOINT_URL_S3",
                self.place,
                self.status.as_u16()
            ),
        })
    }
}

/// What an element of an answer says, if it is short and plain.
fn said(body: &str, element: &str) -> Option<String> {
    let (_, rest) = body.split_once(&format!("<{element}>"))?;
    let (text, _) = rest.split_once(&format!("</{element}>"))?;
    if element == "Message" {
        let text = text.chars().filter(|c| !c.is_control());
        return Some(text.take(200).collect());
    }
    plain(text).map(str::to_owned)
}

fn plain(text: &str) -> Option<&str> {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    let is_short = (1..=64).contains(&text.len());
    (is_short && text.bytes().all(is_plain)).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::Location;

    fn trouble(doing: Doing, status: u16, region: Option<&str>, body: &str) -> Trouble {
        let Ok(Location::S3(address)) = Location::parse("s3://acme/nightly/a.tar.zst".into())
        else {
            panic!("it is an address");
        };
        let no = No {
            doing,
            address: &address,
            place: "minio:9000",
            status: StatusCode::from_u16(status).unwrap(),
            region,
            body,
        };
        no.trouble()
    }

    fn coded(status: u16, code: &str) -> Trouble {
        let body = format!(
            "<?xml version=\"1.0\"?><Error><Code>{code}</Code><Message>No\u{7}pe.</Message></Error>"
        );
        trouble(Doing::Write, status, None, &body)
    }

    #[test]
    fn each_no_says_what_to_type() {
        for (status, code, kind, part) in [
            (
                404,
                "NoSuchBucket",
                Kind::Final,
                "there is no bucket acme at minio:9000",
            ),
            (
                404,
                "NoSuchKey",
                Kind::Gone,
                "s3://acme/nightly/a.tar.zst is not there",
            ),
            (404, "NoSuchUpload", Kind::Gone, "is not there"),
            (
                403,
                "InvalidAccessKeyId",
                Kind::Final,
                "set AWS_ACCESS_KEY_ID",
            ),
            (
                403,
                "SignatureDoesNotMatch",
                Kind::Final,
                "AWS_SECRET_ACCESS_KEY does not belong",
            ),
            (400, "ExpiredToken", Kind::Final, "its time is over"),
            (403, "RequestTimeTooSkewed", Kind::Final, "clock is wrong"),
            (403, "AccessDenied", Kind::Forbidden, "s3:PutObject"),
            (400, "RequestTimeout", Kind::Passing, "try again"),
            (200, "InternalError", Kind::Passing, "try again"),
            (503, "SlowDown", Kind::Passing, "try again"),
            (
                412,
                "PreconditionFailed",
                Kind::Final,
                "run the command again",
            ),
            (
                400,
                "EntityTooSmall",
                Kind::Final,
                "400 EntityTooSmall for s3://acme/nightly/a.tar.zst: \"Nope.\"",
            ),
        ] {
            let trouble = coded(status, code);
            assert_eq!(trouble.kind, kind, "{code}");
            assert!(trouble.message.contains(part), "{code}: {trouble}");
        }
    }

    #[test]
    fn another_region_is_named() {
        let told = trouble(Doing::List, 301, Some("eu-west-1"), "").message;
        assert!(told.ends_with("set AWS_REGION=eu-west-1"), "{told}");
        let body =
            "<Error><Code>AuthorizationHeaderMalformed</Code><Region>garage</Region></Error>";
        let told = trouble(Doing::List, 400, None, body).message;
        assert!(told.ends_with("set AWS_REGION=garage"), "{told}");
        let told = trouble(Doing::List, 307, Some("x; rm -rf /"), "").message;
        assert!(
            told.contains("AWS_ENDPOINT_URL_S3") && !told.contains("rm"),
            "{told}"
        );
    }

    #[test]
    fn a_stranger_that_is_no_store_is_told() {
        for (status, kind, part) in [
            (
                200,
                Kind::Final,
                "not as S3 does: check AWS_ENDPOINT_URL_S3",
            ),
            (405, Kind::Final, "not as S3 does"),
            (502, Kind::Passing, "502"),
            (404, Kind::Gone, "is not there (minio:9000)"),
            (403, Kind::Forbidden, "s3:ListBucket"),
        ] {
            let page = "<html><h1>\u{1b}[31mHello</h1>";
            let trouble = trouble(Doing::List, status, None, page);
            assert_eq!(trouble.kind, kind, "{status}");
            assert!(trouble.message.contains(part), "{status}: {trouble}");
            assert!(!trouble.message.contains('\u{1b}'));
        }
        let hostile = format!("<Code>{}</Code>", "a".repeat(100));
        let told = trouble(Doing::Read, 400, None, &hostile).message;
        assert!(told.len() < 200, "{told}");
    }
}
