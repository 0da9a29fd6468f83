//! Who asks: a bearer token, or a signature (SigV4) that is computed again and compared.

use sha2::{Digest, Sha256};

use crate::provider::answer::{ErrorKind, ProviderError};
use crate::provider::face::Arrived;

/// The id of an AWS key that the stand-in knows. It knows every id that begins with `AKIA`, and with `ASIA`, which is
/// a key that was lent and wants a session token.
pub const AWS_KEY_ID: &str = "AKIATESTKIT00000000A";

type Checked<T> = Result<T, ProviderError>;

/// Returns the secret of the AWS key with this id.
#[must_use]
pub fn aws_secret(access_key_id: &str) -> String {
    format!("secret/of+{access_key_id}")
}

pub(super) fn check(arrived: &Arrived<'_>) -> Checked<()> {
    check_for("bedrock", arrived)
}

/// The same for another service.
pub(in crate::provider) fn check_for(wanted: &str, arrived: &Arrived<'_>) -> Checked<()> {
    let Some(given) = arrived.headers.get("authorization") else {
        return refuse(
            "MissingAuthenticationTokenException",
            "Missing Authentication Token",
        );
    };
    if let Some(token) = given.strip_prefix("Bearer ") {
        return match token.trim().is_empty() {
            true => refuse(
                "AccessDeniedException",
                "Invalid API Key format: Must start with pre-defined prefix",
            ),
            false => Ok(()),
        };
    }
    let signed = Signed::read(given)?;
    let known = ["AKIA", "ASIA"];
    let is_lent = signed.key_id.starts_with("ASIA");
    let has_session = arrived.headers.contains_key("x-amz-security-token");
    if !known.iter().any(|start| signed.key_id.starts_with(start)) || (is_lent && !has_session) {
        return refuse(
            "UnrecognizedClientException",
            "The security token included in the request is invalid.",
        );
    }
    signed.check(wanted, arrived)
}

fn refuse<T>(name: &str, message: impl Into<String>) -> Checked<T> {
    Err(ProviderError::new(ErrorKind::Forbidden, message).coded(name))
}

/// What an `authorization` header says.
struct Signed<'a> {
    key_id: &'a str,
    /// Day, region, service and `aws4_request`.
    scope: [&'a str; 4],
    headers: Vec<&'a str>,
    signature: &'a str,
}

impl<'a> Signed<'a> {
    fn read(given: &'a str) -> Checked<Self> {
        let parts = given.strip_prefix("AWS4-HMAC-SHA256 ").unwrap_or_default();
        let part = |name: &str| {
            let found = parts
                .split(',')
                .find_map(|part| part.trim().strip_prefix(name));
            found.ok_or_else(|| {
                let reason = format!(
                    "Authorization header requires '{name}' parameter. Authorization={given}"
                );
                ProviderError::new(ErrorKind::Forbidden, reason)
                    .coded("IncompleteSignatureException")
            })
        };
        let mut credential = part("Credential=")?.split('/');
        let mut next = || credential.next().unwrap_or_default();
        Ok(Self {
            key_id: next(),
            scope: [next(), next(), next(), next()],
            headers: part("SignedHeaders=")?.split(';').collect(),
            signature: part("Signature=")?,
        })
    }

    fn check(&self, wanted: &str, arrived: &Arrived<'_>) -> Checked<()> {
        let header = |name: &str| arrived.headers.get(name).map_or("", String::as_str);
        let time = header("x-amz-date");
        let [day, region, service, end] = self.scope;
        if day.is_empty() || !time.starts_with(&format!("{day}T")) || !time.ends_with('Z') {
            return refuse(
                "SignatureDoesNotMatch",
                "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP",
            );
        }
        if service != wanted || end != "aws4_request" || region.is_empty() {
            return refuse(
                "SignatureDoesNotMatch",
                format!("Credential should be scoped to correct service: '{wanted}'."),
            );
        }
        let mut must = arrived
            .headers
            .keys()
            .filter(|name| name.starts_with("x-amz-"));
        if !self.headers.contains(&"host")
            || !must.all(|name| self.headers.contains(&name.as_str()))
        {
            return refuse(
                "SignatureDoesNotMatch",
                "'Host' and all 'X-Amz-' headers must be signed",
            );
        }
        let canonical = self.canonical(arrived);
        let scope = self.scope.join("/");
        let to_sign = format!(
            "AWS4-HMAC-SHA256\n{time}\n{scope}\n{}",
            hex(&Sha256::digest(canonical.as_bytes()))
        );
        let mut key = format!("AWS4{}", aws_secret(self.key_id)).into_bytes();
        for part in self.scope {
            key = hmac(&key, part.as_bytes());
        }
        if hex(&hmac(&key, to_sign.as_bytes())) == self.signature {
            return Ok(());
        }
        // AWS shows all that it signed, a session token included.
        refuse(
            "InvalidSignatureException",
            format!(
                "The request signature we calculated does not match the signature you provided. Check your AWS \
                 Secret Access Key and signing method. The Canonical String for this request should have been\n\
                 '{canonical}'"
            ),
        )
    }

    /// The request in the one form in which both sides sign it.
    fn canonical(&self, arrived: &Arrived<'_>) -> String {
        let headers: String = self
            .headers
            .iter()
            .map(|name| {
                let value = arrived.headers.get(*name).map_or("", String::as_str);
                let words: Vec<&str> = value.split(' ').filter(|word| !word.is_empty()).collect();
                format!("{name}:{}\n", words.join(" "))
            })
            .collect();
        // The path is escaped once more than on the wire.
        format!(
            "{}\n{}\n\n{headers}\n{}\n{}",
            arrived.method,
            escaped(arrived.path),
            self.headers.join(";"),
            hex(&Sha256::digest(arrived.body))
        )
    }
}

fn escaped(path: &str) -> String {
    let mut escaped = String::new();
    for byte in path.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                escaped.push(char::from(byte));
            }
            _ => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

/// Takes the escapes out of a segment of a path.
pub(super) fn unescaped(segment: &str) -> String {
    let mut bytes = Vec::new();
    let mut rest = segment;
    while let Some((plain, after)) = rest.split_once('%') {
        bytes.extend(plain.as_bytes());
        match after
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok())
        {
            Some(byte) => {
                bytes.push(byte);
                rest = &after[2..];
            }
            None => {
                bytes.push(b'%');
                rest = after;
            }
        }
    }
    bytes.extend(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// HMAC-SHA256.
fn hmac(key: &[u8], text: &[u8]) -> Vec<u8> {
    let mut block = [0_u8; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |pad: u8| block.map(|byte| byte ^ pad);
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(text);
    let outer = Sha256::new().chain_update(padded(0x5c));
    outer.chain_update(inner.finalize()).finalize().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hmac_is_that_of_rfc_4231() {
        let of = |key: &[u8], text: &[u8]| hex(&hmac(key, text));
        assert_eq!(
            of(b"Jefe", b"what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert_eq!(
            of(
                &[0xaa; 131],
                b"Test Using Larger Than Block-Size Key - Hash Key First"
            ),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54"
        );
    }

    #[test]
    fn segments_are_read_as_they_were_meant() {
        assert_eq!(unescaped("a.b%3A0%2Fc%"), "a.b:0/c%");
        assert_eq!(escaped("/model/a%3A0/x"), "/model/a%253A0/x");
    }
}
