//! What models cost and how much they read, as their providers listed it in November 2026.
//!
//! An estimate for budgets and reports, not a bill: discounts, long-prompt surcharges, the price of writing a
//! cache and price changes are not in it.

use domain::definition::Provider;
use domain::{Money, Tokens, Usage};

/// The price of a model's tokens, in dollars for a million.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Price {
    /// Of the prompt.
    pub input: Money,
    /// Of the prompt read from the provider's cache.
    pub cached: Money,
    /// Of the answer.
    pub output: Money,
}

/// A family of models: the beginning of its names, its prices in thousandths of a dollar for a million tokens
/// (prompt, cached prompt, answer), and how many thousand tokens it reads.
type Row = (&'static str, [u64; 3], u64);

const OPENAI: [Row; 25] = [
    ("gpt-5.6-luna", [200, 20, 1_200], 1_050),
    ("gpt-5.6-terra", [2_000, 200, 12_000], 1_050),
    ("gpt-5.6", [5_000, 500, 30_000], 1_050),
    ("gpt-5.5-pro", [30_000, 30_000, 180_000], 1_050),
    ("gpt-5.5", [5_000, 500, 30_000], 1_050),
    ("gpt-5.4-nano", [200, 20, 1_250], 400),
    ("gpt-5.4-mini", [750, 75, 4_500], 400),
    ("gpt-5.4-pro", [30_000, 30_000, 180_000], 1_050),
    ("gpt-5.4", [2_500, 250, 15_000], 1_050),
    ("gpt-5.2-pro", [21_000, 21_000, 168_000], 400),
    ("gpt-5.2", [1_750, 175, 14_000], 400),
    ("gpt-5.1", [1_250, 125, 10_000], 400),
    ("gpt-5-nano", [50, 5, 400], 400),
    ("gpt-5-mini", [250, 25, 2_000], 400),
    ("gpt-5-pro", [15_000, 15_000, 120_000], 400),
    ("gpt-5", [1_250, 125, 10_000], 400),
    ("gpt-4.1-nano", [100, 25, 400], 1_047),
    ("gpt-4.1-mini", [400, 100, 1_600], 1_047),
    ("gpt-4.1", [2_000, 500, 8_000], 1_047),
    ("gpt-4o-mini", [150, 75, 600], 128),
    ("gpt-4o", [2_500, 1_250, 10_000], 128),
    ("o4-mini", [1_100, 275, 4_400], 200),
    ("o3-mini", [1_100, 550, 4_400], 200),
    ("o3", [2_000, 500, 8_000], 200),
    ("o1", [15_000, 7_500, 60_000], 200),
];

const ANTHROPIC: [Row; 18] = [
    ("claude-fable-5-1", [10_000, 250, 50_000], 1_000),
    ("claude-fable-5", [10_000, 1_000, 50_000], 1_000),
    ("claude-mythos-5-1", [10_000, 250, 50_000], 1_000),
    ("claude-mythos-5", [10_000, 1_000, 50_000], 1_000),
    ("claude-opus-5-5", [4_000, 200, 20_000], 1_000),
    ("claude-opus-5", [5_000, 500, 25_000], 1_000),
    ("claude-opus-4-8", [5_000, 500, 25_000], 1_000),
    ("claude-opus-4-7", [5_000, 500, 25_000], 1_000),
    ("claude-opus-4-6", [5_000, 500, 25_000], 1_000),
    ("claude-opus-4-5", [5_000, 500, 25_000], 200),
    ("claude-opus-4", [15_000, 1_500, 75_000], 200),
    ("claude-sonnet-5-5", [2_000, 100, 10_000], 1_000),
    ("claude-sonnet-5", [2_000, 200, 10_000], 1_000),
    ("claude-sonnet-4-6", [3_000, 300, 15_000], 1_000),
    ("claude-sonnet-4", [3_000, 300, 15_000], 200),
    // Prompts of more than 100,000 tokens cost five times as much.
    ("claude-haiku-5-5", [100, 10, 500], 1_000),
    ("claude-haiku-4-5", [1_000, 100, 5_000], 200),
    ("claude-3-5-haiku", [800, 80, 4_000], 200),
];

const NOVA: [Row; 4] = [
    ("nova-micro", [35, 9, 140], 128),
    ("nova-lite", [60, 15, 240], 300),
    ("nova-pro", [800, 200, 3_200], 300),
    ("nova-premier", [2_500, 625, 12_500], 1_000),
];

/// The price of a model; `None` when it is not known. What runs at home costs nothing.
pub fn price(provider: Provider, model: &str) -> Option<Price> {
    if matches!(provider, Provider::Ollama | Provider::Scripted) {
        return Some(Price {
            input: Money::ZERO,
            cached: Money::ZERO,
            output: Money::ZERO,
        });
    }
    let (_, [input, cached, output], _) = row(provider, model)?;
    let money = |thousandths: u64| Money::from_nanos(thousandths * 1_000_000);
    Some(Price {
        input: money(input),
        cached: money(cached),
        output: money(output),
    })
}

/// What a call costs that consumed this.
pub fn cost(price: Price, usage: Usage) -> Money {
    let cached = usage.cached_tokens.min(usage.input_tokens);
    price.input.per_million(usage.input_tokens.minus(cached))
        + price.cached.per_million(cached)
        + price.output.per_million(usage.output_tokens)
}

/// How many tokens a model reads and writes together; `None` when it is not known.
pub fn context_window(provider: Provider, model: &str) -> Option<Tokens> {
    row(provider, model).map(|(_, _, thousands)| Tokens(thousands * 1000))
}

/// The row with the longest beginning that fits. A beginning fits at the end of a word only: `gpt-5` is not the
/// family of `gpt-50`.
fn row(provider: Provider, model: &str) -> Option<Row> {
    let (rows, model): (&[Row], &str) = match provider {
        Provider::Openai => (&OPENAI, model),
        Provider::Anthropic => (&ANTHROPIC, model),
        Provider::Bedrock => bedrock_rows(model),
        Provider::Ollama | Provider::Scripted => (&[], model),
    };
    let fits = |(name, ..): &&Row| {
        model.strip_prefix(name).is_some_and(|rest| {
            !rest.starts_with(|next: char| next.is_ascii_digit() || next == '.')
        })
    };
    rows.iter()
        .filter(fits)
        .max_by_key(|(name, ..)| name.len())
        .copied()
}

/// Bedrock writes the maker before the name, before that perhaps a group of regions, and all of it perhaps at the end
/// of an ARN: `eu.anthropic.claude-sonnet-4-5-20250929-v1:0`.
fn bedrock_rows(model: &str) -> (&'static [Row], &str) {
    let id = model.rsplit('/').next().unwrap_or(model);
    let of = |maker: &str| {
        let at = id.find(maker)?;
        let is_whole = id.get(..at)?.is_empty() || id.get(..at)?.ends_with('.');
        is_whole.then(|| id.get(at + maker.len()..)).flatten()
    };
    if let Some(name) = of("anthropic.") {
        (&ANTHROPIC, name)
    } else if let Some(name) = of("amazon.") {
        (&NOVA, name)
    } else {
        (&[], id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_name_wins_and_the_unknown_has_no_price() {
        let input = |provider, model| price(provider, model).map(|price| price.input.usd());
        assert_eq!(
            input(Provider::Openai, "gpt-4o-mini-2024-07-18"),
            Some(0.15)
        );
        assert_eq!(input(Provider::Openai, "gpt-4o"), Some(2.5));
        assert_eq!(input(Provider::Openai, "gpt-5.9"), None);
        assert_eq!(input(Provider::Openai, "gpt-50"), None);
        assert_eq!(input(Provider::Anthropic, "claude-sonnet-5-5"), Some(2.0));
        assert_eq!(
            input(Provider::Anthropic, "claude-opus-4-20250514"),
            Some(15.0)
        );
        assert_eq!(input(Provider::Anthropic, "gpt-4o"), None);
        for id in [
            "anthropic.claude-sonnet-4-5-20250929-v1:0",
            "eu.anthropic.claude-sonnet-4-5-20250929-v1:0",
            "arn:aws:bedrock:eu-central-1:1:inference-profile/eu.anthropic.claude-sonnet-4-6",
        ] {
            assert_eq!(input(Provider::Bedrock, id), Some(3.0), "{id}");
        }
        assert_eq!(
            input(Provider::Bedrock, "us.amazon.nova-lite-v1:0"),
            Some(0.06)
        );
        assert_eq!(
            input(Provider::Bedrock, "meta.llama3-3-70b-instruct-v1:0"),
            None
        );
        assert_eq!(input(Provider::Ollama, "anything"), Some(0.0));
        assert_eq!(
            context_window(Provider::Openai, "gpt-4o"),
            Some(Tokens(128_000))
        );
    }

    #[test]
    fn cached_tokens_are_part_of_the_prompt() {
        let price = price(Provider::Openai, "gpt-4o").unwrap();
        let usage = Usage {
            input_tokens: Tokens(1_000_000),
            cached_tokens: Tokens(400_000),
            output_tokens: Tokens(100_000),
        };
        assert_eq!(cost(price, usage), Money::from_usd(1.5 + 0.5 + 1.0));
    }
}
