//! Token counts and money, as types that cannot be mixed up and do not overflow.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, AddAssign};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A number of model tokens.
#[derive(
    Debug,
    Clone,
    Copy,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(transparent)]
pub struct Tokens(pub u64);

impl Tokens {
    /// What is left after taking `other` away; zero when nothing is.
    pub const fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// How many bytes of text are taken for one token where they can't be counted.
    pub const BYTES_EACH: u64 = 3;

    /// A rough upper estimate for a text: one token for every three bytes. Real tokenizers need fewer for
    /// English and about as many for other scripts; it is only used to reserve budget before a call.
    pub const fn estimate(text_bytes: usize) -> Self {
        Self(text_bytes as u64 / Self::BYTES_EACH + 1)
    }
}

impl Add for Tokens {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl AddAssign for Tokens {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl fmt::Display for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// An amount of US dollars, kept in billionths so that the price of a single token is exact enough to add up.
/// Written to JSON as a number of dollars.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema)]
#[schemars(with = "f64")]
pub struct Money {
    nanos: u64,
}

impl Money {
    /// Nothing.
    pub const ZERO: Self = Self { nanos: 0 };

    /// From billionths of a dollar.
    pub const fn from_nanos(nanos: u64) -> Self {
        Self { nanos }
    }

    /// From dollars; negative and not-a-number become zero.
    pub fn from_usd(usd: f64) -> Self {
        Self {
            nanos: (usd * 1e9).round() as u64,
        }
    }

    /// In billionths of a dollar.
    pub const fn nanos(self) -> u64 {
        self.nanos
    }

    /// In dollars.
    pub fn usd(self) -> f64 {
        self.nanos as f64 / 1e9
    }

    /// What is left after taking `other` away; zero when nothing is.
    pub const fn minus(self, other: Self) -> Self {
        Self {
            nanos: self.nanos.saturating_sub(other.nanos),
        }
    }

    /// The price of `tokens` at `self` for a million of them.
    pub fn per_million(self, tokens: Tokens) -> Self {
        let nanos = u128::from(self.nanos) * u128::from(tokens.0) / 1_000_000;
        Self {
            nanos: u64::try_from(nanos).unwrap_or(u64::MAX),
        }
    }
}

impl Add for Money {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self {
            nanos: self.nanos.saturating_add(other.nanos),
        }
    }
}

impl AddAssign for Money {
    fn add_assign(&mut self, other: Self) {
        *self = *self + other;
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Self>>(items: I) -> Self {
        items.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.nanos == 0 || self.nanos >= 10_000_000 {
            write!(f, "${:.2}", self.usd())
        } else {
            write!(f, "${:.6}", self.usd())
        }
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_f64(self.usd())
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let usd = f64::deserialize(deserializer)?;
        if usd.is_finite() && usd >= 0.0 {
            Ok(Self::from_usd(usd))
        } else {
            Err(serde::de::Error::custom(
                "an amount of dollars is a number of 0 or more",
            ))
        }
    }
}

/// What a model call consumed, as the provider reported it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Usage {
    /// Tokens of the prompt, those read from the provider's cache included.
    pub input_tokens: Tokens,
    /// Tokens that the model produced, reasoning included.
    pub output_tokens: Tokens,
    /// Those of `input_tokens` that the provider read from its cache.
    #[serde(default)]
    pub cached_tokens: Tokens,
}

impl Usage {
    /// Prompt and answer together.
    pub fn total(self) -> Tokens {
        self.input_tokens + self.output_tokens
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.input_tokens += other.input_tokens;
        self.output_tokens += other.output_tokens;
        self.cached_tokens += other.cached_tokens;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_price_of_one_token_is_not_lost() {
        let price = Money::from_usd(0.15);
        assert_eq!(price.per_million(Tokens(1)).nanos(), 150);
        assert_eq!(price.per_million(Tokens(1_000_000)), price);
    }

    #[test]
    fn money_is_dollars_in_json_and_never_negative() {
        assert_eq!(
            serde_json::to_string(&Money::from_usd(1.25)).unwrap(),
            "1.25"
        );
        assert!(serde_json::from_str::<Money>("-1").is_err());
        assert_eq!(Money::from_usd(f64::NAN), Money::ZERO);
    }
}
