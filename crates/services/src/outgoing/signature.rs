//! How a message proves where it comes from: Standard Webhooks 1.0.
//!
//! What is signed is `id.timestamp.body`, with HMAC-SHA256. While a secret is being changed there are two: every message
//! carries a signature by each, and a receiver that knows either takes it.
//!
//! Source: <https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md>.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use hmac::{Hmac, KeyInit, Mac};
use secrecy::{ExposeSecret, SecretBox};
use sha2::Sha256;

/// How a secret begins.
const PREFIX: &str = "whsec_";
/// How many bytes a secret has.
const SHORTEST: usize = 24;
const LONGEST: usize = 64;
/// How many secrets there may be at once.
const MOST: usize = 4;

/// The secrets that messages are signed with.
#[derive(Debug)]
pub struct SigningKeys(Vec<SecretBox<[u8]>>);

impl SigningKeys {
    /// Reads secrets, each `whsec_` and 24 to 64 bytes in base64, separated by commas or spaces.
    ///
    /// # Errors
    /// What is wrong, in words that do not repeat the secret.
    pub fn parse(text: &str) -> Result<Self, String> {
        let separator = |c: char| c == ',' || c.is_whitespace();
        let words = text.split(separator).filter(|word| !word.is_empty());
        let keys: Vec<SecretBox<[u8]>> = words.map(read).collect::<Result<_, _>>()?;
        if keys.is_empty() || keys.len() > MOST {
            return Err(format!("it is 1 to {MOST} secrets, separated by commas"));
        }
        Ok(Self(keys))
    }

    /// The signatures of a message, one by each secret, as the header `webhook-signature` has them.
    pub fn sign(&self, id: &str, timestamp: i64, body: &[u8]) -> String {
        let signatures = self.0.iter().filter_map(|key| {
            let mut mac = Hmac::<Sha256>::new_from_slice(key.expose_secret()).ok()?;
            mac.update(format!("{id}.{timestamp}.").as_bytes());
            mac.update(body);
            Some(format!("v1,{}", BASE64.encode(mac.finalize().into_bytes())))
        });
        signatures.collect::<Vec<_>>().join(" ")
    }
}

fn read(word: &str) -> Result<SecretBox<[u8]>, String> {
    let how = "`agentrunner callbacks new-secret` makes one";
    let text = word
        .strip_prefix(PREFIX)
        .ok_or_else(|| format!("a secret begins with {PREFIX}; {how}"))?;
    let bytes = BASE64
        .decode(text)
        .map_err(|_| format!("what follows {PREFIX} is not base64; {how}"))?;
    if !(SHORTEST..=LONGEST).contains(&bytes.len()) {
        return Err(format!(
            "a secret has {SHORTEST} to {LONGEST} bytes, in base64; {how}"
        ));
    }
    Ok(SecretBox::new(bytes.into_boxed_slice()))
}

/// A new secret.
///
/// # Errors
/// The system gives no random numbers.
pub fn mint() -> Result<String, getrandom::Error> {
    let mut random = [0; 32];
    getrandom::fill(&mut random)?;
    Ok(format!("{PREFIX}{}", BASE64.encode(random)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of the specification's own libraries.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

    #[test]
    fn a_message_is_signed_as_the_reference_libraries_do() {
        let keys = SigningKeys::parse(SECRET).unwrap();
        let signed = keys.sign(
            "msg_p5jXN8AQM9LWM0D4loKWxJek",
            1_614_265_330,
            b"{\"test\": 2432232314}",
        );
        assert_eq!(signed, "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
    }

    #[test]
    fn two_secrets_make_two_signatures() {
        let other = mint().unwrap();
        let both = SigningKeys::parse(&format!("{other}, {SECRET}")).unwrap();
        let signed = both.sign("id", 1, b"body");
        let one = SigningKeys::parse(SECRET).unwrap().sign("id", 1, b"body");
        assert_eq!(signed.split(' ').count(), 2);
        assert!(signed.ends_with(&one));
    }

    #[test]
    fn what_is_no_secret_is_refused_without_being_repeated() {
        for bad in [
            "",
            "secret",
            "whsec_",
            "whsec_c2hvcnQ=",
            "whsec_not base64 at all!",
            "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaS",
        ] {
            let message = SigningKeys::parse(bad).map(|_| ()).unwrap_err();
            assert!(
                !message.contains("MfKQ") && !message.contains("c2hvcnQ"),
                "{message}"
            );
        }
        let shown = format!("{:?}", SigningKeys::parse(SECRET).unwrap());
        assert!(!shown.contains("MfKQ") && !shown.contains("49"), "{shown}");
    }
}
