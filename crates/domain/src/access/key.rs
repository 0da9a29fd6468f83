//! Keys as callers hold them and as we do: 256 random bits there, their hash here.
//!
//! `ar_` + 64 hex digits + 8 hex digits of a checksum. The prefix lets scanners of leaked secrets find one; the checksum
//! tells a slip of the pen, and anything that was never a key, without looking anything up.

use std::fmt::{self, Write as _};
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Grants;
use crate::Time;

const PREFIX: &str = "ar_";
const SECRET_DIGITS: usize = 64;
const CHECK_DIGITS: usize = 8;
/// How much of a key is shown of it ever after, to tell one from another.
const HINT: usize = PREFIX.len() + 6;

/// Identifies a key; no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct KeyId(Uuid);

impl KeyId {
    /// Wraps a UUID that the caller made or read.
    pub const fn from_uuid(uuid: Uuid) -> Self {
        Self(uuid)
    }

    /// The UUID inside.
    pub const fn as_uuid(self) -> Uuid {
        self.0
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for KeyId {
    type Err = uuid::Error;
    fn from_str(s: &str) -> Result<Self, uuid::Error> {
        Uuid::parse_str(s).map(Self)
    }
}

/// The SHA-256 of a key. That suffices where a password would need a slow hash: nobody goes through 256 random bits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// Of any text, such as a bootstrap key that an operator chose.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }

    /// As it is stored.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// As it is stored.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Compares all of it, whatever differs first.
    pub fn equals(&self, other: &Self) -> bool {
        let both = self.0.iter().zip(&other.0);
        std::hint::black_box(both.fold(0, |sum, (a, b)| sum | (a ^ b))) == 0
    }
}

/// Hashes of secrets are shown to nobody either.
impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyHash(…)")
    }
}

/// The text is not one of our keys; it may be longer or shorter, or a digit of it is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("it is not a key")]
pub struct NotAKey;

/// The text of a key that nobody has yet, made of randomness that the caller brings.
pub fn mint(random: [u8; 32]) -> String {
    let secret = hex(&random);
    let check = checksum(&secret);
    format!("{PREFIX}{secret}{check}")
}

/// The hash of a text that has the form of a key.
///
/// # Errors
/// It has not.
pub fn read(text: &str) -> Result<KeyHash, NotAKey> {
    let digits = text.strip_prefix(PREFIX).ok_or(NotAKey)?;
    if digits.len() != SECRET_DIGITS + CHECK_DIGITS || !digits.is_ascii() {
        return Err(NotAKey);
    }
    let (secret, check) = digits.split_at(SECRET_DIGITS);
    if checksum(secret) != check {
        return Err(NotAKey);
    }
    Ok(KeyHash::of(text))
}

/// What may be shown of a key: its beginning.
pub fn hint(text: &str) -> String {
    let mut hint: String = text.chars().take(HINT).collect();
    hint.push('…');
    hint
}

fn checksum(secret: &str) -> String {
    let digest = Sha256::digest(format!("{PREFIX}{secret}").as_bytes());
    hex(digest.get(..CHECK_DIGITS / 2).unwrap_or_default())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string does not fail.
        write!(text, "{byte:02x}").ok();
        text
    })
}

/// A key as it is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKey {
    /// Which.
    pub id: KeyId,
    /// What its maker calls it.
    pub name: String,
    /// What it is recognised by.
    pub hash: KeyHash,
    /// Its beginning, to tell it from others.
    pub hint: String,
    /// What it allows.
    pub grants: Grants,
    /// When it was made.
    pub created_at: Time,
    /// By whom.
    pub created_by: String,
    /// From when on it is worth nothing.
    pub expires_at: Option<Time>,
    /// When it was last used, to the minute or so.
    pub last_used_at: Option<Time>,
    /// When it was revoked.
    pub revoked_at: Option<Time>,
    /// By whom.
    pub revoked_by: Option<String>,
}

/// How a key stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyStatus {
    /// It may be used.
    Active,
    /// Its time is over.
    Expired,
    /// Somebody ended it.
    Revoked,
}

impl KeyStatus {
    /// The word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }
}

impl ApiKey {
    /// How it stands at `now`.
    pub fn status(&self, now: Time) -> KeyStatus {
        if self.revoked_at.is_some() {
            KeyStatus::Revoked
        } else if self.expires_at.is_some_and(|end| end <= now) {
            KeyStatus::Expired
        } else {
            KeyStatus::Active
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_reads_back_and_a_slip_of_the_pen_does_not() {
        let text = mint([0xa5; 32]);
        assert_eq!(text.len(), 75);
        assert!(read(&text).unwrap().equals(&KeyHash::of(&text)));
        for at in 0..text.len() {
            let mut wrong = text.clone().into_bytes();
            wrong[at] = if wrong[at] == b'0' { b'1' } else { b'0' };
            let wrong = String::from_utf8(wrong).unwrap();
            assert_eq!(read(&wrong), Err(NotAKey), "{wrong}");
        }
        for other in ["", "ar_", "' OR 1=1 --", &text[1..], &format!("{text}0")] {
            assert_eq!(read(other), Err(NotAKey), "{other:?}");
        }
        let wide = format!("ar_{}", "é".repeat(36));
        assert_eq!(read(&wide), Err(NotAKey));
    }

    #[test]
    fn all_of_a_hash_is_compared_and_nothing_of_it_is_shown() {
        let hash = KeyHash::from_bytes([7; 32]);
        for at in 0..32 {
            let mut other = [7; 32];
            other[at] ^= 1;
            assert!(!hash.equals(&KeyHash::from_bytes(other)));
        }
        assert_eq!(format!("{hash:?}"), "KeyHash(…)");
        assert_eq!(hint(&mint([0xa5; 32])), "ar_a5a5a5…");
    }

    #[test]
    fn a_key_ends_when_it_expires_or_is_revoked() {
        let at = Time::from_timestamp_nanos;
        let key = ApiKey {
            id: KeyId::from_uuid(Uuid::nil()),
            name: "ci".to_owned(),
            hash: KeyHash::of("x"),
            hint: "ar_".to_owned(),
            grants: Grants::all(),
            created_at: at(0),
            created_by: "bootstrap".to_owned(),
            expires_at: Some(at(10)),
            last_used_at: None,
            revoked_at: None,
            revoked_by: None,
        };
        assert_eq!(key.status(at(9)), KeyStatus::Active);
        assert_eq!(key.status(at(10)), KeyStatus::Expired);
        let revoked = ApiKey {
            revoked_at: Some(at(5)),
            ..key
        };
        assert_eq!(revoked.status(at(1)), KeyStatus::Revoked);
    }
}
